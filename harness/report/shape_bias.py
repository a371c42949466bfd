"""The shape bias, a share of decisions that is never shown without its interval and its n.

Of a run, and of a network on cue-conflict images: as a table for people and as values for programs, beside published
results.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.analysis.formatting import DASH, plural, printable
from harness.models.spec.published import SHAPE_BIAS, SHAPE_BIAS_SOURCE
from harness.report.console import plain_table
from harness.training.environment import describe_environment

if TYPE_CHECKING:
    from harness.measures.cue_conflict import CueConflictResult
    from harness.measures.shape_bias import Decisions

CONFIDENCE = 0.95
SHAPE_BIAS_NOTE = (
    "A decision is an image that is given to the class of its shape or to that of its texture. The share of shape "
    "decisions, with Wilson's 95 % interval, is over all decisions; the mean is that of the classes' shares, which "
    "count alike."
)


def interval_pct(shape: int, decisions: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a share of decisions, in percent; None without decisions."""
    from scipy.stats import binomtest

    if decisions == 0:
        return None
    found = binomtest(shape, decisions).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def format_share(shape: int, decisions: int) -> str:
    """As 43.2 % (36.6 to 49.9), a share and its interval."""
    interval = interval_pct(shape, decisions)
    if interval is None:
        return DASH
    return f"{100 * shape / decisions:.1f} % ({interval[0]:.1f} to {interval[1]:.1f})"


def shape_bias_line(measures: Mapping[str, float]) -> Iterator[str]:
    """The shape bias of a run that has measured it, with its 95 % interval; a line or none."""
    if "shape_decisions" in measures:
        shape = int(measures["shape_decisions"])
        decisions = shape + int(measures["cue_decisions"])
        yield f"{format_share(shape, decisions)} of {plural(decisions, 'decision')}"


def cue_conflict_view(found: "CueConflictResult") -> RenderableType:
    """The classes, the whole, what is published, and what was left out."""
    title = Text(f"Shape bias of {found.subject.name}", style="bold")
    title.append(f"  {found.subject.about}, {found.folder} at {found.side} px", style="not bold")
    left_out = [Text(f"left out: {said}", style="dim") for said in left_out_words(found)]
    told = [Text(f"warning: {note}") for note in found.notes]
    told.append(Text(f"classes matched {found.labels}", style="dim"))
    if found.computed_by is not None:
        told.append(Text(f"computed by {describe_environment(found.computed_by)}", style="dim"))
    reading = Text(SHAPE_BIAS_NOTE, style="dim")
    return Group(title, _table(found), Text(), _published(found), Text(), reading, *told, *left_out)


def cue_conflict_values(found: "CueConflictResult") -> dict[str, Any]:
    """The same for JSON; shares in percent."""
    return {
        "network": found.subject.name,
        "spec": found.subject.spec.canonical(),
        "weights": found.subject.about,
        "stimuli": str(found.folder),
        "resolution": found.side,
        **_values(found.whole),
        "class_mean_pct": found.class_mean_pct,
        "labels": found.labels,
        "notes": list(found.notes),
        "environment": None if found.computed_by is None else found.computed_by.values(),
        "classes": {name: _values(each) for name, each in found.classes.items()},
        "left_out": {
            "misnamed": len(found.stimuli.misnamed),
            "without_conflict": found.stimuli.agreeing,
            "unreadable": found.unreadable,
        },
        "published": [row._asdict() for row in SHAPE_BIAS],
    }


def left_out_words(found: "CueConflictResult") -> Iterator[str]:
    """What of the folder decided nothing, and why; a line each."""
    misnamed = found.stimuli.misnamed
    if misnamed:
        named = f"not named as cat1-bicycle3.png is ({printable(misnamed[0].name)} first)"
        yield f"{plural(len(misnamed), 'image')} {named}"
    if found.stimuli.agreeing:
        yield f"{plural(found.stimuli.agreeing, 'image')} of which shape and texture are of one class"
    if found.unreadable:
        yield f"{plural(found.unreadable, 'image')} that cannot be read"


def _table(found: "CueConflictResult") -> Table:
    table = plain_table()
    table.add_column("class of the shape", no_wrap=True)
    for name in ("images", "shape", "texture", "shape bias (95 %)"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, each in found.classes.items():
        table.add_row(name, *_cells(each), style="" if each.total else "dim")
    table.add_row("all", *_cells(found.whole), style="bold")
    mean = found.class_mean_pct
    classes = sum(each.total > 0 for each in found.classes.values())
    table.add_row(f"mean of {classes} classes", "", "", "", DASH if mean is None else f"{mean:.1f} %")
    return table


def _published(found: "CueConflictResult") -> Table:
    table = plain_table()
    table.add_column(SHAPE_BIAS_SOURCE, no_wrap=True)
    for name in ("all", "mean of 16 classes"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in SHAPE_BIAS:
        name = f"{row.network}, {row.training}" if row.training else row.network
        table.add_row(name, f"{100 * row.share:.1f} %", f"{100 * row.class_mean:.1f} %")
    mean = found.class_mean_pct
    share = found.whole.share_pct
    own = (DASH if each is None else f"{each:.1f} %" for each in (share, mean))
    table.add_row(found.subject.name, *own, style="bold")
    return table


def _cells(each: "Decisions") -> tuple[str, ...]:
    return str(each.images), str(each.shape), str(each.cue), format_share(each.shape, each.total)


def _values(each: "Decisions") -> dict[str, Any]:
    interval = interval_pct(each.shape, each.total)
    return {
        "images": each.images,
        "shape_decisions": each.shape,
        "cue_decisions": each.cue,
        "shape_bias_pct": each.share_pct,
        "interval_pct": None if interval is None else list(interval),
    }
