"""What the undecided claims of a study may still gain: the chance of a verdict, its cost, and who gets the next seed.

After the first seeds, one more seed at a time goes to the arms of the claim that gains the most chance of a verdict for
a minute of computing. Claims that are decided get none, nor do those that are unlikely ever to be (`FUTILE`); neither
choice affects an error rate, since the plan of a claim holds for as many or as few of its looks as are made.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.claims import ClaimResult
from harness.analysis.formatting import format_metric
from harness.analysis.plan_history import claim_plan
from harness.analysis.statistics import Plan
from harness.analysis.statistics.power import predicted_chances
from harness.config.expectation import Expectation
from harness.config.space import Candidate
from harness.config.study import Study

FUTILE = 0.02
"""Below this chance of a verdict by its last look, a claim gets no further seeds."""


@dataclass(frozen=True, slots=True)
class ClaimProspect:
    """What an undecided claim may gain from further seeds."""

    claim: str
    pairs: int
    """Pairs so far."""
    most: int
    """Pairs at the last look of the plan."""
    chance: float | None
    """The chance of a verdict by then; None if the pairs show no spread, so that it is unknown."""
    pairs_to_go: float
    """Mean number of pairs until the verdict, or the last look."""
    pair_s: float
    """Seconds of computing for a further pair: of all runs, on all of their threads."""

    @property
    def is_futile(self) -> bool:
        """Whether further seeds are unlikely to bring a verdict."""
        return self.chance is not None and self.chance < FUTILE

    @property
    def gain(self) -> float:
        """Chance of a verdict for each second of computing."""
        chance = 1.0 if self.chance is None else self.chance
        return chance / max(1e-9, self.pairs_to_go * self.pair_s)

    @property
    def text(self) -> str:
        """The prospect, as `62 % chance of a verdict by 8 seeds`."""
        chance = "unknown" if self.chance is None else f"{100 * self.chance:.0f} %"
        return f"{chance} chance of a verdict by {self.most} seeds"


def claim_prospects(study: Study, results: Sequence[ClaimResult]) -> dict[str, ClaimProspect]:
    """The prospects of the claims that are open and have looks left, by name."""
    still_open = [result for result in results if result.is_open and result.values]
    plan = claim_plan(study)
    share = plan.alpha / max(1, len(still_open))  # Holm's, if the decided ones have the smaller p
    return {
        result.claim.name: _prospect(study, result, Plan(plan.first, plan.most, share))
        for result in still_open
        if len(result.values) < plan.most
    }


def arms_needing_seeds(study: Study, results: Sequence[ClaimResult], seeds_used: Mapping[str, int]) -> list[Candidate]:
    """The arms that get the next seed: those of the open claim that gains the most by it. Empty if none gains any."""
    prospects = claim_prospects(study, results)
    ranked = sorted(
        (result for result in results if result.claim.name in prospects),
        key=lambda result: -prospects[result.claim.name].gain,
    )
    most = claim_plan(study).most
    for result in ranked:
        used = [seeds_used.get(arm.fingerprint, 0) for arm in result.arms]
        if prospects[result.claim.name].is_futile or min(used) >= most:
            continue
        return [arm for arm, has in zip(result.arms, used, strict=True) if has == min(used)]
    return []


def claims_needing_seeds(study: Study, results: Sequence[ClaimResult]) -> frozenset[str]:
    """The claims that get further seeds as long as the study may train: open ones with a prospect, or without pairs."""
    prospects = claim_prospects(study, results)
    return frozenset(
        result.claim.name
        for result in results
        if result.is_open
        and not result.is_used_up
        and not (result.claim.name in prospects and prospects[result.claim.name].is_futile)
    )


def distances_to_verdicts(study: Study, results: Sequence[ClaimResult]) -> dict[str, str]:
    """How far each open claim is from a verdict, as text: its chance of one, and its interval and the bound."""
    prospects = claim_prospects(study, results)
    return {
        result.claim.name: f"{_prospect_text(prospects.get(result.claim.name))}: {_estimate_text(result)}"
        for result in results
        if result.is_open and result.estimate is not None
    }


def _estimate_text(result: ClaimResult) -> str:
    """Such as `4.10 [-0.73, 10.20] against 0 (n = 3)`."""
    estimate, metric = result.estimate, result.claim.metric
    assert estimate is not None
    bound = format_metric(estimate.nearest, metric)
    ends = estimate.repeated_interval
    interval = "" if ends is None else f" [{format_metric(ends[0], metric)}, {format_metric(ends[1], metric)}]"
    return f"{format_metric(estimate.effect, metric)}{interval} against {bound} (n = {estimate.n})"


def _prospect_text(prospect: ClaimProspect | None) -> str:
    if prospect is None:
        return "no look is left"
    return f"{prospect.text}, so no further seeds" if prospect.is_futile else prospect.text


def seconds_per_pair(study: Study, result: ClaimResult) -> float:
    """Seconds of computing for one more pair: the mean time of each arm's complete runs, on all of its threads."""
    cpus = max(1, study.resources.cpus)
    return cpus * sum(_mean_s(result, arm) for arm in result.arms)


def _prospect(study: Study, result: ClaimResult, plan: Plan) -> ClaimProspect:
    pairs = len(result.values)
    pair_s = seconds_per_pair(study, result)
    if result.estimate is None or result.estimate.sd == 0:
        return ClaimProspect(result.claim.name, pairs, plan.most, None, plan.most - pairs, pair_s)
    expectation = Expectation.parse(result.claim.expect)
    chances = predicted_chances(plan, expectation, result.tested_values, ignore=result.claim.ignore)
    to_go = chances.expected_pairs(pairs)
    return ClaimProspect(result.claim.name, pairs, plan.most, chances.chance, to_go, pair_s)


def _mean_s(result: ClaimResult, arm: Candidate) -> float:
    times = [row.wall_s for row in result.runs if row.run.configuration == arm.identity]
    return math.fsum(times) / len(times) if times else 0.0
