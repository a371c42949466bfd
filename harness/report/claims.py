"""The claims of a study as a table, sentences and plain values."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from harness.analysis.claims import ClaimResult
from harness.analysis.environments import OtherEnvironment, other_environments
from harness.analysis.formatting import DASH, format_metric, plural
from harness.analysis.statistics import Estimate
from harness.analysis.statistics.limits import Limit
from harness.report.console import indented, plain_table
from harness.training.environment import Environment

if TYPE_CHECKING:
    from harness.analysis.results import StudyResults

VERDICT_STYLES = {"supported": "green", "contradicted": "red", "equivalent": "cyan", "undecided": "yellow"}
MAX_SEEDS_SHOWN = 200
"""Seeds beyond which a claim is not called decidable by more of them."""


def claims_view(answer: "StudyResults") -> list[RenderableType]:
    """The claims with effect, interval, n, p and verdict; nothing where the study makes none."""
    if not answer.claims:
        return []
    table = plain_table()
    for name in ("claim", "verdict"):
        table.add_column(name, no_wrap=True)
    for name in ("effect", "95 % interval", "n", "p", "expected"):
        table.add_column(name, justify="right", no_wrap=True)
    for judged in answer.claims:
        verdict = Text(judged.verdict_text, style=VERDICT_STYLES[str(judged.verdict)])
        table.add_row(Text(judged.claim.name), verdict, *_claim_cells(judged), Text(judged.claim.expect))
    said = (indented(line) for judged in answer.claims for line in _sentences(judged, answer.environment))
    confirmed = sum(judged.p is not None or judged.estimate is None for judged in answer.claims)
    how = f"error rate 5 % over all looks; p corrected over {plural(confirmed, 'claim')} (Holm)"
    return [Text("Claims", style="bold").append(f"  {how}", style="dim"), table, Text(), *said, Text()]


def claim_values(judged: ClaimResult, here: Environment | None = None) -> dict[str, Any]:
    """One claim for JSON."""
    claim, found = judged.claim, judged.estimate
    return {
        **claim.model_dump(mode="json"),
        "verdict": str(judged.verdict),
        "values": list(judged.values),
        "seeds": list(judged.seeds),
        "effect": None if found is None else found.effect,
        "sd": None if found is None else found.sd,
        "interval": None if found is None else found.repeated_interval,
        "interval_of_one_look": None if found is None else found.interval,
        "interval_bca": None if found is None else found.bootstrap_interval,
        "p_permutation": None if found is None else found.permutation_p,
        "n": len(judged.values),
        "n_trained": judged.pairs,
        "lost": [each.text for each in judged.lost_pairs],
        "p": judged.p,
        "seeds_to_decide": judged.seeds_needed,
        "exploratory": exploratory_values(judged),
        "note": judged.note,
        "missing": judged.missing_reason,
        "other_environments": [origin.text for origin in _origins(judged, here)],
        "limit": judged.limit,
        "arms": [
            {"choices": arm.params, "weight": weight, "seeds": list(figures), "values": list(figures.values())}
            for arm, weight, figures in zip(judged.arms, claim.contrast.values(), judged.arm_values, strict=True)
        ],
    }


def exploratory_values(judged: ClaimResult) -> dict[str, Any] | None:
    """For JSON: the verdict without an error rate, where there is one, and why it has none."""
    explored = judged.exploratory
    return None if explored is None else {"verdict": str(explored.verdict), "p": explored.p, "reason": explored.reason}


def format_p(p: float | None) -> str:
    """A p with two digits, and a bound where it is tiny."""
    return DASH if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def format_interval(low: float | None, high: float | None, metric: str) -> str:
    """As [1.20, 3.40]."""
    return DASH if low is None or high is None else f"[{format_metric(low, metric)}, {format_metric(high, metric)}]"


def _claim_cells(judged: ClaimResult) -> Iterable[Text | str]:
    metric, found = judged.claim.metric, judged.estimate
    if found is None:
        return DASH, DASH, _n(judged), DASH
    return (
        format_metric(found.effect, metric),
        format_interval(found.low, found.high, metric),
        _n(judged),
        format_p(judged.p),
    )


def _n(judged: ClaimResult) -> str:
    """The number of pairs, as `4`, or `3 of 4` where one was lost."""
    return f"{len(judged.values)} of {judged.pairs}" if judged.lost_pairs else str(len(judged.values))


def _origins(judged: ClaimResult, here: Environment | None) -> tuple[OtherEnvironment, ...]:
    return () if here is None else other_environments(judged.runs, here)


def _sentences(judged: ClaimResult, here: Environment | None) -> Iterable[str]:
    """What was claimed, what was published, and what an undecided claim would need."""
    claim = judged.claim
    yield f"{claim.name}: {claim.says} ({claim.metric})" + (f" Paper: {claim.paper}." if claim.paper else "")
    if judged.lost_pairs:
        why = "; ".join(each.text for each in judged.lost_pairs)
        yield f"  {_n(judged)} seeds: {why}. What was lost by its outcome is missing from effect and interval."
    if judged.note:
        yield f"  Its error rate: {judged.note}."
    if judged.limit == Limit.CHANCE:
        yield "  All arms are at chance: nothing can be told apart here, and more seeds would not help."
    elif judged.limit == Limit.CEILING:
        yield "  All arms are at the ceiling: nothing can be told apart here, and more seeds would not help."
    elif judged.missing_reason:
        yield f"  Not judged: {judged.missing_reason}."
    elif judged.exploratory is not None:
        explored = judged.exploratory
        yield f"  Exploratory, without an error rate: {explored.reason}."
        would_be = f"it would be {explored.verdict} (p {format_p(explored.p)})"
        yield f"  Had claim and plan been there before the first run, {would_be}."
    elif str(judged.verdict) == "equivalent":
        yield f"  No difference larger than {claim.ignore:g}."
    elif str(judged.verdict) == "undecided" and judged.estimate is not None:
        yield f"  {_needed(judged.estimate, judged.seeds_needed)}"
        if judged.is_used_up and not judged.estimate.is_exact:
            yield "  The plan has had its last look: `search.max_seeds` raised now gives an exploratory verdict only."
    if others := _origins(judged, here):
        yield f"  Other environments: {'; '.join(origin.text for origin in others)}."


def _needed(found: Estimate, enough: int | None) -> str:
    if found.sd == 0:
        return f"No spread is seen in {plural(found.n, 'seed')}, so that nothing tells how many would decide it."
    if enough is None or enough > MAX_SEEDS_SHOWN:
        return (
            f"More than {MAX_SEEDS_SHOWN} seeds would be needed, if effect and spread are as seen: not a "
            f"matter of seeds."
        )
    return f"About {enough} seeds would decide it with a power of 80 %, if effect and spread are as seen."
