"""Sequential tests of claims on paired seeds, with an error rate that holds under repeated looks.

A claim is a contrast of configurations; each seed that all of them have completed yields one value of it. More seeds
are added until the claim is decided. Everything here is a function of the values in the order of their seeds: the
p over all looks is computed from the first n values for each n at which the plan looked, so that a study that is
resumed, or read again, has the same verdict.

How intervals, p and verdict go together:

- **A look** at n pairs is a two-sided paired t test at the look's nominal level. The plan chooses the levels such that
  all looks together err with a probability of alpha, exactly so for normal differences (`sequential`, `repeated_t`).
- **The repeated interval** is the t interval at that level. It excludes a bound if and only if the look's test rejects
  it. The effect lies in the intervals of all looks with probability 1 - alpha.
- **The repeated p** of a verdict is the smallest alpha at which one of the looks so far would have reached it: for a
  side of the bound, that the repeated interval lies entirely on that side; for `equivalent`, and for the support of
  `within d`, that it lies entirely inside, which is two one-sided tests, each at alpha / 2 (Schuirmann 1987, stricter
  than his). So p <= alpha if and only if the interval of some look does so.
- **Decided claims stay decided.** A repeated p never rises with more pairs, so Holm's corrected p do not rise either. A
  claim that gets more pairs after its verdict, because others are undecided, keeps its side, even if the interval of a
  later look touches the bound again. Between the sides, the smaller p decides. The only change that more pairs can
  bring is from a side to `equivalent`: an effect of that sign that is too small to matter.
- **One p per claim**, its smallest, enters Holm's correction, and the verdict is one whose own p meets the corrected
  level. Whatever the true effect, the wrong verdicts of one claim have a total probability of at most alpha: if the
  effect is at the bound, both sides are wrong; if it is further away than the smallest effect of interest, `equivalent`
  and the other side are wrong, and these lie on the same side of the truth.
- **Exact metrics** (counts) have no error: the values are equal, the intervals have no width, p is 0. A measured metric
  whose values happen to be equal is not exact: it has no interval yet, and its test is the sign test.
- **Assumptions**: independent pairs, and differences that are close to normal. Symmetric differences with heavy tails
  or coarse steps err less often than alpha; exponential ones, a very strong skew, err in 15 % of the null studies of
  the plan (3, 8), where a single t test at 8 pairs errs in 11 % (`tests/analysis/test_looks.py`).
- The plain t interval, the BCa bootstrap interval (Efron 1987), the t p and the sign-flip p are those of a single look;
  they are shown in addition, and decide nothing. With only one look, the plain and the repeated ones are equal.

A look at n uses the first n seeds: evaluate claims when all seeds of a round are complete, else the looks depend on the
order in which runs end. A plan must be made before the first look. A plan that is changed later, but before its last
look, keeps its error rate by the conditional rejection principle (`stretched`); after the last look nothing is left of
its error rate, and a verdict from more seeds is exploratory.

Sources: Jennison & Turnbull 1999, Group Sequential Methods, chapters 3, 7 and 9 (significance levels, error spending,
repeated intervals); Lan & DeMets 1983, Biometrika 70, 659-663; Efron 1987, JASA 82, 171-185; Holm 1979, Scandinavian
Journal of Statistics 6, 65-70; Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680.
"""

from harness.analysis.statistics.estimates import (
    Estimate,
    Verdict,
    estimate_effect,
    holm,
    judge,
    seeds_to_decide,
    variance_removed,
)
from harness.analysis.statistics.sequential import Plan
from harness.analysis.statistics.stretched import ExtendedPlan, plan_after

__all__ = [
    "Estimate",
    "ExtendedPlan",
    "Plan",
    "Verdict",
    "estimate_effect",
    "holm",
    "judge",
    "plan_after",
    "seeds_to_decide",
    "variance_removed",
]
