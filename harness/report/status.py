"""The status of a study, read from its database while another process may be driving it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.conclusions import configuration_line
from harness.analysis.configuration_result import ConfigurationResult, RunResult
from harness.analysis.formatting import DASH, epochs_done, format_params, plural, printable
from harness.analysis.pareto import ParetoFront, pareto_values
from harness.analysis.racing import RaceResult
from harness.analysis.results import StudyResults, results_limit_sentence
from harness.analysis.run_status import INFEASIBLE, OPEN, configuration_statuses, trial_status
from harness.analysis.summary import configuration_values
from harness.report.console import plain_table
from harness.report.study import data_view
from harness.search.samplers import seed_text
from harness.storage import EventRow
from harness.training.run import RunState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NOT_TRAINED = "not trained"
"""State of a queued run whose configuration has failed or been pruned, and that no worker will train."""


@dataclass(frozen=True)
class StudyStatus:
    """The status of a study."""

    results: StudyResults
    trials: Sequence["FrozenTrial"]
    driver: str | None
    """The process that currently drives it."""
    trials_total: int | None
    """Total number of configurations: exact for a grid, the limit for a sampler; None if it is unknown."""
    seeds: int
    """Number of runs of each configuration."""
    last: Sequence[EventRow]
    needing_seeds: int = 0
    """Number of configurations for which claims, or a race, need another seed."""
    distances: Mapping[str, str] = field(default_factory=dict)
    """How far each open claim is from a verdict, as text."""

    @cached_property
    def configurations(self) -> Counter[str]:
        """Number of configurations by state; with claims or a race, the trials of one configuration count once."""
        opened = [trial for trial in self.trials if "fingerprint" in trial.user_attrs]
        if self.results.claims or self.results.race is not None:
            opened = list({trial.user_attrs["fingerprint"]: trial for trial in opened}.values())
        statuses = configuration_statuses(self.trials)

        def state(trial: "FrozenTrial") -> str:
            status, whole = trial_status(trial), statuses[trial.user_attrs["fingerprint"]]
            return whole.state if status.state == "complete" and whole.state in INFEASIBLE else status.state

        return Counter(map(state, opened))

    @property
    def is_searched(self) -> bool:
        """Whether every configuration is settled with the seeds that all get, or the search has ended before."""
        settled = sum(n for state, n in self.configurations.items() if state not in OPEN)
        return (self.trials_total is not None and settled >= self.trials_total) or self.results.ended is not None

    @property
    def is_finished(self) -> bool:
        """Whether every configuration is settled, and no claim needs more seeds."""
        settled = sum(n for state, n in self.configurations.items() if state not in OPEN)
        if self.results.is_out_of_budget:
            return False
        return self.trials_total is not None and settled >= self.trials_total and not self.needing_seeds

    @property
    def state(self) -> str:
        """Whether a study without a driver is finished, ended before all was trained, or was interrupted."""
        if self.is_finished:
            return "finished"
        return "ended" if self.results.ended is not None else "not running"

    @cached_property
    def runs(self) -> dict[str, tuple[ConfigurationResult, RunResult]]:
        """The runs by id, each with its configuration."""
        return {run.row.id: (row, run) for row in self.results.rows for run in row.runs}

    @property
    def run_states(self) -> Counter[str]:
        """Number of runs by state."""
        return Counter(_run_state(row, run) for row, run in self.runs.values())

    @property
    def runs_total(self) -> int | None:
        """Maximum number of runs; None if it is unknown."""
        if self.trials_total is None or self.results.claims or self.results.race is not None:
            return None
        return self.trials_total * self.seeds

    @property
    def training(self) -> list[tuple[ConfigurationResult, RunResult]]:
        """The runs that workers train now, each with its configuration."""
        return [pair for pair in self.runs.values() if self.driver and pair[1].row.state == RunState.RUNNING]


def _run_state(row: ConfigurationResult, run: RunResult) -> str:
    is_left_out = row.state in ("failed", "pruned") and run.row.state == RunState.QUEUED
    return NOT_TRAINED if is_left_out else str(run.row.state)


def status_view(status: StudyStatus) -> RenderableType:
    """The status for a terminal."""
    results = status.results
    by = f"driven by {status.driver}" if status.driver else status.state
    head = Text(results.study, style="bold").append(f"  {results.objectives_text}: {by}", style="not bold")
    parts: list[RenderableType] = [head, Text()]
    parts.append(Text(f"configurations  {_counts(status.configurations)}{_of(status.trials_total)}"))
    parts.append(Text(f"runs            {_counts(status.run_states)}{_of(status.runs_total, at_most=True)}"))
    first = results.best_so_far
    best = _none(status) if first is None else f"#{first.trials[0]} {configuration_line(first, results.metric)}"
    parts.append(Text(f"best            {best}"))
    if results.pareto is not None and results.front:
        parts.append(Text(f"front           {_front_text(results.pareto)}"))
    if results.claims:
        verdicts = Counter(result.verdict_text for result in results.claims)
        more = f"; {plural(status.needing_seeds, 'configuration')} need another seed" if status.needing_seeds else ""
        parts.append(Text(f"claims          {_counts(verdicts)}{more}"))
        parts += [Text(f"                {name}: {distance}") for name, distance in status.distances.items()]
    if results.race is not None:
        parts.append(Text(f"race            {_race_text(status, results.race)}"))
    if results.budget is not None:
        parts.append(Text(f"budget          {results.budget.text}"))
    if results.ended is not None and not status.driver:
        parts.append(Text(f"ended           {printable(results.ended)}"))
    parts += [Text(f"environments    {origin.text}") for origin in results.origins]
    if results.data:
        parts += [Text(), *data_view(results.data)[:-1]]
    if status.training:
        parts += [Text(), _training(status)]
    if status.last:
        parts += [Text(), Text("last events", style="bold"), *(Text(_event(row), style="dim") for row in status.last)]
    return Group(*parts)


def _front_text(front: ParetoFront) -> str:
    """The size of the front, its knee and its hypervolume as text."""
    knee = "no knee" if front.knee is None else f"the best is the knee, #{front.knee}"
    size = plural(len(front.front), "configuration")
    return f"{size} of {front.text}, {knee}; hypervolume {front.hypervolumes[-1][1]:.3f}"


def _race_text(status: StudyStatus, race: RaceResult) -> str:
    """The progress of a race as text."""
    if not status.is_searched:
        return "begins when the search has ended"
    if race.is_decided:
        rest = f"ended with all seeds, {len(race.rivals)} others not ruled out" if race.rivals else "decided"
        return f"{rest} after {plural(race.runs, 'run')}"
    return f"{plural(race.runs, 'run')} so far, {len(race.rivals)} not ruled out"


def _none(status: StudyStatus) -> str:
    if status.results.limit:
        return f"none: {results_limit_sentence(status.results)}"
    return "none: no configuration is complete and within the budgets" if status.is_finished else "none yet"


def status_values(status: StudyStatus) -> dict[str, Any]:
    """The status for JSON."""
    results = status.results
    return {
        "study": results.study,
        "objective": {"name": results.metric, "direction": results.direction},
        **({} if results.pareto is None else {"pareto": pareto_values(results.pareto)}),
        "driver": status.driver,
        "is_finished": status.is_finished,
        "configurations": dict(status.configurations),
        "configurations_total": status.trials_total,
        "runs": dict(status.run_states),
        "runs_at_most": status.runs_total,
        "claims": {result.claim.name: result.verdict_text for result in results.claims},
        "distances": dict(status.distances),
        "ended": results.ended,
        "budget": None
        if results.budget is None
        else results.budget.values() | {"is_used_up": results.is_out_of_budget},
        "racing": None
        if results.race is None
        else {
            "is_decided": status.is_searched and results.race.is_decided,
            "runs": results.race.runs,
            "not_ruled_out": len(results.race.rivals),
        },
        "data": list(results.data),
        "other_environments": [origin.text for origin in results.origins],
        "limit": results.limit,
        "best": None if results.best_so_far is None else configuration_values(results.best_so_far, results.metric),
    }


def _training(status: StudyStatus) -> RenderableType:
    table = plain_table(("training",), ("epoch", "train loss", "top1"))
    for row, result in status.training:
        last = result.curve[-1] if result.curve else None
        run = result.row.run
        table.add_row(
            Text(f"{format_params(row.params)} {seed_text(run.seed)}"),
            epochs_done(last.epoch if last else 0, run.recipe.epochs),
            f"{last.train_loss:.3f}" if last else DASH,
            f"{last.top1:.2f}" if last else DASH,
        )
    return table


def _counts(states: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in states.items()) or "none"


def _of(total: int | None, *, at_most: bool = False) -> str:
    return "" if total is None else f"; {total} {'at most' if at_most else 'in all'}"


def _event(row: EventRow) -> str:
    trial = "" if row.trial is None else f" #{row.trial}"
    message = f": {printable(row.message)}" if row.message else ""
    return f"  {row.time.astimezone():%Y-%m-%d %H:%M:%S}{trial} {row.kind}{message}"
