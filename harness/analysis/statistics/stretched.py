"""Plans that were changed after data were collected, and keep the error rate of the original plan.

The conditional rejection principle (Müller & Schäfer 2001, Biometrics 57, 886-891; 2004, Statistics in Medicine 23,
2497-2508): if a plan is changed after n values, for any reason, the new plan may reject with no higher probability,
given these values, than the old one. Then the error rate over both is that of the old plan. Here the new plan is used
at the alpha' at which both conditional errors are equal. It is computed for every alpha at once, so that the p of a
stretched plan is again the smallest alpha at which one of its looks decides.

With an unknown variance the conditional error of a t test depends on it (Timmesfeld, Schäfer & Müller 2007, Statistics
in Medicine 26, 2449-2464). Here it is conditional on the t statistic (`conditional`), which is exact if the decision
to change depends on the t statistics, that is on p and verdicts, and not on the spread alone. Of null studies of the
plan (3, 8), stretched to 16 at 6 pairs if promising, at 7 if undecided, or three times in a row, 4.7 to 4.8 % reach a
verdict (10,000 each); stretched for a small or a large spread, 4.7 to 4.9 % (6,000 each).

Unpaired, the state at the change is that of pairs whose t test has the same p, and the continuation that of pairs. This
is not exact, but keeps the error rate: 3.4 to 4.8 % for the plan (3, 8) stretched to 16 at 3, 6 or 7 seeds, of two arms
with spreads of 1:1, 5:1 and 10:1, and of four arms of which one has six times the spread of the others (10,000 each).

A plan that has had its last look has no conditional error left: a change after it cannot change its verdict, and
verdicts from more values are exploratory. A plan that was changed before its second value counts as a new plan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from harness.analysis.statistics.sample import Sample, Values
from harness.analysis.statistics.sequential import SMALLEST_P, LookP, Plan, interpolated, rising_levels

if TYPE_CHECKING:
    from harness.analysis.statistics.conditional import ErrorGrid


@dataclass(frozen=True, slots=True)
class ExtendedPlan:
    """A sequence of plans. Raises `ValueError` if the changes do not match the plans."""

    plans: tuple[Plan, ...]
    changes: tuple[int, ...]
    """Number of pairs at each change, one for each plan after the first; they never fall."""

    def __post_init__(self) -> None:
        if len(self.plans) != len(self.changes) + 1 or sorted(self.changes) != list(self.changes):
            raise ValueError(f"there must be one rising change between two plans, but got {self.changes}")

    @property
    def alpha(self) -> float:
        """The error rate over all plans."""
        return self.plans[0].alpha

    @property
    def most(self) -> int:
        """Number of pairs at the last look."""
        return self.plans[-1].most

    @property
    def first(self) -> int:
        """Number of pairs at the first look of the last plan."""
        return self.plans[-1].first

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of pairs at which the claim was or will be tested."""
        return tuple(n for stage, plan in enumerate(self.plans) for n in plan.looks if self._stage(n) == stage)

    @property
    def exhausted_at(self) -> int | None:
        """Number of pairs at which a plan had its last look and was changed afterwards; None if there is none."""
        ended = (plan.most for plan, n in zip(self.plans, self.changes, strict=False) if n >= plan.most)
        return next(ended, None)

    def p_of(self, values: Values) -> LookP:
        """The function that computes the p of a look at these values."""
        samples = {n: Sample.of(values[:n]) for n in set(self.changes) if n <= len(values)}

        def p(look: Sample, bound: float) -> float:
            stage = self._stage(look.n)
            alpha = self.plans[stage].repeated_p(look.n, look.p(bound))
            for i in range(stage, 0, -1):
                at = samples[self.changes[i - 1]]
                alpha = _before_change(self.plans[i - 1], self.plans[i], at, bound, alpha)
            return alpha

        return p

    def interval(self, values: Values, look: Sample) -> tuple[float, float] | None:
        """The bounds that a look does not reject at alpha; None if there is no spread or no bound is rejected."""
        if look.sd == 0:
            return None
        p = self.p_of(values)
        low, high = (_end(p, look, sign, self.alpha) for sign in (-1, 1))
        return None if low is None or high is None else (low, high)

    def _stage(self, n: int) -> int:
        """Index of the plan that was in force at a look."""
        return sum(n > change for change in self.changes)


def plan_after(plans: Sequence[Plan], changes: Sequence[int]) -> Plan | ExtendedPlan:
    """The plan after all changes, without plans that no look can have used."""
    kept: list[tuple[Plan, int]] = []
    for plan, change in zip(plans, changes, strict=False):
        if plan.looks and change > 1:
            kept.append((plan, change))
    last = plans[-1]
    kept = [(plan, change) for (plan, change), (after, _) in pairwise([*kept, (last, 0)]) if plan != after]
    if not kept:
        return last
    return ExtendedPlan((*(plan for plan, _ in kept), last), tuple(change for _, change in kept))


def _before_change(old: Plan, new: Plan, at: Sample, bound: float, alpha: float) -> float:
    """The alpha of the old plan whose conditional error at the change is that of the new plan at `alpha`."""
    if at.n >= old.most or at.sd == 0 or alpha >= 1:
        return 1.0
    state = _state(at, bound)
    error = interpolated(alpha, _alphas(new), _errors(new, at.n, state))
    return _inverse(error, _alphas(old), _errors(old, at.n, state))


def _state(sample: Sample, bound: float) -> float:
    """The sum of the differences over their length; unpaired, that of pairs whose t test has the same p."""
    off = sample.mean - bound
    if len(sample.shares) > 1:
        from scipy.special import stdtrit

        t = -float(stdtrit(sample.n - 1, max(sample.p(bound), SMALLEST_P) / 2))
        return math.copysign(math.sqrt(sample.n) * math.sin(math.atan(t / math.sqrt(sample.n - 1))), off)
    squares = (sample.n - 1) * sample.sd**2 + sample.n * off**2
    return sample.n * off / math.sqrt(squares)


def _alphas(plan: Plan) -> tuple[float, ...]:
    return rising_levels(plan)[0]


@lru_cache(maxsize=256)
def _errors(plan: Plan, n: int, state: float) -> tuple[float, ...]:
    """Conditional errors for rising alpha, which rise as well."""
    import numpy as np

    errors = np.maximum.accumulate(_conditional_error(plan, n).of_state(state))
    return tuple(errors.tolist())


@lru_cache(maxsize=64)
def _conditional_error(plan: Plan, n: int) -> "ErrorGrid":
    import numpy as np

    from harness.analysis.statistics.conditional import Boundary, conditional_error

    _, levels = rising_levels(plan)
    return conditional_error(Boundary({m: np.array(look) for m, look in zip(plan.looks, levels, strict=True)}), n)


def _inverse(y: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The smallest x at which rising points reach y; 1 if they do not."""
    above = next((i for i, point in enumerate(ys) if y <= point), None)
    if above is None:
        return 1.0
    if above == 0:
        return max(xs[0] * y / ys[0], SMALLEST_P) if ys[0] > 0 else xs[0]
    low, high = max(ys[above - 1], SMALLEST_P), ys[above]
    share = math.log(max(y, SMALLEST_P) / low) / math.log(high / low) if high > low else 1.0
    share = min(max(share, 0.0), 1.0)
    return math.exp((1 - share) * math.log(xs[above - 1]) + share * math.log(xs[above]))


def _end(p: LookP, look: Sample, sign: int, alpha: float) -> float | None:
    """The end of the interval on one side of the mean."""
    from scipy.optimize import brentq

    step = look.sd / math.sqrt(look.n)

    def excess(distance: float) -> float:
        return math.log(p(look, look.mean + sign * distance)) - math.log(alpha)

    near, far = 0.0, step
    while excess(far) > 0:
        near, far = far, 2 * far
        if far > 1e6 * step:
            return None
    if near == 0.0:
        near = 1e-9 * step
    if excess(near) <= 0:
        return look.mean + sign * near
    return look.mean + sign * float(brentq(excess, near, far, xtol=1e-5 * step))
