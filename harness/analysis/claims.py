"""Evaluates the claims of a study on the stored runs, and lists the runs that could decide the undecided ones.

Each seed that all arms of a claim have completed counts: as one value of the contrast, or, with `search.pairing: none`,
as one value of each arm. So a seed that an arm lost is left out of all arms, without pairing too: every look has the
same seeds in all arms, and what is lost by its outcome is visible as a seed (`LostPair`). More seeds are added one at a
time, only to the arms of undecided claims; `harness.analysis.statistics` describes how the error rate is kept.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.analysis.configuration_result import of_one_environment, read_run_results
from harness.analysis.limits import Limit, common_limit, configuration_limit
from harness.analysis.objective import COST_OBJECTIVES, formula_value
from harness.analysis.plan_history import SeedRuns, claim_plan, file_history, foreign_looks
from harness.analysis.reuse import study_environment, time_reference
from harness.analysis.statistics import (
    Estimate,
    ExtendedPlan,
    Plan,
    Values,
    Verdict,
    estimate_effect,
    holm,
    judge,
    seeds_to_decide,
    variance_removed,
)
from harness.config.claim_arms import arm_choices
from harness.config.expectation import Expectation
from harness.config.formula import Formula
from harness.config.space import Candidate, Space
from harness.config.study import Claim, Pairing, Study
from harness.storage import RunRow, Store
from harness.training.environment import Environment
from harness.training.run import Run, RunState

ANALYSES: dict[Pairing, str] = {"seed": "paired by seed", "none": "unpaired (Welch)"}
"""The tests of claims as text, by `search.pairing`."""
WITHOUT_VALUE = (RunState.DIVERGED, RunState.OUT_OF_MEMORY, RunState.TIMED_OUT, RunState.LOST, RunState.FAILED)
"""States of runs that ended on their own without being complete."""


@dataclass(frozen=True, slots=True)
class LostPair:
    """A seed for which the run of an arm ended without a value."""

    seed: int
    arm: str
    """The arm as written in the claim."""
    state: str
    """State of the run, such as `diverged` or `out of memory`."""

    @property
    def text(self) -> str:
        """Text such as `seed 2 of K=3 diverged`."""
        return f"seed {self.seed} of {self.arm} {self.state}"


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """A claim with its estimate and verdict."""

    claim: Claim
    arms: tuple[Candidate, ...]
    """Arms in the order of the contrast."""
    arm_values: tuple[Mapping[int, float], ...]
    """Value of the claim's metric by seed, for the complete runs of each arm."""
    values: tuple[float, ...]
    """Value of the contrast for each seed that every arm has completed, in the order of `seeds`."""
    seeds: tuple[int, ...]
    estimate: Estimate | None
    """The estimated effect; None before there is a value."""
    p: float | None
    """The p over all looks so far, corrected over the study's claims (Holm)."""
    verdict: Verdict
    seeds_needed: int | None = None
    """Seeds that would decide an undecided claim with a power of 80 %, if effect and spread are as observed."""
    missing_reason: str | None = None
    """Reason why there is no value, if it is not a lack of runs."""
    runs: tuple[RunRow, ...] = field(default=(), compare=False)
    """The complete runs of all arms; not compared, since the verdict does not depend on when they were trained."""
    lost_pairs: tuple[LostPair, ...] = ()
    """Seeds without a value because the run of an arm diverged or failed: a selection by outcome."""
    exploratory: "ExploratoryVerdict | None" = None
    """The verdict if none has an error rate; see `ExploratoryVerdict`."""
    note: str | None = None
    """How the verdict keeps its error rate, if the plan was changed after the first runs."""
    limit: Limit | None = None
    """The limit that all arms are at, if any: they cannot be distinguished then, and the claim stays undecided."""
    is_used_up: bool = False
    """Whether the plan has had its last look, so that further seeds can only bring an exploratory verdict."""
    is_paired: bool = True
    """Whether the test is of the contrast by seed, rather than of independent arms."""

    @property
    def pairs(self) -> int:
        """Number of seeds of the contrast, including lost ones."""
        return len(self.values) + len({pair.seed for pair in self.lost_pairs})

    @property
    def pairing(self) -> Pairing:
        """`search.pairing` of the study."""
        return "seed" if self.is_paired else "none"

    @property
    def tested_values(self) -> Values:
        """What is tested, by seed: the contrast, or its terms if the arms are independent."""
        return self.values if self.is_paired else self.terms

    @property
    def terms(self) -> list[tuple[float, ...]]:
        """The terms of the contrast by seed: weight times value of each arm."""
        return _terms(self.claim, self.arm_values, self.seeds)

    @property
    def variance_removed(self) -> float | None:
        """The share of the contrast's variance that pairing by seed removes; see `statistics.variance_removed`."""
        arms = [[values[seed] for seed in self.seeds] for values in self.arm_values]
        return variance_removed(list(self.claim.contrast.values()), arms)

    @property
    def verdict_text(self) -> str:
        """The verdict as text; one without an error rate is marked as exploratory."""
        return str(self.verdict) if self.exploratory is None else f"exploratory: {self.exploratory.verdict}"

    @property
    def is_open(self) -> bool:
        """Whether more seeds may still bring a verdict, even an exploratory one."""
        is_decided = self.exploratory is not None and self.exploratory.verdict != Verdict.UNDECIDED
        return self.verdict == Verdict.UNDECIDED and not is_decided and self.limit is None


@dataclass(frozen=True, slots=True)
class ExploratoryVerdict:
    """The verdict if claim and plan had been made before the first run; it has no error rate, since they were not."""

    verdict: Verdict
    p: float
    reason: str
    """Reason such as `added after 15 runs`."""


@dataclass(frozen=True, slots=True)
class _ClaimRuns:
    """The stored runs of a claim's arms, and their contrast."""

    claim: Claim
    expectation: Expectation
    arms: tuple[Candidate, ...]
    arm_values: tuple[Mapping[int, float], ...]
    paired: Mapping[int, float]
    """The contrast by seed."""
    missing: str | None
    runs: tuple[RunRow, ...]
    lost_pairs: tuple[LostPair, ...]
    limit: Limit | None
    pairs: SeedRuns
    """The complete runs of all arms, by seed of `paired`."""
    is_paired: bool

    def estimate(self, plan: Plan | ExtendedPlan) -> Estimate | None:
        """The effect under a plan; None before there is a value."""
        if not self.paired:
            return None
        is_exact = Formula(self.claim.metric).names <= set(COST_OBJECTIVES)
        is_by_seed = self.is_paired or is_exact
        values = list(self.paired.values()) if is_by_seed else _terms(self.claim, self.arm_values, self.paired)
        return estimate_effect(values, self.expectation, plan, ignore=self.claim.ignore, exact=is_exact)

    def p_of(self, estimate: Estimate | None) -> float:
        """The p of an estimate for Holm's correction: 1 without a value, and at a limit."""
        return 1.0 if estimate is None or self.limit else estimate.p


def evaluate_claims(
    study: Study, space: Space, store: Store, environment: Environment | None = None
) -> tuple[ClaimResult, ...]:
    """Evaluate every claim of the study, in the order of the file.

    Times of two environments are not compared: if any run has times of `environment`, the others are left out.
    """
    if not study.claims:
        return ()
    environment = environment or study_environment(study)
    unordered = [_claim_runs(claim, study, space, store, environment) for claim in study.claims]
    history = file_history(study, store, {runs.claim.name: tuple(runs.paired) for runs in unordered})
    claims = [_in_order(runs, history.seeds_first(runs.claim.name)) for runs in unordered]
    plans = [history.plan_of(runs.claim.name) for runs in claims]
    elsewhere = foreign_looks(study, store)
    late = [history.late_reason(runs.claim.name) or elsewhere.reason(runs.claim, study, runs.pairs) for runs in claims]
    estimates = [runs.estimate(plan) for runs, plan in zip(claims, plans, strict=True)]
    as_new = [
        estimate if plan == history.plan else runs.estimate(history.plan)
        for runs, plan, estimate in zip(claims, plans, estimates, strict=True)
    ]
    confirmed = holm(
        [runs.p_of(estimate) for runs, estimate, why in zip(claims, estimates, late, strict=True) if not why]
    )
    explored = holm([runs.p_of(estimate) for runs, estimate in zip(claims, as_new, strict=True)])
    corrected = iter(confirmed)
    return tuple(
        _claim_result(runs, plan, estimate, new, None if why else next(corrected), p, why)
        for runs, plan, estimate, new, p, why in zip(claims, plans, estimates, as_new, explored, late, strict=True)
    )


def paired_seeds(study: Study, space: Space, store: Store) -> dict[str, tuple[int, ...]]:
    """The seeds that all arms of a claim have completed, by claim."""
    return {
        claim.name: tuple(_claim_runs(claim, study, space, store, study_environment(study)).paired)
        for claim in study.claims
    }


def _claim_result(
    runs: _ClaimRuns,
    plan: Plan | ExtendedPlan,
    estimate: Estimate | None,
    as_new: Estimate | None,
    p: float | None,
    explored_p: float,
    late: str | None,
) -> ClaimResult:
    """The result of a claim: `p` is that of the verdict with an error rate, None if it was made after its data.

    `as_new` and `explored_p` are estimate and p as if claim and plan had been made before the first run.
    """
    reason = _why_exploratory(plan, late)
    result = ClaimResult(
        runs.claim,
        runs.arms,
        runs.arm_values,
        tuple(runs.paired.values()),
        tuple(runs.paired),
        as_new if late else estimate,
        None if estimate is None else p,
        Verdict.UNDECIDED,
        runs=runs.runs,
        lost_pairs=runs.lost_pairs,
        note=_note(plan, reason),
        is_paired=runs.is_paired,
        is_used_up=len(runs.paired) >= plan.most,
    )
    if estimate is None:
        return replace(result, missing_reason=runs.missing)
    if p is not None and runs.limit is not None:
        result = replace(result, p=1.0, limit=runs.limit)
    elif p is not None:
        verdict = judge(estimate, p)
        granted = estimate.alpha * estimate.p / p if p > 0 else estimate.alpha  # alpha after Holm's correction
        is_open = verdict == Verdict.UNDECIDED
        result = replace(
            result,
            estimate=as_new if estimate.repeated_interval is None else estimate,
            verdict=verdict,
            seeds_needed=seeds_to_decide(estimate, runs.expectation, granted) if is_open else None,
        )
    if reason is None or as_new is None or result.verdict != Verdict.UNDECIDED:
        return result
    return replace(result, exploratory=ExploratoryVerdict(judge(as_new, explored_p), explored_p, reason))


def _why_exploratory(plan: Plan | ExtendedPlan, late: str | None) -> str | None:
    """Reason why a verdict has no error rate; None if it has one. `late` is that of a claim made after its data."""
    if late is not None:
        return late
    if isinstance(plan, ExtendedPlan) and plan.exhausted_at is not None:
        seeds = f"{plan.exhausted_at} seeds"
        return f"the plan was stretched after its last look, at {seeds}, when nothing was left of its error rate"
    return None


def _note(plan: Plan | ExtendedPlan, reason: str | None) -> str | None:
    if not isinstance(plan, ExtendedPlan) or reason is not None:
        return None
    steps = zip(plan.plans, plan.plans[1:], plan.changes, strict=False)
    changed = ", ".join(
        f"from {old.first}-{old.most} seeds to {new.first}-{new.most} seeds at {n} pairs" for old, new, n in steps
    )
    return f"the plan was stretched {changed}; conditional rejection keeps its error rate"


def _in_order(runs: _ClaimRuns, first: tuple[int, ...]) -> _ClaimRuns:
    """Sort pairs in the order in which they were complete when the file changed, then by seed."""
    early = [seed for seed in first if seed in runs.paired]
    order = [*early, *(seed for seed in runs.paired if seed not in first)]
    return replace(runs, paired={seed: runs.paired[seed] for seed in order})


def _claim_runs(claim: Claim, study: Study, space: Space, store: Store, environment: Environment) -> _ClaimRuns:
    """The arms with their metrics, the contrast by seed, and the metric that complete runs do not have, if any."""
    arms = tuple(space.candidate(arm_choices(text, space)) for text in claim.contrast)
    formula = Formula(claim.metric)
    read = [read_run_results(store, [run.id for run in _runs(arm, study, space)]).values() for arm in arms]
    of_arms = [[run for run in of_arm if run.row.state == RunState.COMPLETE] for of_arm in read]
    rows = tuple(run.row for of_arm in of_arms for run in of_arm)
    reference = time_reference(rows, environment)
    recorded = [[of_one_environment(run, reference).values for run in of_arm] for of_arm in of_arms]
    of_runs = [{run.run.seed: formula_value(formula, *run) for run in of_arm} for of_arm in recorded]
    limit = common_limit(configuration_limit(formula.names, of_arm, tests=len(arms)) for of_arm in recorded)
    values = tuple({seed: value for seed, value in run_values.items() if value is not None} for run_values in of_runs)
    paired = {
        seed: sum(weight * arm_values[seed] for weight, arm_values in zip(claim.contrast.values(), values, strict=True))
        for seed in values[0]
        if all(seed in arm_values for arm_values in values)
    }
    is_lacking = any(len(arm_values) < len(all_runs) for arm_values, all_runs in zip(values, of_runs, strict=True))
    missing = f"no run has a value of `{claim.metric}`" if is_lacking and not paired else None
    lost_pairs = tuple(_lost_pairs(claim, arms, study, space, store))
    if lost_pairs and not paired and missing is None:
        missing = f"no seed is complete in every arm ({'; '.join(pair.text for pair in lost_pairs)})"
    by_seed = [{run.row.run.seed: run.row for run in of_arm} for of_arm in of_arms]
    pairs = {seed: tuple(arm_rows[seed] for arm_rows in by_seed) for seed in paired}
    expectation = Expectation.parse(claim.expect)
    is_paired = study.search.pairing == "seed"
    return _ClaimRuns(claim, expectation, arms, values, paired, missing, rows, lost_pairs, limit, pairs, is_paired)


def _terms(claim: Claim, arm_values: Sequence[Mapping[int, float]], seeds: Iterable[int]) -> list[tuple[float, ...]]:
    """The terms of the contrast by seed: weight times value of each arm."""
    arms = list(zip(claim.contrast.values(), arm_values, strict=True))
    return [tuple(weight * values[seed] for weight, values in arms) for seed in seeds]


def _lost_pairs(
    claim: Claim, arms: Sequence[Candidate], study: Study, space: Space, store: Store
) -> Iterator[LostPair]:
    """The seeds for which the run of an arm ended without a value, in order."""
    runs = {run.id: text for text, arm in zip(claim.contrast, arms, strict=True) for run in _runs(arm, study, space)}
    ended = [row for row in store.runs(runs).values() if row.state in WITHOUT_VALUE]
    for row in sorted(ended, key=lambda row: row.run.seed):
        yield LostPair(row.run.seed, runs[row.id], str(row.state).replace("_", " "))


def _runs(arm: Candidate, study: Study, space: Space) -> list[Run]:
    first = study.search.seed
    return [Run(*arm.trained, seed, space.data) for seed in range(first, first + claim_plan(study).most)]
