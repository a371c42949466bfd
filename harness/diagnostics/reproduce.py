"""Train a recorded run again and compare the two bitwise.

The record is read from a study's database or from a `summary.json`. The new training runs in a temporary folder: no
database, log or checkpoint of a study is changed. Prepared data sets are shared.
"""

import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import format_duration, format_metric, plural
from harness.analysis.objective import final_value
from harness.analysis.recorded_runs import (
    RecordedRun,
    is_summary,
    recorded_run_from_database,
    recorded_run_from_summary,
)
from harness.config.measures import is_of_machine
from harness.errors import NotFound, UserError
from harness.storage.workspace import Workspace
from harness.training.environment import UNKNOWN_ENVIRONMENT, Environment, describe_difference, describe_environment
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

ReproductionOutcome = Literal["same bits", "not the same environment", "same environment and other bits"]
COMPARED_FIELDS = ("train_loss", "val_loss", "top1", "lr")
"""Fields of an epoch that are compared: all except times."""
EXIT_CODES: dict[ReproductionOutcome, int] = {
    "same bits": 0,
    "not the same environment": 0,
    "same environment and other bits": 1,
}
RUN_DIGITS = 16
MINUTES = 7 * 24 * 60.0
"""Time limit of the training: a week, so that in practice only the user stops it."""


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """A recorded number and its new value."""

    name: str
    """Name of the number, such as `top1 of epoch 2`."""
    recorded: float | None
    again: float | None


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A recorded run compared with its new training."""

    recorded: RecordedRun
    environment: Environment | None
    """Environment of the new training."""
    value: float | None
    wall_s: float
    compared: int
    """Number of compared numbers."""
    differences: tuple[MetricDifference, ...]
    """Those that are not bitwise equal, in the order in which they were computed."""
    other_environment: tuple[str, ...]
    """Reasons why the two trainings need not be bitwise equal; empty if they must be."""

    @property
    def outcome(self) -> ReproductionOutcome:
        """The outcome of the comparison."""
        if not self.differences:
            return "same bits"
        return "not the same environment" if self.other_environment else "same environment and other bits"

    @property
    def value_difference(self) -> float | None:
        """The absolute difference of the two objectives; None if one is missing."""
        recorded, again = self.recorded.value, self.value
        return None if recorded is None or again is None else abs(recorded - again)


def reproduce(file: Path, workspace: Workspace, selection: str | None, *, is_quick: bool = False) -> Reproduction:
    """Train a recorded run of a study file, a `summary.json` or its folder again, and compare the two.

    `selection` is the number of a trial or the id of a run, by default the best trial. Raises `UserError`s.
    """
    trial, run_id = _number_or_id(selection)
    if is_summary(file):
        recorded = recorded_run_from_summary(file, trial, run_id)
    else:
        recorded = recorded_run_from_database(file, workspace, trial, run_id, is_quick=is_quick)
    if recorded.state not in (RunState.COMPLETE, RunState.DIVERGED):
        raise UserError(
            "a run must be complete, or have diverged, to be reproduced", value=str(recorded.state), place=recorded.id
        )
    return compare_runs(recorded, *_train_again(recorded, workspace.data_cache))


def _number_or_id(selection: str | None) -> tuple[int | None, str | None]:
    if selection is None:
        return None, None
    if len(selection) == RUN_DIGITS and all(digit in "0123456789abcdef" for digit in selection):
        return None, selection
    if selection.isascii() and selection.isdigit():
        return int(selection), None
    raise NotFound(
        "what is to be reproduced must be the number of a trial, or a run's id of 16 hexadecimal digits",
        value=selection,
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
            done = f"epoch {record.epoch}/{job.run.recipe.epochs}"
            print(f"{done}: top1 {record.top1:.2f}, {format_duration(record.wall_s)}", file=sys.stderr, flush=True)
        yield record


def compare_runs(
    recorded: RecordedRun, started: Started, curve: Sequence[Epoch], measures: Mapping[str, float], ended: Ended
) -> Reproduction:
    """Compare a new training with the record. Raises `UserError` if the record has nothing that can be compared."""
    pairs = list(_pairs(recorded, curve, measures, ended))
    if not pairs:
        raise UserError("a run must have recorded more than times to be compared", value=recorded.id)
    environment = started.environment
    return Reproduction(
        recorded,
        environment,
        final_value(recorded.metric, recorded.run, curve, measures),
        ended.wall_s,
        len(pairs),
        tuple(pair for pair in pairs if not _is_equal(pair.recorded, pair.again)),
        tuple(_reasons(recorded, environment)),
    )


def reproduction_view(reproduction: Reproduction) -> RenderableType:
    """The comparison for a terminal."""
    recorded, metric = reproduction.recorded, reproduction.recorded.metric
    trial = "" if recorded.trial is None else f" trial {recorded.trial},"
    where = f" on {recorded.device}" if recorded.device else ""
    again, environment = format_metric(reproduction.value, metric), describe_environment(reproduction.environment)
    return Group(
        Text(recorded.study, style="bold").append(
            f" {trial} seed {recorded.run.seed}, run {recorded.id}", style="not bold"
        ),
        Text(f"  recorded  {metric} {format_metric(recorded.value, metric)}{where}"),
        Text(f"  again     {metric} {again}: {environment}"),
        Text(),
        Text(_head(reproduction), style="bold red" if EXIT_CODES[reproduction.outcome] else "bold"),
        *(Text(f"  {line}") for line in _details(reproduction)),
    )


def reproduction_values(reproduction: Reproduction) -> dict[str, Any]:
    """The comparison for JSON."""
    recorded = reproduction.recorded
    return {
        "outcome": reproduction.outcome,
        "study": recorded.study,
        "trial": recorded.trial,
        "run": recorded.id,
        "seed": recorded.run.seed,
        "objective": recorded.metric,
        "recorded": recorded.value,
        "again": reproduction.value,
        "apart": reproduction.value_difference,
        "sd_of_seeds": recorded.spread,
        "n_seeds": len(recorded.siblings),
        "not_the_same_environment": list(reproduction.other_environment),
        "recorded_environments": [
            None if environment is None else environment.values() for environment in recorded.environments
        ],
        "environment": None if reproduction.environment is None else reproduction.environment.values(),
        "compared": reproduction.compared,
        "differences": [
            {"name": pair.name, "recorded": pair.recorded, "again": pair.again} for pair in reproduction.differences
        ],
        "wall_s": reproduction.wall_s,
    }


def _pairs(
    recorded: RecordedRun, curve: Sequence[Epoch], measures: Mapping[str, float], ended: Ended
) -> Iterator[MetricDifference]:
    """All numbers that must be equal: the final state, those of every epoch, and all measures except times."""
    if recorded.state != ended.state:
        yield MetricDifference(f"it is {ended.state} and was {recorded.state}", 0.0, 1.0)
    before, again = ({epoch.epoch: epoch for epoch in epochs} for epochs in (recorded.curve, curve))
    for number in sorted(before.keys() | again.keys()) if before else ():
        for name in COMPARED_FIELDS:
            both = (getattr(epochs.get(number), name, None) for epochs in (before, again))
            yield MetricDifference(f"{name} of epoch {number}", *both)
    metric = recorded.metric
    if not before and recorded.value is not None and metric not in recorded.measures and not is_of_machine(metric):
        yield MetricDifference(metric, recorded.value, final_value(metric, recorded.run, curve, measures))
    for name in sorted(recorded.measures):
        if not is_of_machine(name):
            yield MetricDifference(name, recorded.measures[name], measures.get(name))


def _is_equal(recorded: float | None, again: float | None) -> bool:
    if recorded is None or again is None:
        return recorded is again
    return recorded == again or (math.isnan(recorded) and math.isnan(again))


def _reasons(recorded: RecordedRun, environment: Environment | None) -> Iterator[str]:
    if changed := recorded.changed_meaning:
        yield changed
    for before in recorded.environments:
        difference = UNKNOWN_ENVIRONMENT if environment is None else describe_difference(before, environment)
        if difference:
            yield difference


def _head(reproduction: Reproduction) -> str:
    reasons = "; ".join(reproduction.other_environment)
    match reproduction.outcome:
        case "same bits":
            although = f", although this is not the same environment ({reasons})" if reasons else ""
            return f"same bits: {plural(reproduction.compared, 'number')} compared, all equal{although}"
        case "not the same environment":
            return f"not the same environment ({reasons})"
    return "SAME ENVIRONMENT AND OTHER BITS"


def _details(reproduction: Reproduction) -> Iterator[str]:
    if not reproduction.differences:
        return
    first, metric = reproduction.differences[0], reproduction.recorded.metric
    count = f"{len(reproduction.differences)} of {plural(reproduction.compared, 'number')} differ"
    yield f"{count}; the first is {first.name}: recorded {first.recorded!r}, now {first.again!r}"
    if reproduction.value_difference is not None and not is_of_machine(metric):
        spread = reproduction.recorded.spread
        spread_text = f"the seeds have a standard deviation of {format_metric(spread, metric)}"
        seeds = "the spread of the seeds is not known" if spread is None else spread_text
        difference = format_metric(reproduction.value_difference, metric)
        yield f"{metric} differs by {difference}; {seeds} (n = {len(reproduction.recorded.siblings)})"
