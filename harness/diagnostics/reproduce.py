"""Train a recorded run again and compare the two bitwise.

The record is read from a study's database or from a `summary.json`. The new training runs in a temporary folder: no
database, log or checkpoint of a study is changed. Prepared data sets are shared.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.analysis.recorded_runs import (
    RecordedRun,
    is_summary,
    recorded_run_from_database,
    recorded_run_from_summary,
)
from harness.errors import NotFound, UserError
from harness.report.reproduction import Reproduction, ReproductionOutcome, compare_runs, epoch_line
from harness.storage.workspace import Workspace
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

EXIT_CODES: dict[ReproductionOutcome, int] = {
    "same bits": 0,
    "not the same environment": 0,
    "same environment and other bits": 1,
}
RUN_DIGITS = 16
MINUTES = 7 * 24 * 60.0
"""Time limit of the training: a week, so that in practice only the user stops it."""


def reproduce(file: Path, workspace: Workspace, which: str | None, *, is_quick: bool = False) -> Reproduction:
    """Train a recorded run of a study file, a `summary.json` or its folder again, and compare the two.

    `which` is the number of a trial or the id of a run, by default the best trial. Raises `UserError`s.
    """
    trial, run_id = _number_or_id(which)
    if is_summary(file):
        recorded = recorded_run_from_summary(file, trial, run_id)
    else:
        recorded = recorded_run_from_database(file, workspace, trial, run_id, is_quick=is_quick)
    if recorded.state not in (RunState.COMPLETE, RunState.DIVERGED):
        raise UserError(
            "a run must be complete, or have diverged, to be reproduced", value=str(recorded.state), place=recorded.id
        )
    return compare_runs(recorded, *_train_again(recorded, workspace.data_cache))


def _number_or_id(which: str | None) -> tuple[int | None, str | None]:
    if which is None:
        return None, None
    if len(which) == RUN_DIGITS and all(digit in "0123456789abcdef" for digit in which):
        return None, which
    if which.isascii() and which.isdigit():
        return int(which), None
    raise NotFound(
        "what is to be reproduced must be the number of a trial, or a run's id of 16 hexadecimal digits",
        value=which,
        remedy="`harness show FILE` lists the trials, `harness show FILE TRIAL` the ids of their runs.",
    )


def _train_again(recorded: RecordedRun, cache: Path) -> tuple[Started, list[Epoch], dict[str, float], Ended]:
    """The records of a new training of the run, with its number of threads and on its kind of device."""
    with tempfile.TemporaryDirectory(prefix="harness-reproduce-") as folder:
        job = Job(
            recorded.run,
            Path(folder),
            cpus=recorded.threads or 1,
            gpus=1.0 if (recorded.device or "").startswith("cuda") else 0.0,
            minutes=MINUTES,
            cache=cache.absolute(),
        )
        records = list(_show_epochs(job))
    started = next((record for record in records if isinstance(record, Started)), None)
    ended = records[-1]
    assert isinstance(ended, Ended), "the last record of a run must be `Ended`"
    if started is None or ended.state not in (RunState.COMPLETE, RunState.DIVERGED):
        raise UserError("the run must be one that can be trained here", value=ended.cause, place=recorded.id)
    epochs = [record for record in records if isinstance(record, Epoch)]
    return started, epochs, {record.name: record.value for record in records if isinstance(record, Measured)}, ended


def _show_epochs(job: Job) -> Iterator[Record]:
    """The records of a job that is trained in this process; prints each epoch on standard error."""
    from harness.executors.run_job import run_job

    for record in run_job(job):
        if isinstance(record, Epoch):
            print(epoch_line(record, job.run.recipe.epochs), file=sys.stderr, flush=True)
        yield record
