"""What the runs of a candidate recipe come to: effect over spread, core-minutes to a decision, limits; and the best.

The criterion treats both signs of an effect alike: it is the computing until the claim's plan decides, with whatever
verdict. So a recipe in which a claim holds is not preferred to one in which it is contradicted, and since the seeds are
no claim's, the test of the claim on its own seeds keeps its level whichever recipe was chosen: if the arms do not
differ under the chosen recipe, they do not differ on fresh seeds either. What is chosen are the conditions in which the
arms differ most, and a verdict is one about these conditions; therefore the effect of every candidate is shown with its
sign.

The estimate for the best of several candidates is too good, like any best of several; its interval does not contain
that. All candidates are compared with the same seeds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from harness.analysis.configuration_result import RunResult, read_run_results
from harness.analysis.limits import Limit, configuration_limit
from harness.analysis.objective import COST_OBJECTIVES, formula_value
from harness.analysis.plan_history import claim_plan
from harness.analysis.statistics.decision_pairs import Range, effect_size, pairs_to_decision
from harness.analysis.statistics.power import MOST_PAIRS
from harness.analysis.statistics.sample import Sample
from harness.analysis.statistics.sequential import Plan
from harness.config.calibration_candidates import FIRST_SEED, CandidateRecipe
from harness.config.expectation import Expectation
from harness.config.formula import Formula
from harness.config.measures import metrics_of
from harness.config.space import Space
from harness.config.study import CURVES, Claim, Study
from harness.storage import Store
from harness.training.run import Run, RunState

CEILING_TOP1 = 98.0
"""Accuracy in percent from which an arm counts as at the ceiling: what is left to differ in is too little."""
SCORES = ("top1", "val_loss", "brier_score")
"""Metrics of one kind: a claim by one of them is also judged by the others, from the same runs, if its bound is 0."""
UNKNOWN = Range(math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Contrast:
    """A claim as a calibration reads it."""

    claim: str
    metric: str
    weights: Mapping[str, float]
    """By arm."""
    expectation: Expectation
    is_own: bool = True
    """Whether the metric is the claim's own."""
    is_paired: bool = True
    """Whether the claim is tested by its contrast by seed, rather than by independent arms."""


class DecisionCost(NamedTuple):
    """The effect of one claim by one metric under a candidate recipe, and what a decision would cost."""

    contrast: Contrast
    pairs: Sample
    size: Range | None
    """Effect over spread, without its sign; None without a spread."""
    needed: Range
    """Expected pairs until the claim's plan decides."""
    pair_minutes: float
    """Core-minutes of the runs of one pair."""

    @property
    def core_minutes(self) -> Range:
        """Core-minutes until the plan decides."""
        return Range(*(pairs * self.pair_minutes for pairs in self.needed))


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """What the runs of a candidate come to."""

    recipe: CandidateRecipe
    seeds: int
    """Number of seeds of the stage."""
    accuracies: Mapping[str, float]
    """Mean accuracy of each arm, in percent."""
    run_minutes: Mapping[str, float]
    """Core-minutes of a run of each arm."""
    costs: tuple[DecisionCost, ...]
    """Of the claims, by their own and by further metrics."""
    limit: str | None = None
    """The limit of an arm, with the arm; such a candidate is never recommended."""
    lost: int = 0
    """Number of runs without a value."""

    @property
    def own(self) -> tuple[DecisionCost, ...]:
        """The costs by the claims' own metrics."""
        return tuple(cost for cost in self.costs if cost.contrast.is_own)

    @property
    def core_minutes(self) -> Range:
        """Core-minutes until all claims are decided by their own metrics; runs that claims share are counted once."""
        return total_minutes(self.own, self.run_minutes)

    @property
    def is_eligible(self) -> bool:
        """Whether the candidate may be recommended: at no limit, nothing lost, with an estimate."""
        return self.limit is None and not self.lost and math.isfinite(self.core_minutes.value)

    @property
    def note(self) -> str:
        """Why it is not recommended; empty if it may be."""
        if self.lost:
            return f"{self.lost} of {self.seeds * len(self.recipe.networks)} runs without a value"
        if self.limit is not None:
            return self.limit
        if not math.isfinite(self.core_minutes.value):
            return f"no decision within {MOST_PAIRS} pairs expected"
        return ""


def total_minutes(costs: Iterable[DecisionCost], run_minutes: Mapping[str, float]) -> Range:
    """Core-minutes until all claims are decided: each arm is trained as often as the claim that needs it longest."""
    costs = tuple(costs)
    if not costs:
        return UNKNOWN
    totals = []
    for end in range(len(Range._fields)):
        needed: dict[str, float] = {}
        for cost in costs:
            for arm in cost.contrast.weights:
                needed[arm] = max(needed.get(arm, 0.0), cost.needed[end])
        totals.append(sum(pairs * run_minutes[arm] for arm, pairs in needed.items()))
    return Range(*totals)


def contrasts_of(study: Study, arm_of: Mapping[str, str]) -> tuple[Contrast, ...]:
    """The contrasts to decide; claims about exact numbers, such as parameters, need no runs and are left out."""
    return tuple(
        contrast
        for claim in study.claims
        if not Formula(claim.metric).names <= set(COST_OBJECTIVES)
        for contrast in _contrasts(claim, study, arm_of)
    )


def _contrasts(claim: Claim, study: Study, arm_of: Mapping[str, str]) -> Iterable[Contrast]:
    weights = {arm_of[text]: weight for text, weight in claim.contrast.items()}
    expectation, is_paired = Expectation.parse(claim.expect), study.search.pairing == "seed"
    yield Contrast(claim.name, claim.metric, weights, expectation, is_paired=is_paired)
    if claim.metric in SCORES and expectation.bounds == (0.0,):
        for other in SCORES:
            if other != claim.metric and other in metrics_of(study.proxy):
                yield Contrast(claim.name, other, weights, expectation, is_own=False, is_paired=is_paired)


def strictest_plan(study: Study, claims: int) -> Plan:
    """The study's own plan, with the strictest share of the error rate that Holm's correction gives a claim."""
    plan = claim_plan(study)
    return Plan(plan.first, max(2, plan.most), plan.alpha / claims)


def runs_of(recipe: CandidateRecipe, study: Study, space: Space, seeds: int) -> dict[str, list[Run]]:
    """The runs of each arm, in the order of their seeds."""
    runs = {}
    for arm in recipe.networks:
        spec = space.candidate({"base": arm}).spec
        assert spec is not None, "an arm is a network"
        runs[arm] = [Run(spec, study.proxy, seed, space.data) for seed in range(FIRST_SEED, FIRST_SEED + seeds)]
    return runs


def read_candidate(
    recipe: CandidateRecipe,
    runs: Mapping[str, Sequence[Run]],
    store: Store,
    contrasts: Sequence[Contrast],
    plan: Plan,
    cpus: int,
) -> CandidateResult:
    """What the stored runs of a candidate come to; `cpus` are those of each run."""
    stored = read_run_results(store, [run.id for of_arm in runs.values() for run in of_arm])
    complete = {
        arm: [result for run in of_arm if (result := stored.get(run.id)) and result.row.state == RunState.COMPLETE]
        for arm, of_arm in runs.items()
    }
    seeds = max(map(len, runs.values()))
    lost = sum(len(of_arm) - len(complete[arm]) for arm, of_arm in runs.items())
    minutes = {arm: _mean(result.row.wall_s * cpus / 60 for result in of_arm) for arm, of_arm in complete.items()}
    accuracies = {arm: _mean(r.curve[-1].top1 for r in of_arm if r.curve) for arm, of_arm in complete.items()}
    costs = (_decision_cost(contrast, complete, minutes, plan) for contrast in contrasts)
    return CandidateResult(
        recipe,
        seeds,
        accuracies,
        minutes,
        tuple(cost for cost in costs if cost is not None),
        _limit(complete, contrasts, accuracies),
        lost,
    )


def _decision_cost(
    contrast: Contrast, complete: Mapping[str, Sequence[RunResult]], minutes: Mapping[str, float], plan: Plan
) -> DecisionCost | None:
    """What a decision of a claim would cost, from the seeds that all of its arms have completed; None without any."""
    formula = Formula(contrast.metric)
    values = {
        arm: {r.row.run.seed: formula_value(formula, *r.values) for r in complete[arm]} for arm in contrast.weights
    }
    terms = []
    for seed in next(iter(values.values())):
        of_arms = [(weight, values[arm].get(seed)) for arm, weight in contrast.weights.items()]
        of_seed = tuple(weight * value for weight, value in of_arms if value is not None)
        if len(of_seed) == len(of_arms):
            terms.append(of_seed)
    if not terms:
        return None
    pairs = Sample.of([sum(of_seed) for of_seed in terms] if contrast.is_paired else terms)
    size = effect_size(pairs, contrast.expectation.nearest(pairs.mean))
    needed = UNKNOWN if size is None else pairs_to_decision(size, plan, pairs.shares)
    return DecisionCost(contrast, pairs, size, needed, sum(minutes[arm] for arm in contrast.weights))


def _limit(
    complete: Mapping[str, Sequence[RunResult]], contrasts: Sequence[Contrast], accuracies: Mapping[str, float]
) -> str | None:
    """The first arm that is above 98 % or within the noise of chance, if accuracy or loss are compared."""
    compared = {arm: contrast.metric for contrast in contrasts for arm in contrast.weights}
    for arm, metric in compared.items():
        names = Formula(metric).names
        if any(name in CURVES for name in names) and accuracies[arm] >= CEILING_TOP1:
            return f"ceiling: {arm} above {CEILING_TOP1:g} %"
        if configuration_limit(names, [result.values for result in complete[arm]], tests=len(compared)) == Limit.CHANCE:
            return f"floor: {arm} at chance"
    return None


def ranked(results: Iterable[CandidateResult]) -> list[CandidateResult]:
    """The candidates by core-minutes to a decision, those that may be recommended first."""
    return sorted(results, key=lambda result: (not result.is_eligible, *result.core_minutes))


def best_of(results: Iterable[CandidateResult]) -> CandidateResult | None:
    """The candidate to recommend: of those with most seeds, the one that decides for the least computing."""
    results = [result for result in results if result.is_eligible]
    most = max((result.seeds for result in results), default=0)
    return next(iter(ranked(result for result in results if result.seeds == most)), None)


def promising(results: Iterable[CandidateResult]) -> list[CandidateResult]:
    """The candidates that get more seeds: the better half by rank, at least two, that may still be the best.

    A candidate may not be the best if its interval lies above that of the best one.
    """
    eligible = [result for result in results if result.limit is None and not result.lost and result.own]
    if not (order := ranked(eligible)):
        return []
    half = order[: max(2, math.ceil(len(order) / 2))]
    return [result for result in half if result.core_minutes.low <= half[0].core_minutes.high]


def _mean(values: Iterable[float]) -> float:
    """The mean; NaN of nothing."""
    numbers = list(values)
    return fmean(numbers) if numbers else math.nan
