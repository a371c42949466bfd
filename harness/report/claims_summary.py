"""The claims of a study as stored in its `summary.json`, with all values that their plot needs."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from harness.analysis.formatting import printable
from harness.analysis.limits import Limit
from harness.analysis.results import StudyResults, noise_line
from harness.analysis.statistics import Verdict
from harness.analysis.summary import SUMMARY_FILES
from harness.config.expectation import Expectation
from harness.errors import NotFound, UserError

SUMMARY_FILE = SUMMARY_FILES[0]
EARLIER_ENVIRONMENT = "of an earlier environment (operator and data rules before 2026-11-30)"
"""Mark of a summary that does not record how its runs were computed."""
SUMMARY_REMEDY = f"Write it again: `harness show STUDY --json > {SUMMARY_FILE}`."


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
    verdict: Verdict
    values: tuple[float, ...]
    """The contrast, one number per pair."""
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
