"""The results database; this is the only package that opens it.

`Store` reads and writes it; `DriverLock` allows one driver per study; `optuna_storage` holds Optuna's part.
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
