"""From an expectation as text, and values, to a verdict; over a file's claims with Holm's correction."""

import random

import numpy as np
import pytest
from claim_plans import ABOVE_0, PLAN, verdict_of

from harness.analysis.statistics import Estimate, Verdict, holm, judge
from harness.analysis.statistics.estimates import Evidence
from harness.analysis.statistics.sample import Sample
from harness.config.expectation import Expectation, ExpectationKind

# Expectations


@pytest.mark.parametrize(
    ("text", "kind", "bound"),
    [
        ("> 0", ExpectationKind.ABOVE, 0.0),
        (">0.5", ExpectationKind.ABOVE, 0.5),
        ("  < -1.5 ", ExpectationKind.BELOW, -1.5),
        ("< 1e-3", ExpectationKind.BELOW, 0.001),
        ("> +.5", ExpectationKind.ABOVE, 0.5),
        ("within 0.5", ExpectationKind.WITHIN, 0.5),
        ("within 0", ExpectationKind.WITHIN, 0.0),
    ],
)
def test_an_expectation_is_read(text: str, kind: ExpectationKind, bound: float) -> None:
    assert Expectation.parse(text) == Expectation(kind, bound)
    assert Expectation.parse(str(Expectation.parse(text))) == Expectation(kind, bound)


@pytest.mark.parametrize(
    "text", ["", "0", ">", ">= 0", "= 0", "> x", "> 0 and < 1", "within", "within 0.5 of 1", "> nan", "> inf", "> 1 %"]
)
def test_what_is_no_expectation_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be `>`, `<` or `within` and a number, but got .* Write `> 0`"):
        Expectation.parse(text)


@pytest.mark.parametrize(("text", "words"), [("within -0.5", "must not be negative"), ("> 1e999", "must be finite")])
def test_an_impossible_bound_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Expectation.parse(text)


def test_where_an_expectation_holds() -> None:
    within = Expectation.parse("within 0.5")
    assert [within.holds(effect) for effect in (-0.6, -0.5, 0.0, 0.5, 0.6)] == [False, True, True, True, False]
    assert (within.nearest(2.0), within.nearest(-0.1), ABOVE_0.nearest(2.0)) == (0.5, -0.5, 0.0)
    assert (ABOVE_0.holds(0.0), Expectation.parse("< 1").holds(0.0)) == (False, True)


# Verdicts over a file


def test_holm_is_holm() -> None:
    """The example of R's p.adjust by hand: (0.01, 0.02, 0.03) times (3, 2, 1), never falling."""
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9, 0.0]) == [1.0, 1.0, 0.0]
    assert holm([]) == []
    assert holm([0.04]) == [0.04]


def test_holm_decides_as_its_steps_do() -> None:
    rng = random.Random(10)
    for _ in range(200):
        ps = [rng.random() ** 4 for _ in range(rng.randrange(1, 8))]
        rejected, order = set[int](), sorted(range(len(ps)), key=ps.__getitem__)
        for step, i in enumerate(order):
            if ps[i] > 0.05 / (len(ps) - step):
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(ps)) if p <= 0.05} == rejected


def with_evidence(supported: float, contradicted: float, equivalent: float) -> Estimate:
    return Estimate(
        values=(0.0, 1.0, 2.0),
        effect=1.0,
        sd=1.0,
        is_exact=False,
        alpha=0.05,
        ignore=0.5,
        nearest=0.0,
        interval=None,
        repeated_interval=None,
        t_p=0.0,
        evidence=Evidence(supported, contradicted, equivalent),
    )


@pytest.mark.parametrize(
    ("evidence", "corrected", "verdict"),
    [
        ((0.01, 1.0, 1.0), 0.05, Verdict.SUPPORTED),
        ((0.01, 1.0, 1.0), 0.0501, Verdict.UNDECIDED),
        ((1.0, 0.01, 1.0), 0.02, Verdict.CONTRADICTED),
        ((1.0, 1.0, 0.01), 0.05, Verdict.EQUIVALENT),
        ((0.001, 1.0, 0.04), 0.001, Verdict.EQUIVALENT),  # both are so, and the size comes before the sign
        ((0.001, 1.0, 0.04), 0.002, Verdict.SUPPORTED),  # here the size misses the level 0.025
        ((0.04, 0.01, 1.0), 0.01, Verdict.CONTRADICTED),
    ],
)
def test_evidence_becomes_a_verdict(evidence: tuple[float, float, float], corrected: float, verdict: Verdict) -> None:
    assert judge(with_evidence(*evidence), corrected) == verdict


@pytest.mark.parametrize(
    ("values", "text", "ignore", "verdict"),
    [
        ([2.0, 2.2, 1.8, 2.1], "> 0", None, Verdict.SUPPORTED),
        ([2.0, 2.2, 1.8, 2.1], "< 0", None, Verdict.CONTRADICTED),
        ([2.0, 2.2, 1.8, 2.1], "> 2", None, Verdict.UNDECIDED),
        ([2.0, 2.2, 1.8, 2.1], "> 2", 1.5, Verdict.EQUIVALENT),
        ([2.0, 2.2, 1.8, 2.1], "> 1", 3.0, Verdict.EQUIVALENT),
        ([0.02, -0.03, 0.01, 0.0], "within 0.5", None, Verdict.SUPPORTED),
        ([2.0, 2.2, 1.8, 2.1], "within 0.5", None, Verdict.CONTRADICTED),
        ([-2.0, -2.2, -1.8, -2.1], "within 0.5", None, Verdict.CONTRADICTED),
        ([0.4, 0.6, 0.5, 0.45], "within 0.5", None, Verdict.UNDECIDED),
        ([0.02, -0.03, 0.01, 0.0], "within 0", None, Verdict.UNDECIDED),
    ],
)
def test_values_become_a_verdict(values: list[float], text: str, ignore: float | None, verdict: Verdict) -> None:
    assert verdict_of(values, text, PLAN, ignore) == verdict


def test_no_difference_at_the_edge_of_interest_is_rarely_called_equivalent() -> None:
    """With a true effect of just the smallest of interest, `equivalent` is wrong, and given in 2.5 % at most."""
    rows = np.random.default_rng(11).normal(1.0, 0.25, (400, 8)).tolist()
    looks = [[Sample.of(row[:n]) for n in PLAN.looks] for row in rows]
    wrong = [any(max(s.p(-1), s.p(1)) <= PLAN.level(s.n) and abs(s.mean) < 1 for s in row) for row in looks]
    assert 0.0 < np.mean(wrong) <= 0.045
