"""Which configurations a pruner stopped by chance: how likely another screening run would have passed.

A pruner compares one run of a configuration with others, and a run of another seed would have had another value. What
is known of a configuration is one value x at a rung; the values of configurations there have the mean m and the
variance v, of which the seeds contribute s**2 (pooled within configurations). With normal distributions, the mean of
the configuration is then normal around m + b (x - m) with the variance b s**2, where b = 1 - s**2 / v (empirical Bayes,
Efron and Morris 1973), and another run varies around that by s. The probability that it reaches the value that was
needed, with all other runs as they were, follows.

The value that was needed is that of Optuna's rule at the time of the decision, which is applied again to the stored
values: of the trials with smaller numbers, and of those that had ended. Where several workers trained, a decision that
this does not reproduce is counted and left out.
"""

import math
import statistics
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.analysis.configuration_result import trial_choices
from harness.analysis.proposal_origin import SCREENING
from harness.analysis.run_status import trial_status
from harness.config.study import HALVING_FACTOR, MEDIAN_STARTUP_TRIALS, decision_epochs, first_rung

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from harness.analysis.trust_observations import TrainedStudy  # numpy comes with it

COIN_TOSS = 0.25
"""Probability of having passed from which a decision is listed as a coin toss."""
LEAST_DEGREES = 10
"""Degrees of freedom of the spread between seeds below which no probability is stated."""
RUNG_KEY = "completed_rung_"
"""Start of the attribute in which Optuna keeps a trial's value at a rung of successive halving."""


class PrunedDecision(NamedTuple):
    """A configuration that was stopped, and how likely it would have passed with another screening run."""

    trial: int
    params: Mapping[str, Any]
    epochs: int
    value: float
    """The objective of its screening run after these epochs."""
    needed: float
    """The value with which it would have passed."""
    probability: float


@dataclass(frozen=True, slots=True)
class PrunedDecisions:
    """The decisions of a study's pruner."""

    decisions: tuple[PrunedDecision, ...] = ()
    """Those that have a probability, the most likely to have passed first."""
    spreads: Mapping[int, tuple[float, int]] | None = None
    """The standard deviation between seeds after each number of epochs, with its degrees of freedom."""
    pruned: int = 0
    """Number of configurations that were stopped."""
    not_reproduced: int = 0
    """Number of those whose decision does not follow from the stored values in the order of the trials."""
    reason: str | None = None
    """Why there are no probabilities."""

    def coin_tosses(self, level: float = COIN_TOSS) -> tuple[PrunedDecision, ...]:
        """The decisions with at least this probability."""
        return tuple(decision for decision in self.decisions if decision.probability >= level)


class _Stopped(NamedTuple):
    """A decision as it was made; values have the sign that makes larger ones better."""

    trial: "FrozenTrial"
    epochs: int
    value: float
    needed: float | None
    """None if the rule, applied again, lets any value pass."""


def pruned_decisions(trained: "TrainedStudy", trials: Sequence["FrozenTrial"]) -> PrunedDecisions:
    """The decisions of the study's pruner to stop a configuration after some epochs of its screening run."""
    study = trained.study
    stopped = [trial for trial in trials if SCREENING in trial.user_attrs and trial_status(trial).state == "pruned"]
    pruned = len(stopped)
    if study.search.pruner == "asha" or not decision_epochs(study.search.pruner, study.proxy.epochs):
        return PrunedDecisions(reason=_no_rung(study.search.pruner))
    if any(one.recipe.epochs != study.proxy.epochs for one in trained.configurations):
        return PrunedDecisions(pruned=pruned, reason="configurations have different numbers of epochs")
    if study.has_several_objectives:
        return PrunedDecisions(pruned=pruned, reason="they were stopped by Pareto rank, of which no chance is computed")
    sign = 1.0 if next(iter(study.objectives.values())) == "maximize" else -1.0
    replay = _Replay(study.study, study.search.pruner, study.proxy.epochs, sign, trials)
    decisions = [decision for trial in stopped if (decision := replay.decision(trial)) is not None]
    made = [one for one in decisions if one.needed is not None and one.value < one.needed]
    spreads = {epochs: spread_at(trained, epochs) for epochs in sorted({one.epochs for one in made})}
    known = {epochs: spread for epochs, spread in spreads.items() if spread[1] >= LEAST_DEGREES}
    with_chance = [
        PrunedDecision(
            one.trial.number,
            trial_choices(one.trial, study.axes),
            one.epochs,
            sign * one.value,
            sign * one.needed,
            chance_to_pass(one.value, one.needed, replay.values_at(one.epochs), known[one.epochs][0]),
        )
        for one in made
        if one.needed is not None and one.epochs in known
    ]
    return PrunedDecisions(
        decisions=tuple(sorted(with_chance, key=lambda decision: (-decision.probability, decision.trial))),
        spreads=known,
        pruned=pruned,
        not_reproduced=pruned - len(made),
        reason=None if known or not made else _no_spread(trained, max(degrees for _, degrees in spreads.values())),
    )


def chance_to_pass(value: float, needed: float, values: Sequence[float], spread: float) -> float:
    """The probability that another run reaches `needed`, of a configuration with one run at `value`.

    `values` are those of all configurations at the rung, `spread` is the standard deviation between seeds.
    """
    if spread == 0:
        return float(value >= needed)
    mean, variance = statistics.fmean(values), statistics.variance(values) if len(values) > 1 else 0.0
    kept = max(0.0, 1 - spread**2 / variance) if variance > 0 else 0.0
    expected = mean + kept * (value - mean)
    return 1 - NormalDist(expected, spread * math.sqrt(1 + kept)).cdf(needed)


def spread_at(trained: "TrainedStudy", epochs: int) -> tuple[float, int]:
    """The standard deviation between seeds after some epochs, pooled over configurations; its degrees of freedom."""
    squares, degrees = 0.0, 0
    for one in trained.configurations:
        values = [curve[epochs - 1] for curve in one.curves.values() if len(curve) >= epochs]
        if len(values) > 1:
            squares += statistics.variance(values) * (len(values) - 1)
            degrees += len(values) - 1
    return (math.sqrt(squares / degrees) if degrees else 0.0), degrees


def bracket_of(study: str, trial: int, epochs: int) -> int:
    """The bracket in which Optuna's Hyperband compares a trial; bracket i has its first rung i rungs later."""
    least = max(1, epochs // HALVING_FACTOR**2)
    brackets = math.floor(math.log(epochs / least, HALVING_FACTOR)) + 1
    shares = [math.ceil(brackets * HALVING_FACTOR**late / (late + 1)) for late in reversed(range(brackets))]
    place = zlib.crc32(f"{study}_{trial}".encode()) % sum(shares)
    for bracket, share in enumerate(shares):
        place -= share
        if place < 0:
            return bracket
    raise AssertionError("the place is below the sum of the shares")


class _Replay:
    """Optuna's rules, applied again to the stored values of a study's trials."""

    def __init__(self, study: str, pruner: str, epochs: int, sign: float, trials: Sequence["FrozenTrial"]) -> None:
        self._study = study
        self._pruner = pruner
        self._epochs = epochs
        self._sign = sign
        self._trials = [trial for trial in trials if "fingerprint" in trial.user_attrs]

    def decision(self, trial: "FrozenTrial") -> _Stopped | None:
        """How this trial was stopped; None if its record does not have that."""
        return self._by_median(trial) if self._pruner == "median" else self._by_halving(trial)

    def values_at(self, epochs: int) -> list[float]:
        """The values of all screening runs that were trained for at least this number of epochs."""
        screened = (trial for trial in self._trials if SCREENING in trial.user_attrs)
        values = (trial.intermediate_values.get(epochs, math.nan) for trial in screened)
        return [self._sign * value for value in values if math.isfinite(value)]

    def _by_halving(self, trial: "FrozenTrial") -> _Stopped | None:
        rungs = [int(key.removeprefix(RUNG_KEY)) for key in trial.system_attrs if key.startswith(RUNG_KEY)]
        if not rungs:
            return None
        rung, bracket = max(rungs), self._bracket(trial)
        first = max(1, self._epochs // HALVING_FACTOR**2) if self._pruner == "hyperband" else first_rung(self._epochs)
        epochs = first * HALVING_FACTOR ** (bracket + rung)
        key = f"{RUNG_KEY}{rung}"
        rivals = [
            self._sign * other.system_attrs[key]
            for other in self._before(trial)
            if key in other.system_attrs and self._bracket(other) == bracket
        ]
        most = max(1, (len(rivals) + 1) // HALVING_FACTOR)
        needed = sorted(rivals, reverse=True)[most - 1] if len(rivals) >= most else None
        return _Stopped(trial, epochs, self._sign * trial.system_attrs[key], needed)

    def _by_median(self, trial: "FrozenTrial") -> _Stopped | None:
        epochs = trial.last_step
        if epochs is None:
            return None
        complete = [other for other in self._before(trial) if other.state.name == "COMPLETE"]
        values = [other.intermediate_values.get(epochs, math.nan) for other in complete]
        rivals = [self._sign * value for value in values if math.isfinite(value)]
        needed = statistics.median(rivals) if rivals and len(complete) >= MEDIAN_STARTUP_TRIALS else None
        best = max(self._sign * value for value in trial.intermediate_values.values())
        return _Stopped(trial, epochs, best, needed)

    def _before(self, trial: "FrozenTrial") -> Iterator["FrozenTrial"]:
        """The trials that a decision could compare with."""
        end = trial.datetime_complete
        for other in self._trials:
            has_ended = end is not None and other.datetime_complete is not None and other.datetime_complete < end
            if other.number < trial.number or (has_ended and other.number != trial.number):
                yield other

    def _bracket(self, trial: "FrozenTrial") -> int:
        return bracket_of(self._study, trial.number, self._epochs) if self._pruner == "hyperband" else 0


def _no_rung(pruner: str) -> str | None:
    if pruner == "asha":
        return "the pruner asha pauses a configuration until others are worse, so no one comparison has stopped it"
    if pruner == "wilcoxon":
        return "the pruner wilcoxon decides after seeds, not after epochs"
    return None if pruner == "none" else f"the pruner {pruner} never decides in a run of so few epochs"


def _no_spread(trained: "TrainedStudy", degrees: int) -> str:
    if len(trained.seeds) < 2:
        return "each configuration has one seed, so the spread between seeds is not known"
    return f"the spread between seeds has {degrees} degrees of freedom, and needs {LEAST_DEGREES}"


def listed(decisions: Iterable[PrunedDecision]) -> list[dict[str, Any]]:
    """The decisions as plain values."""
    return [decision._asdict() | {"params": dict(decision.params)} for decision in decisions]
