"""The search: what to train next, and what to make of it. `Driver` is the one writer of a study's database."""

from harness.search.driver import Driver, DriverContext

__all__ = ["Driver", "DriverContext"]
