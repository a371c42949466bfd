"""Sequential tests of claims on seeds, with an error rate that holds under repeated looks.

A claim is a contrast of configurations; each seed that all of them have completed yields one value of it, or, with
`search.pairing: none`, one value of each of its arms. More seeds are added until the claim is decided. Everything here
is a function of the values in the order of their seeds: the p over all looks is computed from the first n values for
each n at which the plan looked, so that a study that is resumed, or read again, has the same verdict.

How intervals, p and verdict go together:

- **A look** at n pairs is a two-sided paired t test at the look's nominal level. The plan chooses the levels such that
  all looks together err with a probability of alpha, exactly so for normal differences (`sequential`, `repeated_t`).
- **Without pairing**, a look at n seeds of every arm is Welch's test of the contrast of independent arms (`sample`), at
  the same levels. Its error rate over all looks is at most alpha for normal values, whatever their spreads, see below.
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

Error rates without pairing, in percent, over all looks of a plan, of 100,000 simulated studies each (50,000 of (5, 20);
the standard error is at most 0.1), by the spreads of the arms:

    plan, alpha      1:1   1.75:0.97   5:1   10:1   1:0    1:1:1:1   2:1:1:3   6:1:1:1   10:1:1:1
    (2, 6), 5 %      3.1   3.6         4.5   4.8    5.1    2.7       2.9       4.0       4.3
    (3, 8), 5 %      3.6   4.1         4.8   5.0    5.1    3.3       3.5       4.7       4.9
    (5, 20), 5 %     4.6   4.8         5.0   5.0    5.0    4.3       4.5       4.8       4.8
    (2, 6), 2.5 %    1.3   1.6         2.4   2.5    2.6    1.1       1.3       2.1       2.2
    (3, 8), 2.5 %    1.7   2.0         2.5   2.6    2.5    1.5       1.6       2.4       2.6
    (5, 20), 2.5 %   2.2   2.4         2.6   2.6    2.6    2.1       2.3       2.3       2.3

A plan that is stretched, at 3, 6 or 7 of 8 seeds, errs in 3.4 to 4.8 % (10,000 studies each). The arms must be
independent: with a correlation of 0.2 between two arms of equal spread, (2, 6), (3, 8) and (5, 20) err in 1.9, 2.2 and
2.3 %, with -0.2 in 4.7, 5.6 and 7.4 %, with -0.4 in 6.6, 8.1 and 10.6 %. `harness aa --pairing none` measures the rate
on recorded runs, in which the arms of a seed keep what they share. What it gains, for an effect of 1.85 standard
deviations and (3, 8), where pairs need 5.5 seeds on average: 5.1 (1:1), 5.2 (1.75:0.97), 5.5 (10:1), 4.7 (four equal
arms) and 5.1 (2:1:1:3), of 40,000 studies each. If seeds affect all arms alike, pairs need fewer.

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
from harness.analysis.statistics.sample import Values
from harness.analysis.statistics.sequential import Plan
from harness.analysis.statistics.stretched import ExtendedPlan, plan_after

__all__ = [
    "Estimate",
    "ExtendedPlan",
    "Plan",
    "Values",
    "Verdict",
    "estimate_effect",
    "holm",
    "judge",
    "plan_after",
    "seeds_to_decide",
    "variance_removed",
]
