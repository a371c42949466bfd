"""Effective receptive fields, as tables and for JSON."""

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
    "r(t): the area of the smallest centered square that contains more than t of the map, in percent of the image's "
    "area. The map is the positive gradient of the last stage's center by the pixels; log is log10(map + 1)."
)
FIELDS_PAPER_NOTE = f"The paper's rows ({FIELDS_SOURCE}): trained networks, 50 images at {FIELDS_PX} px."


def fields_view(results: Sequence[FieldResult]) -> RenderableType:
    """A table for each definition with a row per network, followed by the images and notes of each network."""
    parts: list[RenderableType] = []
    for name, definition in FIELD_DEFINITIONS.items():
        title = Text(f"Effective receptive field, {definition.title}", style="bold")
        parts += [title.append(f"  {definition.about}", style="not bold"), _table(results, name), Text()]
    parts.append(Text(FIELDS_NOTE, style="dim"))
    if _has_published(results):
        parts.append(Text(FIELDS_PAPER_NOTE, style="dim"))
    for result in results:
        field = result.fields["paper"]
        text = f"{plural(field.images + field.skipped, 'image')} at {result.side} px, {result.about}"
        parts.append(Text(f"{result.subject.name}: {result.subject.about}; {text}", style="dim"))
        parts += [Text(f"{result.subject.name}: {note}") for note in result.notes]
    for text in dict.fromkeys(describe_environment(result.computed_by) for result in results if result.computed_by):
        parts.append(Text(f"computed by {text}", style="dim"))
    return Group(*parts)


def fields_values(results: Sequence[FieldResult]) -> list[dict[str, Any]]:
    """The fields for JSON; r is a share of the area, null without a field."""
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
    """The kernel sizes as text: by stage, or a single one if they are all the same."""
    K = result.subject.spec.K
    return format_value(K if len(set(K)) > 1 else K[0])


def _table(results: Sequence[FieldResult], definition: str) -> Table:
    shares = [f"{kind if t == SHARES[0] else ''}\n{t} %" for kind in ("raw", "log") for t in SHARES]
    table = plain_table(("\nnetwork", "\nK"), shares)
    for result in results:
        field = result.fields[definition]
        table.add_row(
            result.subject.name, kernel_sizes(result), *_cells(field), style="dim" if field.has_no_gradient else ""
        )
    if definition == "code" and _has_published(results):
        for row in PUBLISHED_FIELDS:
            cells = (f"{r:.1f}" for r in row.r_pct)
            table.add_row(f"{row.network} (paper)", "", *[DASH] * len(SHARES), *cells, style="dim")
    return table


def _has_published(results: Sequence[FieldResult]) -> bool:
    """Whether any of the networks is in the paper's table."""
    return any(has_published_field(result.subject.spec) for result in results)


def _cells(field: ReceptiveField) -> Iterator[str]:
    for map in (field.raw, field.log):
        yield from (DASH if field.has_no_gradient else f"{100 * share:.1f}" for share in area_shares(map).values())


def _values(field: ReceptiveField) -> dict[str, Any]:
    maps = {"raw": field.raw, "log": field.log}
    shares = {name: {str(t): r for t, r in area_shares(map).items()} for name, map in maps.items()}
    return {"images": field.images, "skipped": field.skipped, "dead": field.dead, "r": shares}
