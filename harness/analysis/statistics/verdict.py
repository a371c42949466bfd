"""Verdicts from evidence, with one error rate over all claims of a file."""

from collections.abc import Sequence
from enum import StrEnum

from harness.analysis.statistics.estimates import Estimate


class Verdict(StrEnum):
    """The verdict on a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    EQUIVALENT = "equivalent"
    """No difference larger than the smallest effect of interest."""
    UNDECIDED = "undecided"


def holm(ps: Sequence[float]) -> list[float]:
    """The p of claims that are tested together, corrected step by step from the smallest (Holm 1979)."""
    corrected, largest = [1.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


def judge(estimate: Estimate, corrected_p: float | None = None) -> Verdict:
    """The verdict at the plan's alpha; `corrected_p` is the estimate's p, corrected over the claims of a file.

    If the effect is shown to be smaller than the smallest effect of interest, that takes precedence over its sign.
    """
    evidence = estimate.evidence
    corrected = evidence.p if corrected_p is None else corrected_p
    if corrected > estimate.alpha:
        return Verdict.UNDECIDED
    granted = estimate.alpha * evidence.p / corrected if corrected > 0 else estimate.alpha
    if evidence.equivalent == evidence.p or evidence.equivalent <= granted:
        return Verdict.EQUIVALENT
    return Verdict.SUPPORTED if evidence.supported < evidence.contradicted else Verdict.CONTRADICTED
