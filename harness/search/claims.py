"""The claims of a study, judged on the runs that the store has; and which runs would decide those that are open.

Seeds are paired: for each seed that all arms of a claim have completed, the contrast is one number. More seeds are
granted one at a time, to the arms of undecided claims alone; what that does to the error rate is in `harness.claims`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.claims import Estimate, Expectation, Plan, Verdict, estimate, holm, judge, seeds_to_decide
from harness.environment import Environment
from harness.formula import Formula
from harness.run import Run, RunState
from harness.search.objective import COSTS, formula_value
from harness.search.reuse import environment_of, time_reference, without_other_times
from harness.space import Candidate, Space
from harness.store import RunRow, Store
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
    runs: tuple[RunRow, ...] = field(default=(), compare=False)
    """The complete runs of all arms; when they were trained is no part of the verdict."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the store has of a claim."""

    arms: tuple[Candidate, ...]
    figures: tuple[Mapping[int, float], ...]
    paired: Mapping[int, float]
    """The contrast by seed."""
    missing: str | None
    runs: tuple[RunRow, ...]


def judge_claims(study: Study, space: Space, store: Store, here: Environment | None = None) -> tuple[Judged, ...]:
    """Every claim of the study, in the order of the file.

    Times of two environments are not compared: those that are not of `here` are left out, where any run has such.
    """
    if not study.claims:
        return ()
    plan = plan_of(study)
    here = here or environment_of(study)
    known = [_seen(claim, study, space, store, here) for claim in study.claims]
    expected = [Expectation.parse(claim.expect) for claim in study.claims]
    estimates = [
        estimate(list(seen.paired.values()), expectation, plan, ignore=claim.ignore, exact=_is_exact(claim))
        if seen.paired
        else None
        for claim, seen, expectation in zip(study.claims, known, expected, strict=True)
    ]
    corrected = holm([1.0 if found is None else found.p for found in estimates])
    return tuple(map(_judged, study.claims, known, estimates, corrected, expected))


def due(study: Study, judged: tuple[Judged, ...], seeds_used: Mapping[str, int]) -> list[Candidate]:
    """The arms of undecided claims that need one seed more for the next look, each once."""
    most = plan_of(study).most
    wanted: dict[str, Candidate] = {}
    for each in judged:
        used = [seeds_used.get(arm.fingerprint, 0) for arm in each.arms]
        target = min(used) + 1
        if each.verdict == Verdict.UNDECIDED and each.values and target <= most:
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
        return Judged(
            claim, seen.arms, seen.figures, values, seeds, None, None, undecided, missing=seen.missing, runs=seen.runs
        )
    verdict = judge(found, p)
    granted = found.alpha * found.p / p if p > 0 else found.alpha  # what the correction leaves of it
    enough = seeds_to_decide(found, expectation, granted) if verdict == Verdict.UNDECIDED else None
    return Judged(claim, seen.arms, seen.figures, values, seeds, found, p, verdict, enough, runs=seen.runs)


def _seen(claim: Claim, study: Study, space: Space, store: Store, here: Environment) -> _Seen:
    """The arms with their figures, the contrast by seed, and the name of a figure that complete runs don't have."""
    arms = tuple(space.candidate(arm_choices(text, space)) for text in claim.contrast)
    formula = Formula(claim.metric)
    of_arms = [_complete(arm, study, store) for arm in arms]
    rows = tuple(row for each in of_arms for row in each)
    reference = time_reference(rows, here)
    of_runs = [dict(_figures(formula, each, store, reference)) for each in of_arms]
    figures = tuple({seed: value for seed, value in each.items() if value is not None} for each in of_runs)
    paired = {
        seed: sum(weight * each[seed] for weight, each in zip(claim.contrast.values(), figures, strict=True))
        for seed in figures[0]
        if all(seed in each for each in figures)
    }
    is_lacking = any(len(each) < len(all_runs) for each, all_runs in zip(figures, of_runs, strict=True))
    missing = f"no run has a value of `{claim.metric}`" if is_lacking and not paired else None
    return _Seen(arms, figures, paired, missing, rows)


def _complete(arm: Candidate, study: Study, store: Store) -> list[RunRow]:
    """An arm's complete runs, by seed."""
    assert arm.spec is not None, "an arm is a network"
    first = study.search.seed
    runs = [Run(arm.spec, study.proxy, seed) for seed in range(first, first + plan_of(study).most)]
    return [row for row in store.runs(run.id for run in runs).values() if row.state == RunState.COMPLETE]


def _figures(
    formula: Formula, rows: list[RunRow], store: Store, reference: Environment | None
) -> Iterator[tuple[int, float | None]]:
    """What the claim compares, by seed, of complete runs."""
    ids = [row.id for row in rows]
    curves, figures = store.curves(ids), store.figures(ids)
    for row in rows:
        known, _ = without_other_times(row, figures.get(row.id, {}), reference)
        yield row.run.seed, formula_value(formula, row.run, curves.get(row.id, ()), known)
