"""Results of a study's claims: as a table and as sentences, and as its `summary.json` holds them for their plot."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from rich.console import RenderableType
from rich.text import Text

from harness.analysis.claims import ANALYSES, ClaimResult
from harness.analysis.formatting import DASH, format_metric, plural, printable
from harness.analysis.limits import Limit
from harness.analysis.results import StudyResults, noise_line
from harness.analysis.reuse import other_environments
from harness.analysis.statistics import Estimate, Verdict
from harness.analysis.summary import SUMMARY_FILES
from harness.config.expectation import Expectation
from harness.config.study import Pairing
from harness.errors import NotFound, UserError
from harness.report.console import indented, plain_table
from harness.training.environment import Environment

VERDICT_STYLES = {"supported": "green", "contradicted": "red", "equivalent": "cyan", "undecided": "yellow"}
MAX_SEEDS_SHOWN = 200
"""Number of seeds above which a claim is reported as not decidable by more seeds."""
SUMMARY_FILE = SUMMARY_FILES[0]
EARLIER_ENVIRONMENT = "of an earlier environment (operator and data rules before 2026-11-30)"
"""Mark of a summary that does not record how its runs were computed."""
SUMMARY_REMEDY = f"Write it again: `harness show STUDY --json > {SUMMARY_FILE}`."


def claims_view(results: StudyResults) -> list[RenderableType]:
    """The claims with effect, interval, n, p and verdict; empty if the study has none."""
    if not results.claims:
        return []
    table = plain_table(("claim", "verdict"), ("effect", "95 % interval", "n", "p", "expected"))
    for result in results.claims:
        verdict = Text(result.verdict_text, style=VERDICT_STYLES[str(result.verdict)])
        table.add_row(Text(result.claim.name), verdict, *_claim_cells(result), Text(result.claim.expect))
    sentences = (
        indented(line)
        for result in results.claims
        for line in (*_sentences(result, results.environment), *_budget_sentence(result, results))
    )
    confirmed = sum(result.p is not None or result.estimate is None for result in results.claims)
    analysis = ANALYSES[results.claims[0].pairing]
    how = f"error rate 5 % over all looks, {analysis}; p corrected over {plural(confirmed, 'claim')} (Holm)"
    return [Text("Claims", style="bold").append(f"  {how}", style="dim"), table, Text(), *sentences, Text()]


def format_p(p: float | None) -> str:
    """A p-value with two digits; as a bound if it is tiny."""
    return DASH if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def format_interval(low: float | None, high: float | None, metric: str) -> str:
    """An interval, such as [1.20, 3.40]."""
    return DASH if low is None or high is None else f"[{format_metric(low, metric)}, {format_metric(high, metric)}]"


def variance_text(removed: float) -> str:
    """What pairing does to a variance, such as `removes 12 % of`."""
    size = f"{100 * abs(removed):.0f} %"
    return f"removes {size} of" if removed >= 0 else f"adds {size} to"


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
    if not result.is_paired and (removed := result.variance_removed) is not None:
        yield f"  Unpaired; pairing by seed {variance_text(removed)} the variance (n = {len(result.values)})."
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


def _budget_sentence(result: ClaimResult, results: StudyResults) -> Iterable[str]:
    """Sentence on a claim that stays open only because the budget of the study is used up."""
    if result.claim.name in results.open_by_budget:
        seeds = plural(result.pairs, "seed")
        yield f"  Undecided after {seeds} because the budget of the study is used up: with a larger one it gets more."


def _needed(estimate: Estimate, enough: int | None) -> str:
    if estimate.sd == 0:
        return f"{plural(estimate.n, 'seed')} show no spread, so the number of seeds that would decide it is unknown."
    if enough is None or enough > MAX_SEEDS_SHOWN:
        return (
            f"More than {MAX_SEEDS_SHOWN} seeds would be needed, if effect and spread are as observed: more seeds are "
            f"unlikely to decide it."
        )
    return f"About {enough} seeds would decide it with a power of 80 %, if effect and spread are as observed."


class SummaryModel(BaseModel):
    """A part of a summary; keys that are not fields are ignored."""

    model_config = ConfigDict(frozen=True)


class ArmSummary(SummaryModel):
    """A configuration of a contrast."""

    choices: dict[str, Any]
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    """The claim's metric, by seed."""


class ExploratorySummary(SummaryModel):
    """A verdict without an error rate."""

    verdict: Verdict
    reason: str


class ClaimSummary(SummaryModel):
    """A claim with its result."""

    name: str
    says: str
    metric: str
    expect: str
    ignore: float | None
    paper: str | None
    pairing: Pairing = "seed"
    verdict: Verdict
    values: tuple[float, ...]
    """The contrast, one number per seed."""
    effect: float | None
    interval: tuple[float, float] | None
    n: int
    p: float | None
    missing: str | None
    limit: Limit | None = None
    arms: tuple[ArmSummary, ...]
    exploratory: ExploratorySummary | None = None
    note: str | None = None
    """Note on how the verdict keeps its error rate, if the plan was extended."""

    @field_validator("expect")
    @classmethod
    def _check_expect(cls, text: str) -> str:
        Expectation.parse(text)
        return text

    @property
    def verdict_text(self) -> str:
        """The verdict; one without an error rate is marked as exploratory."""
        return str(self.verdict) if self.exploratory is None else f"exploratory: {self.exploratory.verdict}"

    @property
    def expected(self) -> Expectation:
        """The expectation of the claim, parsed."""
        return Expectation.parse(self.expect)


class ClaimsSummary(SummaryModel):
    """All claims of a study, and the conditions under which they were evaluated."""

    study: str
    conditions: str
    noise: str | None = None
    resample: str | None = "none"
    """How each seed's images were drawn; summaries without this key have one data set for all seeds."""
    claims: tuple[ClaimSummary, ...]
    recipe_revision: int | None = None
    """Revision of the recipe's meaning when the runs were trained; None if no environments were recorded."""
    finished: str | None = None
    """When the last run was finished; ISO 8601."""

    @property
    def mark(self) -> str:
        """Note to show with its numbers; empty if it records how its runs were computed."""
        return EARLIER_ENVIRONMENT if self.recipe_revision is None else ""

    @property
    def noise_line(self) -> str:
        """The sources of noise that the intervals cover, as text."""
        return self.noise or noise_line([("none", True)]) or ""


K = TypeVar("K", bound=ClaimsSummary)


def summarize_claims(results: StudyResults) -> ClaimsSummary:
    """The claims of these results in the form of their summary."""
    return ClaimsSummary.model_validate(results.to_dict())


def read_claims_summary(path: Path) -> ClaimsSummary:
    """Read the claims of a summary file. Raises `UserError`s for a file that is not a summary or has no claims."""
    summary = read_summary(path, ClaimsSummary)
    if not summary.claims:
        raise UserError("a study must have claims for them to be plotted", value=summary.study, place=str(path))
    return summary


def read_summary(path: Path, kind: type[K]) -> K:
    """Read a summary file, or the part of it that `kind` has. Raises `UserError`s for a file that is not a summary."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        rule = f"a summary must be a file that can be read ({error.strerror or error})"
        raise NotFound(rule, value=str(path), remedy=SUMMARY_REMEDY) from error
    except ValidationError as error:
        first = error.errors()[0]
        why = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        rule = f"a summary must be a {SUMMARY_FILE} as this version writes it ({printable(why)})"
        raise UserError(rule, value=str(path), remedy=SUMMARY_REMEDY) from error
