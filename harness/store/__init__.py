"""The store: the only room that opens a database.

`Store` answers and records; `DriverLock` keeps a study to one driver; `optuna_storage` has Optuna's part.
"""

from harness.store.full_runs import FullRow, FullRuns
from harness.store.lock import DriverLock, driver_of, reap_undriven
from harness.store.optuna_storage import (
    fresh,
    load_study,
    open_study,
    optuna_storage,
    park_trial,
    require_study,
    together,
    widen_distributions,
)
from harness.store.rows import EventRow, RunRow, StudyRow
from harness.store.store import Store

__all__ = [
    "DriverLock",
    "EventRow",
    "FullRow",
    "FullRuns",
    "RunRow",
    "Store",
    "StudyRow",
    "driver_of",
    "fresh",
    "load_study",
    "open_study",
    "optuna_storage",
    "park_trial",
    "reap_undriven",
    "require_study",
    "together",
    "widen_distributions",
]
