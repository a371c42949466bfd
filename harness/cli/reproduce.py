"""The verb `reproduce`: a recorded run is trained again, and what comes of it is compared bit by bit.

The record is that of a study's database, or that of a `summary.json` alone. The new training has a folder of its own
that is deleted afterwards: no database, log or checkpoint of a study is touched. Prepared data sets are shared.
"""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from harness.analysis.recorded_runs import RecordedRun, from_database, from_summary, is_summary
from harness.errors import NotFound, UserError
from harness.report.console import make_console
from harness.report.reproduction import compare, epoch_line, reproduction_values, reproduction_view
from harness.report.summary import json_text
from harness.storage.workspace import Place
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

EXIT_CODES = {"same bits": 0, "not the same environment": 0, "same environment and other bits": 1}
RUN_DIGITS = 16
MINUTES = 7 * 24 * 60.0
"""The training is ended by who started it, not by a clock."""


def reproduce(args: Namespace) -> int:
    """Train a recorded run again and print how the outcomes compare; 1 for other bits in the same environment."""
    recorded = _find(args)
    found = compare(recorded, *_train_again(recorded, args.results / "data"))
    if args.json:
        print(json_text(reproduction_values(found)))
    else:
        make_console().print(reproduction_view(found))
    return EXIT_CODES[found.outcome]


def _find(args: Namespace) -> RecordedRun:
    """The run that the command line names. Raises `UserError`s."""
    trial, run_id = _number_or_id(args.which)
    if is_summary(args.file):
        recorded = from_summary(args.file, trial, run_id)
    else:
        recorded = from_database(args.file, Place(args.results, args.storage), trial, run_id, is_quick=args.quick)
    if recorded.state not in (RunState.COMPLETE, RunState.DIVERGED):
        raise UserError(
            "a run must be complete, or have diverged, to be reproduced", value=str(recorded.state), place=recorded.id
        )
    return recorded


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
    """The records of a new training of the run, with as many threads and on the kind of device that it had."""
    with tempfile.TemporaryDirectory(prefix="harness-reproduce-") as folder:
        job = Job(
            recorded.run,
            Path(folder),
            cpus=recorded.threads or 1,
            gpus=1.0 if (recorded.device or "").startswith("cuda") else 0.0,
            minutes=MINUTES,
            cache=cache.absolute(),
        )
        records = list(_shown(job))
    started = next((record for record in records if isinstance(record, Started)), None)
    ended = records[-1]
    assert isinstance(ended, Ended), "the last record of a run says how it ended"
    if started is None or ended.state not in (RunState.COMPLETE, RunState.DIVERGED):
        raise UserError("the run must be one that can be trained here", value=ended.cause, place=recorded.id)
    epochs = [record for record in records if isinstance(record, Epoch)]
    return started, epochs, {record.name: record.value for record in records if isinstance(record, Measured)}, ended


def _shown(job: Job) -> Iterator[Record]:
    """The records of a job that is trained in this process, each epoch shown on standard error."""
    from harness.executors.run_job import evaluate

    for record in evaluate(job):
        if isinstance(record, Epoch):
            print(epoch_line(record, job.run.recipe.epochs), file=sys.stderr, flush=True)
        yield record
