"""An open trial of a study: Optuna's trial, its runs (one per seed), and their results so far."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.analysis.objective import LATENCY, LATENCY_BOUND, spread_of
from harness.analysis.run_status import DIVERGED
from harness.config.axes import Axis, Choice, Range
from harness.models.spec.network import NetworkSpec
from harness.storage import batched_writes
from harness.training.run import Run

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

TrialOutcome = Literal["complete", "pruned", "failed"]
FURTHER_OBJECTIVES = "further_objectives"
"""Attribute of a trial of a study with several objectives: the values of its runs, by the name of an objective."""


@dataclass(slots=True)
class OpenTrial:
    """A trial whose configuration is being trained.

    A pruner of epochs decides on its screening run alone, which is not in the mean: runs that pass a pruner are better
    than average by selection, so a mean with them would be biased. The first seed waits for the screening, the other
    seeds for the first.
    """

    trial: "optuna.Trial"
    params: dict[str, Any]
    spec: NetworkSpec
    configuration: str
    """Fingerprint of the configuration: of the network, with its recipe if the recipe varies."""
    runs: list[Run]
    screening: Run | None = None
    """The run on which the pruner decides, with a separate seed; None without a pruner, and for further seeds."""
    screening_epochs: int = 0
    """Epochs after which the screening run has passed."""
    todo: list[Run] = field(default_factory=list)
    """Runs not yet submitted to the executor."""
    active: dict[str, Run] = field(default_factory=dict)
    """Submitted runs by id."""
    values: dict[str, float] = field(default_factory=dict)
    """First objective of the complete runs, by run id."""
    others: dict[str, dict[str, float]] = field(default_factory=dict)
    """The further objectives of a study with several: by name, of the complete runs, by run id."""
    failures: dict[str, str] = field(default_factory=dict)
    """Reason by run id, for runs that ended without a result."""
    steps: set[int] = field(default_factory=set)
    """Steps already reported; Optuna keeps the first report of a step."""
    is_judged: bool = False
    """Whether its further seeds may be given up after some of them, by the pruner `wilcoxon`."""
    is_raced: bool = False
    """Whether it trains a further seed that its configuration has earned in a race."""
    is_pruned: bool = False
    is_screened: bool = False
    """Whether the screening run has passed all decisions."""
    is_paused: bool = False
    """Whether the screening run is at a rung of the pruner `asha`, from which it may be promoted."""
    rungs_passed: int = 0
    """Number of rungs from which it was promoted."""

    @property
    def number(self) -> int:
        """Optuna's number of the trial."""
        return self.trial.number

    @property
    def first(self) -> Run:
        """The run of the first seed; the other seeds wait until it is complete."""
        return self.runs[0]

    @property
    def opening(self) -> Run:
        """The run that is trained first: the screening run, or that of the first seed."""
        return self.screening or self.first

    @property
    def all_runs(self) -> list[Run]:
        """The screening run, if there is one, and a run for each seed."""
        return [*([] if self.screening is None else [self.screening]), *self.runs]

    def ready(self) -> Run | None:
        """The next run that may be trained now; None if there is none."""
        if not self.todo or self.is_pruned or self.is_paused:
            return None
        run = self.todo[0]
        if self.screening is not None and not self.is_screened:
            return run if run is self.screening else None
        return run if run is self.first or self.first.id in self.values else None

    def outcome(self) -> TrialOutcome | None:
        """The outcome of the trial; None while a run is still to be trained."""
        if self.active:
            return None
        if self.is_pruned:
            return "pruned"
        if self.opening.id in self.failures or self.first.id in self.failures:
            return "pruned" if DIVERGED in self.trial.constraints else "failed"
        return "complete" if not self.todo and self.values else None

    def frozen(self) -> "FrozenTrial":
        """The trial's current state in Optuna."""
        return self.trial.study._storage.get_trial(self.trial._trial_id)

    def give_back_seeds(self) -> list[Run]:
        """Leave the seeds that are not trained to a later trial, and return their runs."""
        untrained = list(self.todo)
        self.todo.clear()
        self.runs = [run for run in self.runs if run not in untrained]
        self.trial.set_user_attr("seeds", [run.seed for run in self.runs])
        self.trial.set_user_attr("runs", [run.id for run in self.runs])
        return untrained

    def give_up(self, run: Run, reason: str) -> None:
        """Leave out the seeds that are not trained yet, because of the results up to this run."""
        self.is_pruned = True
        self.todo.clear()
        self.failures = {run.id: reason} | self.failures

    def report(self, value: float, step: int) -> None:
        """Add a point to the learning curve, unless the curve has that step."""
        if step in self.steps:
            return
        self.steps.add(step)
        if self.others:  # for which Optuna's own method raises
            self.trial.study._storage.set_trial_intermediate_value(self.trial._trial_id, step, value)
        else:
            self.trial.report(value, step)

    def mark_diverged(self) -> None:
        """Make the trial infeasible for the sampler, because a seed of its configuration has diverged."""
        if DIVERGED not in self.trial.constraints:  # Optuna warns of a constraint that is set twice
            self.trial.set_constraint(DIVERGED, 1.0)

    def add_values(self, run: Run, values: Sequence[float]) -> None:
        """Add the objectives of a complete run, in the order of the study."""
        self.values[run.id] = values[0]
        for by_run, value in zip(self.others.values(), values[1:], strict=True):
            by_run[run.id] = value

    def mean(self) -> float:
        """Mean of the first objective over the complete runs."""
        return statistics.fmean(self.values.values())

    def means(self) -> tuple[float, ...]:
        """Mean of each objective over the complete runs."""
        return (self.mean(), *(statistics.fmean(by_run.values()) for by_run in self.others.values()))

    def finish(
        self, study: "optuna.Study", outcome: TrialOutcome, facts: Mapping[str, Any], latency_budget_ms: float | None
    ) -> str | None:
        """Close the trial in Optuna, with its facts as attributes; returns a text if it is over the latency budget."""
        from optuna.trial import TrialState

        over = None
        latency_ms = facts.get(LATENCY_BOUND, facts.get(LATENCY))
        if latency_budget_ms is not None and latency_ms is not None:
            self.trial.set_constraint("latency_ms", latency_ms - latency_budget_ms)
            if latency_ms > latency_budget_ms:
                over = f"latency {latency_ms:.3g} ms is over the budget of {latency_budget_ms:g} ms"
        result = {
            "values": list(self.values.values()),
            "values_by_seed": {str(run.seed): self.values[run.id] for run in self.runs if run.id in self.values},
            "spread": spread_of(self.values.values()),
            "failures": self.failures,
            FURTHER_OBJECTIVES: {name: list(by_run.values()) for name, by_run in self.others.items() if by_run},
        }
        with batched_writes(study):
            for key, value in ({k: v for k, v in result.items() if v} | dict(facts)).items():
                self.trial.set_user_attr(key, value)
            if outcome == "complete":
                study.tell(self.trial, list(self.means()))
            else:
                study.tell(self.trial, state=TrialState.PRUNED if outcome == "pruned" else TrialState.FAIL)
        return over


def distribution_of(axis: Axis) -> "BaseDistribution":
    """The Optuna distribution from which `suggest` samples an axis."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Choice):
        return CategoricalDistribution([storable_choice(value) for value in axis.values])
    if axis.is_integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step))
    return FloatDistribution(axis.low, axis.high, step=axis.step)


def suggest(trial: "optuna.Trial") -> Callable[[str, Axis], Any]:
    """A function that samples an axis from an Optuna trial: ranges as stepped numbers, the others as categories."""

    def choose(name: str, axis: Axis) -> Any:
        if isinstance(axis, Range):
            if axis.is_integer:
                return trial.suggest_int(name, int(axis.low), int(axis.high), step=int(axis.step), log=axis.log)
            return trial.suggest_float(name, axis.low, axis.high, step=axis.step)
        labels = {storable_choice(value): value for value in axis.values}
        return labels[trial.suggest_categorical(name, list(labels))]

    return choose


def recorded_params(params: Mapping[str, Any]) -> Callable[[str, Axis], Any]:
    """A function that returns the values that a trial chose, from its parameters as Optuna stores them."""

    def choose(name: str, axis: Axis) -> Any:
        if isinstance(axis, Range):
            return params[name]
        return next(value for value in axis.values if storable_choice(value) == params[name])

    return choose


def stored_params(params: Mapping[str, Any], axes: Mapping[str, Axis]) -> dict[str, Any]:
    """Chosen values in the form in which `suggest` passes them to Optuna."""
    return {name: storable_choice(value) if isinstance(axes[name], Choice) else value for name, value in params.items()}


def storable_choice(value: Any) -> Any:
    """A choice in a form that Optuna can store and people can read: scalars unchanged, lists as text."""
    return json.dumps(value) if isinstance(value, list | tuple) else value
