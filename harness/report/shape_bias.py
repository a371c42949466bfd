"""The shape bias, a share of decisions, always shown with its interval and its n.

For a run as a line; for a network on cue-conflict images as a table and for JSON, with published results.
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
    "A decision is an image that is classified as the class of its shape or of its texture. The share of shape "
    "decisions, with Wilson's 95 % interval, is over all decisions; the mean is the unweighted mean of the classes' "
    "shares."
)


def interval_pct(shape: int, decisions: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a share of decisions, in percent; None without decisions."""
    from scipy.stats import binomtest

    if decisions == 0:
        return None
    interval = binomtest(shape, decisions).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def format_share(shape: int, decisions: int) -> str:
    """A share and its interval, such as 43.2 % (36.6 to 49.9)."""
    interval = interval_pct(shape, decisions)
    if interval is None:
        return DASH
    return f"{100 * shape / decisions:.1f} % ({interval[0]:.1f} to {interval[1]:.1f})"


def shape_bias_line(measures: Mapping[str, float]) -> Iterator[str]:
    """The shape bias of a run with its 95 % interval, as one line; nothing if the run has not measured it."""
    if "shape_decisions" in measures:
        shape = int(measures["shape_decisions"])
        decisions = shape + int(measures["cue_decisions"])
        yield f"{format_share(shape, decisions)} of {plural(decisions, 'decision')}"


def cue_conflict_view(result: "CueConflictResult") -> RenderableType:
    """Tables by class and of published results, followed by notes and by the omitted images."""
    title = Text(f"Shape bias of {result.subject.name}", style="bold")
    title.append(f"  {result.subject.about}, {result.folder} at {result.side} px", style="not bold")
    left_out = [Text(f"left out: {output}", style="dim") for output in left_out_words(result)]
    notes = [Text(f"warning: {note}") for note in result.notes]
    notes.append(Text(f"classes matched {result.labels}", style="dim"))
    if result.computed_by is not None:
        notes.append(Text(f"computed by {describe_environment(result.computed_by)}", style="dim"))
    reading = Text(SHAPE_BIAS_NOTE, style="dim")
    return Group(title, _table(result), Text(), _published(result), Text(), reading, *notes, *left_out)


def cue_conflict_values(result: "CueConflictResult") -> dict[str, Any]:
    """The results for JSON; shares in percent."""
    return {
        "network": result.subject.name,
        "spec": result.subject.spec.canonical(),
        "weights": result.subject.about,
        "stimuli": str(result.folder),
        "resolution": result.side,
        **_values(result.whole),
        "class_mean_pct": result.class_mean_pct,
        "labels": result.labels,
        "notes": list(result.notes),
        "environment": None if result.computed_by is None else result.computed_by.values(),
        "classes": {name: _values(decisions) for name, decisions in result.classes.items()},
        "left_out": {
            "misnamed": len(result.stimuli.misnamed),
            "without_conflict": result.stimuli.agreeing,
            "unreadable": result.unreadable,
        },
        "published": [row._asdict() for row in SHAPE_BIAS],
    }


def left_out_words(result: "CueConflictResult") -> Iterator[str]:
    """The images of the folder that were not counted, a line per reason."""
    misnamed = result.stimuli.misnamed
    if misnamed:
        named = f"not named like cat1-bicycle3.png (the first is {printable(misnamed[0].name)})"
        yield f"{plural(len(misnamed), 'image')} {named}"
    if result.stimuli.agreeing:
        yield f"{plural(result.stimuli.agreeing, 'image')} with shape and texture of the same class"
    if result.unreadable:
        yield f"{plural(result.unreadable, 'image')} that cannot be read"


def _table(result: "CueConflictResult") -> Table:
    table = plain_table(("class of the shape",), ("images", "shape", "texture", "shape bias (95 %)"))
    for name, decisions in result.classes.items():
        table.add_row(name, *_cells(decisions), style="" if decisions.total else "dim")
    table.add_row("all", *_cells(result.whole), style="bold")
    mean = result.class_mean_pct
    classes = sum(decisions.total > 0 for decisions in result.classes.values())
    table.add_row(f"mean of {classes} classes", "", "", "", DASH if mean is None else f"{mean:.1f} %")
    return table


def _published(result: "CueConflictResult") -> Table:
    table = plain_table((SHAPE_BIAS_SOURCE,), ("all", "mean of 16 classes"))
    for row in SHAPE_BIAS:
        name = f"{row.network}, {row.training}" if row.training else row.network
        table.add_row(name, f"{100 * row.share:.1f} %", f"{100 * row.class_mean:.1f} %")
    mean = result.class_mean_pct
    share = result.whole.share_pct
    cells = (DASH if value is None else f"{value:.1f} %" for value in (share, mean))
    table.add_row(result.subject.name, *cells, style="bold")
    return table


def _cells(decisions: "Decisions") -> tuple[str, ...]:
    return (
        str(decisions.images),
        str(decisions.shape),
        str(decisions.cue),
        format_share(decisions.shape, decisions.total),
    )


def _values(decisions: "Decisions") -> dict[str, Any]:
    interval = interval_pct(decisions.shape, decisions.total)
    return {
        "images": decisions.images,
        "shape_decisions": decisions.shape,
        "cue_decisions": decisions.cue,
        "shape_bias_pct": decisions.share_pct,
        "interval_pct": None if interval is None else list(interval),
    }
