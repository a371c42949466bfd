"""How many pairs of runs, and how much time, a claim needs to be decided if its effect has a given size.

The spread of the pairs is that of the claim's stored runs, with its own uncertainty, or one that the caller assumes.
Pairs are counted for the looks that the study would make, from its first seeds on, with the error rate that Holm's
correction leaves each of its claims.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.analysis.claims import ClaimResult, evaluate_claims
from harness.analysis.plan_history import claim_plan
from harness.analysis.prospects import seconds_per_pair
from harness.analysis.reuse import study_environment
from harness.analysis.run_times import RunTimeEstimator
from harness.analysis.statistics import Plan
from harness.analysis.statistics.power import MOST_PAIRS, decision_chances, pairs_for_power
from harness.analysis.statistics.sample import PAIRED, satterthwaite_degrees
from harness.config.claim_arms import arm_choices
from harness.config.expectation import Expectation, ExpectationKind
from harness.config.space import Space
from harness.config.study import Claim, Study
from harness.storage import Store

SPREADS = (0.5, 1.0, 2.0, 3.0)
"""Distances from the bound in units of the spread, where the spread is not known."""


class SpreadSource(StrEnum):
    """Where the standard deviation of the pairs is from."""

    RUNS = "runs"
    ASSUMED = "assumed"
    UNIT = "unit"
    """Unknown: effects are multiples of it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The standard deviation of a claim's pairs."""

    sd: float
    source: SpreadSource
    n: int = 0
    """Pairs that it is estimated from."""
    low: float | None = None
    high: float | None = None
    """Its 80 % interval, from the pairs."""


@dataclass(frozen=True, slots=True)
class EffectPower:
    """What an effect of one size needs."""

    effect: float
    """The true effect, in units of the claim's metric; of the spread, if that is not known."""
    pairs: int | None
    """Pairs of the smallest plan with the asked power; None if MOST_PAIRS are not enough."""
    expected: float | None
    """Pairs that this plan makes on average."""
    pairs_range: tuple[int | None, int | None]
    """`pairs` at both ends of the spread's interval; the same twice if it has none."""
    chance: float
    """The chance of a verdict by the last look of the study's own plan."""


@dataclass(frozen=True, slots=True)
class ClaimPower:
    """What a claim needs, for effects of several sizes."""

    claim: Claim
    plan: Plan
    """The study's own plan, at the error rate that is left to each of its claims."""
    spread: Spread
    effects: tuple[EffectPower, ...]
    pair_s: float | None
    """Seconds of computing for a pair, on all of its threads; None if unknown."""
    is_timed: bool
    """Whether `pair_s` is from runs, rather than from the rough rule of `harness run --dry-run`."""
    is_paired: bool = True
    """Whether the spread is that of the contrast by seed, rather than of independent arms."""


def claim_powers(
    study: Study,
    space: Space,
    store: Store | None,
    *,
    effects: Sequence[float] = (),
    sd: float | None = None,
    power: float = 0.8,
) -> tuple[ClaimPower, ...]:
    """The power of each claim, in the order of the file, for these effects or for those that suit the claim."""
    results = evaluate_claims(study, space, store) if store else (None,) * len(study.claims)
    plan = claim_plan(study)
    share = Plan(plan.first, plan.most, plan.alpha / max(1, len(study.claims)))
    return tuple(
        _claim_power(claim, result, study, space, store, share, tuple(effects), sd, power)
        for claim, result in zip(study.claims, results, strict=True)
    )


def _claim_power(
    claim: Claim,
    result: ClaimResult | None,
    study: Study,
    space: Space,
    store: Store | None,
    plan: Plan,
    effects: tuple[float, ...],
    sd: float | None,
    power: float,
) -> ClaimPower:
    is_paired = study.search.pairing == "seed"
    spread, shares = _spread(result, sd), PAIRED if is_paired else _shares(claim, result)
    expectation = Expectation.parse(claim.expect)
    effects = effects or _effects(claim, expectation, result, spread)
    pair_s = seconds_per_pair(study, result) if result is not None and result.values else 0.0
    return ClaimPower(
        claim,
        plan,
        spread,
        tuple(_effect_power(effect, claim, expectation, plan, spread, shares, power) for effect in effects),
        pair_s or _estimated_pair_s(claim, study, space, store),
        is_timed=pair_s > 0,
        is_paired=is_paired,
    )


def _shares(claim: Claim, result: ClaimResult | None) -> tuple[float, ...]:
    """The share of each independent arm in the variance of the contrast: as observed, else as of equal spreads."""
    if result is not None and result.estimate is not None and result.estimate.sd > 0:
        return result.estimate.shares
    squares = [weight**2 for weight in claim.contrast.values()]
    return tuple(square / sum(squares) for square in squares)


def _spread(result: ClaimResult | None, assumed: float | None) -> Spread:
    if assumed is not None:
        return Spread(assumed, SpreadSource.ASSUMED)
    estimate = None if result is None else result.estimate
    if estimate is None or estimate.sd == 0:
        return Spread(1.0, SpreadSource.UNIT)
    import numpy as np
    from scipy.stats import chi2

    degrees = float(satterthwaite_degrees(np.array(estimate.shares), estimate.n))
    low, high = (estimate.sd * math.sqrt(degrees / float(chi2.ppf(p, degrees))) for p in (0.9, 0.1))
    return Spread(estimate.sd, SpreadSource.RUNS, estimate.n, low, high)


def _effects(claim: Claim, expectation: Expectation, result: ClaimResult | None, spread: Spread) -> tuple[float, ...]:
    """The bound, twice the smallest effect of interest beyond it, and what was seen; or multiples of the spread."""
    side = -1 if expectation.kind == ExpectationKind.BELOW else 1
    if spread.source == SpreadSource.UNIT:
        return tuple(expectation.bound + side * size for size in SPREADS)
    seen = [] if result is None or result.estimate is None else [result.estimate.effect]
    if expectation.kind == ExpectationKind.WITHIN:
        return tuple(sorted({0.0, *seen, 2 * expectation.bound}))
    distance = spread.sd if claim.ignore is None else 2 * claim.ignore
    at_bound = [] if claim.ignore is None else [expectation.bound]
    return tuple(sorted({*at_bound, expectation.bound + side * distance, *seen}))


def _effect_power(
    effect: float,
    claim: Claim,
    expectation: Expectation,
    plan: Plan,
    spread: Spread,
    shares: tuple[float, ...],
    power: float,
) -> EffectPower:
    first = max(2, plan.first)
    ignore = None if spread.source == SpreadSource.UNIT else claim.ignore  # which is in units of the metric

    def needed(sd: float) -> tuple[int, float] | None:
        plans = pairs_for_power(
            first, expectation, effect, sd, alpha=plan.alpha, power=power, most=MOST_PAIRS, ignore=ignore, shares=shares
        )
        return None if plans is None else (plans[0], plans[1].expected_pairs())

    pairs = needed(spread.sd)
    ends = [pairs if end is None else needed(end) for end in (spread.low, spread.high)]
    low, high = (None if end is None else end[0] for end in ends)
    count, expected = pairs or (None, None)
    chances = decision_chances(plan, expectation, effect, spread.sd, ignore=ignore, shares=shares)
    return EffectPower(effect, count, expected, (low, high), chances.chance)


def _estimated_pair_s(claim: Claim, study: Study, space: Space, store: Store | None) -> float | None:
    seconds = RunTimeEstimator(study, store, space, study_environment(study) if store else None)
    runs = [seconds.of(space.candidate(arm_choices(text, space))) for text in claim.contrast]
    times = [run_s for run_s in runs if run_s is not None]
    return study.resources.cpus * sum(times) if len(times) == len(runs) else None
