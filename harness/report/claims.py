"""Results of a study's claims as a table and as sentences."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from harness.analysis.claims import ClaimResult
from harness.analysis.formatting import DASH, format_metric, plural
from harness.analysis.limits import Limit
from harness.analysis.reuse import other_environments
from harness.analysis.statistics import Estimate
from harness.report.console import indented, plain_table
from harness.training.environment import Environment

if TYPE_CHECKING:
    from harness.analysis.results import StudyResults

VERDICT_STYLES = {"supported": "green", "contradicted": "red", "equivalent": "cyan", "undecided": "yellow"}
MAX_SEEDS_SHOWN = 200
"""Number of seeds above which a claim is reported as not decidable by more seeds."""


def claims_view(results: "StudyResults") -> list[RenderableType]:
    """The claims with effect, interval, n, p and verdict; empty if the study has none."""
    if not results.claims:
        return []
    table = plain_table(("claim", "verdict"), ("effect", "95 % interval", "n", "p", "expected"))
    for result in results.claims:
        verdict = Text(result.verdict_text, style=VERDICT_STYLES[str(result.verdict)])
        table.add_row(Text(result.claim.name), verdict, *_claim_cells(result), Text(result.claim.expect))
    sentences = (indented(line) for result in results.claims for line in _sentences(result, results.environment))
    confirmed = sum(result.p is not None or result.estimate is None for result in results.claims)
    how = f"error rate 5 % over all looks; p corrected over {plural(confirmed, 'claim')} (Holm)"
    return [Text("Claims", style="bold").append(f"  {how}", style="dim"), table, Text(), *sentences, Text()]


def format_p(p: float | None) -> str:
    """A p-value with two digits; as a bound if it is tiny."""
    return DASH if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def format_interval(low: float | None, high: float | None, metric: str) -> str:
    """An interval, such as [1.20, 3.40]."""
    return DASH if low is None or high is None else f"[{format_metric(low, metric)}, {format_metric(high, metric)}]"


def _claim_cells(result: ClaimResult) -> Iterable[Text | str]:
    metric, estimate = result.claim.metric, result.estimate
    if estimate is None:
        return DASH, DASH, _n(result), DASH
    return (
        format_metric(estimate.effect, metric),
        format_interval(estimate.low, estimate.high, metric),
        _n(result),
        format_p(result.p),
    )


def _n(result: ClaimResult) -> str:
    """The number of pairs, such as `4`, or `3 of 4` if one was lost."""
    return f"{len(result.values)} of {result.pairs}" if result.lost_pairs else str(len(result.values))


def _sentences(result: ClaimResult, environment: Environment | None) -> Iterable[str]:
    """Sentences about a claim: its statement, the published result, and what an undecided claim would need."""
    claim = result.claim
    yield f"{claim.name}: {claim.says} ({claim.metric})" + (f" Paper: {claim.paper}." if claim.paper else "")
    if result.lost_pairs:
        why = "; ".join(pair.text for pair in result.lost_pairs)
        yield f"  {_n(result)} seeds: {why}. Seeds lost because of their outcome are missing from effect and interval."
    if result.note:
        yield f"  Its error rate: {result.note}."
    if result.limit == Limit.CHANCE:
        yield "  All arms are at chance: nothing can be told apart here, and more seeds would not help."
    elif result.limit == Limit.CEILING:
        yield "  All arms are at the ceiling: nothing can be told apart here, and more seeds would not help."
    elif result.missing_reason:
        yield f"  Not evaluated: {result.missing_reason}."
    elif result.exploratory is not None:
        explored = result.exploratory
        yield f"  Exploratory, without an error rate: {explored.reason}."
        would_be = f"it would be {explored.verdict} (p {format_p(explored.p)})"
        yield f"  With claim and plan defined before the first run, {would_be}."
    elif str(result.verdict) == "equivalent":
        yield f"  No difference larger than {claim.ignore:g}."
    elif str(result.verdict) == "undecided" and result.estimate is not None:
        yield f"  {_needed(result.estimate, result.seeds_needed)}"
        if result.is_used_up and not result.estimate.is_exact:
            yield "  The plan has had its last look: raising `search.max_seeds` now allows only an exploratory verdict."
    if others := other_environments(result.runs, environment):
        yield f"  Other environments: {'; '.join(origin.text for origin in others)}."


def _needed(estimate: Estimate, enough: int | None) -> str:
    if estimate.sd == 0:
        return f"{plural(estimate.n, 'seed')} show no spread, so the number of seeds that would decide it is unknown."
    if enough is None or enough > MAX_SEEDS_SHOWN:
        return (
            f"More than {MAX_SEEDS_SHOWN} seeds would be needed, if effect and spread are as observed: more seeds are "
            f"unlikely to decide it."
        )
    return f"About {enough} seeds would decide it with a power of 80 %, if effect and spread are as observed."
