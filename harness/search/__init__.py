"""The search: chooses what to train next and processes the results. `Driver` is a study's only database writer."""

from harness.search.driver import Driver, DriverContext

__all__ = ["Driver", "DriverContext"]
