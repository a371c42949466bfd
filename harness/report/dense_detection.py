"""What a detector finds, in words: average precision of boxes and of masks, over all, by size and by class."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import DASH
from harness.report.console import plain_table

MEANS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "small", "ap_medium": "medium", "ap_large": "large"}
"""Names of figures, and how tables have them; the last three by the size of the figure."""
KINDS = {"": "boxes", "mask_": "masks"}
"""What precision is of, by what stands before the names of its figures."""


def detection_view(figures: Mapping[str, float], names: Sequence[str]) -> RenderableType:
    """Average precision in percent, as COCO counts it."""
    kinds = {prefix: kind for prefix, kind in KINDS.items() if f"{prefix}ap" in figures}
    by_class = plain_table()
    by_class.add_column("class")
    means = plain_table()
    means.add_column("of")
    for kind in kinds.values():
        by_class.add_column(f"AP of {kind} %", justify="right")
    for heading in MEANS.values():
        means.add_column(f"{heading} %", justify="right")
    for name in names:
        by_class.add_row(name, *(_percent(figures.get(f"{prefix}ap_{name}")) for prefix in kinds))
    for prefix, kind in kinds.items():
        means.add_row(kind, *(_percent(figures.get(f"{prefix}{name}")) for name in MEANS))
    return Group(by_class, Text(), means)


def _percent(share: float | None) -> str:
    """Of what the images have; a dash of what they don't."""
    return DASH if share is None else f"{share:.2f}"
