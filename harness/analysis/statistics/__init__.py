"""Claims: what the values of some paired seeds say of a statement, with an error rate that holds under repeated looks.

A claim is a contrast of configurations; each seed that all of them have completed gives one value of it. More seeds are
added until the claim is decided. All that stands here is a function of the values in the order of their seeds: the
p over all looks is computed from the first n values for each n at which the plan looked, so that a study that is
resumed, or read again, comes to the verdict that it came to.

How intervals, p and verdict go together:

- **A look** at n pairs is a two-sided paired t test at the look's nominal level. The plan chooses the levels such that
  all looks together err with a probability of alpha, exactly so for normal differences (`sequential`, `repeated_t`).
- **The repeated interval** is the t interval at that level. It leaves out a bound just where the look's test rejects
  it. The effect lies in the intervals of all looks with probability 1 - alpha.
- **The repeated p** of a verdict is the smallest alpha at which one of the looks up to now would have given it: for a
  side of the bound, that the repeated interval lies wholly on that side; for `equivalent`, and for the support of
  `within d`, that it lies wholly inside, which is two one-sided tests, each at alpha / 2 (Schuirmann 1987, stricter
  than his). So p <= alpha just where the interval of some look has said so.
- **Decided stays decided.** A repeated p never rises with more pairs, and so Holm's corrected p do not rise either. A
  claim that is carried on after its verdict, since others are open, keeps the side it was decided for, even if the
  interval of a later look should touch the bound again. Between the sides the smaller p decides. The one change that
  more pairs can bring is from a side to `equivalent`: an effect of that sign, and too small to matter.
- **One p per claim**, its smallest, goes into Holm's correction, and the verdict is one whose own p meets the level
  that the correction grants. Whatever the true effect, the wrong verdicts of one claim have probability alpha at most:
  at the bound both sides are wrong; further off than the smallest effect of interest, `equivalent` and the other side,
  and these lie on the same side of the truth.
- **Exact figures** (counts) have no error: the values are equal, the intervals have no width, p is 0. A measured figure
  whose values happen to be equal is not exact: it has no interval yet, and its test is the sign test.
- **What is assumed**: pairs that are independent, and differences not far from normal. Symmetric ones with heavy tails
  or coarse steps err less often than alpha; exponential ones, a skew as strong as can be, in 15 % of the null studies
  of the plan (3, 8), where a single t test at 8 pairs errs in 11 % (`simulate`).
- The plain t interval, the BCa bootstrap interval (Efron 1987), the t p and the sign-flip p are those of a single look;
  they are shown beside, and decide nothing. With one look only, the plain and the repeated ones are the same.

A look at n belongs to the first n seeds: judge when the seeds of a round are all in, else the looks differ with the
order in which runs happen to end. And a plan is made before the first look. One that is changed later keeps its error
rate by the conditional rejection principle (`stretched`), where it had not had its last look; after that nothing is
left of its error rate, and a verdict that more seeds bring is exploratory.

Sources: Jennison & Turnbull 1999, Group Sequential Methods, chapters 3, 7 and 9 (significance levels, error spending,
repeated intervals); Lan & DeMets 1983, Biometrika 70, 659-663; Efron 1987, JASA 82, 171-185; Holm 1979, Scandinavian
Journal of Statistics 6, 65-70; Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680.
"""

from harness.analysis.statistics.estimates import Estimate, estimate_effect
from harness.analysis.statistics.evidence import Evidence
from harness.analysis.statistics.power import seeds_to_decide
from harness.analysis.statistics.sequential import Plan
from harness.analysis.statistics.stretched import ExtendedPlan, plan_after
from harness.analysis.statistics.verdict import Verdict, holm, judge
from harness.config.expectation import Expectation, ExpectationKind

__all__ = [
    "Estimate",
    "Evidence",
    "Expectation",
    "ExpectationKind",
    "ExtendedPlan",
    "Plan",
    "Verdict",
    "estimate_effect",
    "holm",
    "judge",
    "plan_after",
    "seeds_to_decide",
]
