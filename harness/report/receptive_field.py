"""Effective receptive fields as tables for people and as values for programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.analysis.formatting import DASH, format_value, plural
from harness.measures.erf_comparison import FieldResult
from harness.measures.receptive_field import FIELD_DEFINITIONS, SHARES, ReceptiveField, area_shares
from harness.models.spec.published import FIELDS_PX, FIELDS_SOURCE, PUBLISHED_FIELDS, has_published_field
from harness.report.console import plain_table
from harness.training.environment import describe_environment

FIELDS_NOTE = (
    "r(t): the area of the smallest centred square that holds more than t of the map, in percent of the image's. The "
    "map is the positive gradient of the last stage's centre by the pixels; raw as it is, log as log10(map + 1)."
)
FIELDS_PAPER_NOTE = f"The paper's rows ({FIELDS_SOURCE}): trained networks, 50 images at {FIELDS_PX} px."


def fields_view(results: Sequence[FieldResult]) -> RenderableType:
    """A table for each definition, networks by row; then what each was shown, and what must be known of it."""
    parts: list[RenderableType] = []
    for name, definition in FIELD_DEFINITIONS.items():
        title = Text(f"Effective receptive field, {definition.title}", style="bold")
        parts += [title.append(f"  {definition.about}", style="not bold"), _table(results, name), Text()]
    parts.append(Text(FIELDS_NOTE, style="dim"))
    if _is_beside_the_paper(results):
        parts.append(Text(FIELDS_PAPER_NOTE, style="dim"))
    for result in results:
        field = result.fields["paper"]
        text = f"{plural(field.images + field.skipped, 'image')} at {result.side} px, {result.about}"
        parts.append(Text(f"{result.subject.name}: {result.subject.about}; {text}", style="dim"))
        parts += [Text(f"{result.subject.name}: {note}") for note in result.notes]
    for words in dict.fromkeys(describe_environment(result.computed_by) for result in results if result.computed_by):
        parts.append(Text(f"computed by {words}", style="dim"))
    return Group(*parts)


def fields_values(results: Sequence[FieldResult]) -> list[dict[str, Any]]:
    """The same for JSON; r as shares of the area, null where there is no field."""
    return [
        {
            "network": result.subject.name,
            "spec": result.subject.spec.canonical(),
            "weights": result.subject.about,
            "resolution": result.side,
            "data": result.about,
            "fields": {name: _values(field) for name, field in result.fields.items()},
            "notes": list(result.notes),
            "environment": None if result.computed_by is None else result.computed_by.values(),
        }
        for result in results
    ]


def kernel_sizes(result: FieldResult) -> str:
    """K in short: by stage, or once where it is the same everywhere."""
    K = result.subject.spec.K
    return format_value(K if len(set(K)) > 1 else K[0])


def _table(results: Sequence[FieldResult], definition: str) -> Table:
    table = plain_table()
    table.add_column("\nnetwork", no_wrap=True)
    table.add_column("\nK", no_wrap=True)
    for kind in ("raw", "log"):
        for t in SHARES:
            table.add_column(f"{kind if t == SHARES[0] else ''}\n{t} %", justify="right", no_wrap=True)
    for result in results:
        field = result.fields[definition]
        table.add_row(
            result.subject.name, kernel_sizes(result), *_cells(field), style="dim" if field.has_no_gradient else ""
        )
    if definition == "code" and _is_beside_the_paper(results):
        for row in PUBLISHED_FIELDS:
            figures = (f"{r:.1f}" for r in row.r_pct)
            table.add_row(f"{row.network} (paper)", "", *[DASH] * len(SHARES), *figures, style="dim")
    return table


def _is_beside_the_paper(results: Sequence[FieldResult]) -> bool:
    """Whether one of the networks of the paper's table is among these."""
    return any(has_published_field(result.subject.spec) for result in results)


def _cells(field: ReceptiveField) -> Iterator[str]:
    for map in (field.raw, field.log):
        yield from (DASH if field.has_no_gradient else f"{100 * share:.1f}" for share in area_shares(map).values())


def _values(field: ReceptiveField) -> dict[str, Any]:
    maps = {"raw": field.raw, "log": field.log}
    shares = {name: {str(t): r for t, r in area_shares(map).items()} for name, map in maps.items()}
    return {"images": field.images, "skipped": field.skipped, "dead": field.dead, "r": shares}
