"""The store: the only room that opens a database.

`Store` answers and records; `DriverLock` keeps a study to one driver; `optuna_storage` has Optuna's part.
"""

from harness.storage.full_runs import FullScaleRow, FullScaleRuns
from harness.storage.lock import DriverLock, driver_of, reap_undriven
from harness.storage.optuna_storage import (
    batched_writes,
    delete_study,
    load_study,
    open_study,
    optuna_storage,
    requeue_trial,
    require_study,
    widen_distributions,
)
from harness.storage.rows import EventRow, RunRow, StudyRow
from harness.storage.store import Store

__all__ = [
    "DriverLock",
    "EventRow",
    "FullScaleRow",
    "FullScaleRuns",
    "RunRow",
    "Store",
    "StudyRow",
    "batched_writes",
    "delete_study",
    "driver_of",
    "load_study",
    "open_study",
    "optuna_storage",
    "reap_undriven",
    "requeue_trial",
    "require_study",
    "widen_distributions",
]
