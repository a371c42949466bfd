"""The claims of a study, judged on the runs that the store has; and which runs would decide those that are open.

Seeds are paired: for each seed that all arms of a claim have completed, the contrast is one number. More seeds are
granted one at a time, to the arms of undecided claims alone; what that does to the error rate is in `harness.claims`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.claims import Estimate, Expectation, Plan, Verdict, estimate, holm, judge, seeds_to_decide
from harness.claims.limits import Limit
from harness.formula import Formula
from harness.run import Run, RunState
from harness.search.limits import RunValues, limit_of_runs
from harness.search.objective import COSTS, formula_value
from harness.space import Candidate, Space
from harness.store import Store
from harness.study import Study
from harness.study.arms import arm_choices
from harness.study.model import Claim


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with all that is known of it."""

    claim: Claim
    arms: tuple[Candidate, ...]
    """In the order of the contrast."""
    figures: tuple[Mapping[int, float], ...]
    """What the claim compares, by seed, of each arm's complete runs."""
    values: tuple[float, ...]
    """The contrast, a number for each seed that every arm has completed, in the order of the seeds."""
    seeds: tuple[int, ...]
    estimate: Estimate | None
    """None before there is a value."""
    p: float | None
    """Over all looks so far, corrected over the study's claims (Holm)."""
    verdict: Verdict
    enough: int | None = None
    """Of an undecided claim: the seeds that would decide it with a power of 80 %, if effect and spread are as seen."""
    missing: str | None = None
    """Why there is no value, where that is not for want of runs."""
    limit: Limit | None = None
    """What all arms are at, if they are: nothing is told apart then, and the claim stays undecided."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the store has of a claim."""

    arms: tuple[Candidate, ...]
    figures: tuple[Mapping[int, float], ...]
    paired: Mapping[int, float]
    """The contrast by seed."""
    missing: str | None
    limit: Limit | None


def judge_claims(study: Study, space: Space, store: Store) -> tuple[Judged, ...]:
    """Every claim of the study, in the order of the file."""
    if not study.claims:
        return ()
    plan = plan_of(study)
    known = [_seen(claim, study, space, store) for claim in study.claims]
    expected = [Expectation.parse(claim.expect) for claim in study.claims]
    estimates = [
        estimate(list(seen.paired.values()), expectation, plan, ignore=claim.ignore, exact=_is_exact(claim))
        if seen.paired
        else None
        for claim, seen, expectation in zip(study.claims, known, expected, strict=True)
    ]
    judged = zip(known, estimates, strict=True)
    corrected = holm([1.0 if found is None or seen.limit else found.p for seen, found in judged])
    return tuple(map(_judged, study.claims, known, estimates, corrected, expected))


def due(study: Study, judged: tuple[Judged, ...], seeds_used: Mapping[str, int]) -> list[Candidate]:
    """The arms of undecided claims that need one seed more for the next look, each once.

    Where all arms are at chance or at the ceiling, more seeds would not help.
    """
    most = plan_of(study).most
    wanted: dict[str, Candidate] = {}
    for each in judged:
        used = [seeds_used.get(arm.fingerprint, 0) for arm in each.arms]
        target = min(used) + 1
        if each.verdict == Verdict.UNDECIDED and each.limit is None and each.values and target <= most:
            behind = (arm for arm, has in zip(each.arms, used, strict=True) if has < target)
            wanted |= {arm.fingerprint: arm for arm in behind}
    return list(wanted.values())


def plan_of(study: Study) -> Plan:
    """When a study looks at its claims: after the first seeds, and after each seed more."""
    return Plan(first=study.search.seeds, most=study.search.max_seeds or study.search.seeds)


def _is_exact(claim: Claim) -> bool:
    return Formula(claim.metric).names <= set(COSTS)


def _judged(claim: Claim, seen: _Seen, found: Estimate | None, p: float, expectation: Expectation) -> Judged:
    values, seeds = tuple(seen.paired.values()), tuple(seen.paired)
    if found is None:
        undecided = Verdict.UNDECIDED
        return Judged(claim, seen.arms, seen.figures, values, seeds, None, None, undecided, missing=seen.missing)
    if seen.limit is not None:
        undecided = Verdict.UNDECIDED
        return Judged(claim, seen.arms, seen.figures, values, seeds, found, 1.0, undecided, limit=seen.limit)
    verdict = judge(found, p)
    granted = found.alpha * found.p / p if p > 0 else found.alpha  # what the correction leaves of it
    enough = seeds_to_decide(found, expectation, granted) if verdict == Verdict.UNDECIDED else None
    return Judged(claim, seen.arms, seen.figures, values, seeds, found, p, verdict, enough)


def _seen(claim: Claim, study: Study, space: Space, store: Store) -> _Seen:
    """The arms with their figures, the contrast by seed, and the name of a figure that complete runs don't have."""
    arms = tuple(space.candidate(arm_choices(text, space)) for text in claim.contrast)
    formula = Formula(claim.metric)
    runs = [_runs(arm, study, store) for arm in arms]
    of_runs = [{each.run.seed: formula_value(formula, *each) for each in of_arm} for of_arm in runs]
    limits = {limit_of_runs(formula.names, of_arm, tests=len(arms)) for of_arm in runs}
    figures = tuple({seed: value for seed, value in each.items() if value is not None} for each in of_runs)
    paired = {
        seed: sum(weight * each[seed] for weight, each in zip(claim.contrast.values(), figures, strict=True))
        for seed in figures[0]
        if all(seed in each for each in figures)
    }
    is_lacking = any(len(each) < len(all_runs) for each, all_runs in zip(figures, of_runs, strict=True))
    missing = f"no run has a value of `{claim.metric}`" if is_lacking and not paired else None
    return _Seen(arms, figures, paired, missing, limits.pop() if len(limits) == 1 else None)


def _runs(arm: Candidate, study: Study, store: Store) -> list[RunValues]:
    """The complete runs of an arm with what they recorded, in the order of their seeds."""
    assert arm.spec is not None, "an arm is a network"
    first = study.search.seed
    runs = [Run(arm.spec, study.proxy, seed) for seed in range(first, first + plan_of(study).most)]
    complete = [row.run for row in store.runs(run.id for run in runs).values() if row.state == RunState.COMPLETE]
    ids = [run.id for run in complete]
    curves, figures = store.curves(ids), store.figures(ids)
    return [RunValues(run, curves.get(run.id, ()), figures.get(run.id, {})) for run in complete]
