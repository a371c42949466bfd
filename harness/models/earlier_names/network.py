"""`harness.network`, by which scripts build and merge networks, is `harness.models.build`."""

from harness.models.build import build, fold, merge

__all__ = ["build", "fold", "merge"]
