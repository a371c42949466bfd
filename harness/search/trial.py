"""A configuration on its way through the study: Optuna's trial, its runs (one per seed), and what they gave so far."""

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.run import Run
from harness.space import Axis, Choice, Range
from harness.spec import NetworkSpec
from harness.store import together

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Outcome = Literal["complete", "pruned", "failed"]


@dataclass(slots=True)
class OpenTrial:
    """One configuration that is being trained. Its first run may be pruned; the others wait until that is complete."""

    trial: "optuna.Trial"
    params: dict[str, Any]
    spec: NetworkSpec
    runs: list[Run]
    todo: list[Run] = field(default_factory=list)
    """Runs not yet handed to the executor."""
    active: dict[str, Run] = field(default_factory=dict)
    """Runs that the executor has, by id."""
    values: dict[str, float] = field(default_factory=dict)
    """Objective by run id, of the runs that are complete."""
    failures: dict[str, str] = field(default_factory=dict)
    """Reason by run id, of the runs that ended without a result."""
    steps: set[int] = field(default_factory=set)
    """Steps already reported; Optuna keeps the first report of a step."""
    is_pruned: bool = False

    @property
    def number(self) -> int:
        """Optuna's number of the trial."""
        return self.trial.number

    @property
    def first(self) -> Run:
        """The run that speaks for the configuration until it is complete."""
        return self.runs[0]

    def ready(self) -> Run | None:
        """The next run that may be trained now."""
        if not self.todo or self.is_pruned:
            return None
        run = self.todo[0]
        return run if run is self.first or self.first.id in self.values else None

    def outcome(self) -> Outcome | None:
        """What became of the configuration, once that is decided; None as long as something is to be trained."""
        if self.active:
            return None
        if self.is_pruned:
            return "pruned"
        if self.first.id in self.failures:
            return "pruned" if "diverged" in self.trial.constraints else "failed"
        return "complete" if not self.todo and self.values else None

    def report(self, value: float, step: int) -> None:
        """Add a point to the learning curve, unless the curve has that step."""
        if step not in self.steps:
            self.steps.add(step)
            self.trial.report(value, step)

    def mean(self) -> float:
        """Mean of the objective over the complete runs."""
        return statistics.fmean(self.values.values())

    def spread(self) -> float | None:
        """Standard deviation over the complete runs (n - 1); None for fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def tell(
        self, study: "optuna.Study", outcome: Outcome, facts: Mapping[str, Any], latency_budget_ms: float | None
    ) -> str | None:
        """Close the trial in Optuna, its facts as attributes; returns how it is over the latency budget, if it is."""
        from optuna.trial import TrialState

        over = None
        latency_ms = facts.get("latency_ms_p50")
        if latency_budget_ms is not None and latency_ms is not None:
            self.trial.set_constraint("latency_ms", latency_ms - latency_budget_ms)
            if latency_ms > latency_budget_ms:
                over = f"latency {latency_ms:.3g} ms is over the budget of {latency_budget_ms:g} ms"
        result = {"values": list(self.values.values()), "spread": self.spread(), "failures": self.failures}
        with together(study):
            for key, value in ({k: v for k, v in result.items() if v} | dict(facts)).items():
                self.trial.set_user_attr(key, value)
            match outcome:
                case "complete":
                    study.tell(self.trial, self.mean())
                case "pruned":
                    study.tell(self.trial, state=TrialState.PRUNED)
                case _:
                    study.tell(self.trial, state=TrialState.FAIL)
        return over


def distribution_of(axis: Axis) -> "BaseDistribution":
    """What `chooser` has Optuna draw from."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Choice):
        return CategoricalDistribution([label(value) for value in axis.values])
    if axis.is_integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step))
    return FloatDistribution(axis.low, axis.high, step=axis.step)


def chooser(trial: "optuna.Trial") -> Callable[[str, Axis], Any]:
    """Let an Optuna trial choose on every axis: ordinal ones as stepped numbers, the others as categories."""

    def choose(name: str, axis: Axis) -> Any:
        if isinstance(axis, Range):
            if axis.is_integer:
                return trial.suggest_int(name, int(axis.low), int(axis.high), step=int(axis.step), log=axis.log)
            return trial.suggest_float(name, axis.low, axis.high, step=axis.step)
        labels = {label(value): value for value in axis.values}
        return labels[trial.suggest_categorical(name, list(labels))]

    return choose


def replay(params: Mapping[str, Any]) -> Callable[[str, Axis], Any]:
    """Choose what a trial chose, given its parameters as Optuna keeps them."""

    def choose(name: str, axis: Axis) -> Any:
        if isinstance(axis, Range):
            return params[name]
        return next(value for value in axis.values if label(value) == params[name])

    return choose


def stored_params(params: Mapping[str, Any], axes: Mapping[str, Axis]) -> dict[str, Any]:
    """Chosen values in the form in which `chooser` suggests them."""
    return {name: label(value) if isinstance(axes[name], Choice) else value for name, value in params.items()}


def label(value: Any) -> Any:
    """A choice as Optuna can store it and a person can read it: scalars as they are, lists as text."""
    return json.dumps(value) if isinstance(value, list | tuple) else value
