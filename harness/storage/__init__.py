"""The store: the only room that opens a database.

`Store` answers and records; `DriverLock` keeps a study to one driver; `optuna_storage` has Optuna's part.
"""

from harness.storage.full_runs import FullRow, FullRuns
from harness.storage.lock import DriverLock, driver_of, reap_undriven
from harness.storage.optuna_storage import (
    fresh,
    load_study,
    open_study,
    optuna_storage,
    park_trial,
    require_study,
    together,
    widen_distributions,
)
from harness.storage.rows import EventRow, RunRow, StudyRow
from harness.storage.store import Store

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
