"""A training for segmentation or detection: what it begins from, its metrics by class, and how it ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import DASH, amount, counted, listed
from harness.data.batching import Pace
from harness.data.expected_images import Expected
from harness.models.cost import network_cost
from harness.report.console import plain_table
from harness.report.full_scale import SHOWN, arithmetic_text, facts_view, network_text, place_rows, steps_text
from harness.training.full_scale.job import FullJob

UNMERGED = (
    "trained un-merged and merged last, as RepLKNet's author advises: batch norms and small kernels go on learning, "
    "and merging changes no prediction"
)
SIDE = 224
"""Of the images that a network is priced for; its parameters do not depend on it."""
IOU, ACCURACY = "iou_", "accuracy_"
"""Before the name of a class, in the name of a figure."""
NAMED = 5
"""Classes that a note names."""
MEANS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "small", "ap_medium": "medium", "ap_large": "large"}
"""Names of figures, and how tables have them; the last three by the size of the figure."""
KINDS = {"": "boxes", "mask_": "masks"}
"""What precision is of, by what stands before the names of its figures."""


def downstream_view(
    job: FullJob[Any], pace: Pace, name: str, start: str, classes: int, expected: Expected | None = None
) -> RenderableType:
    """What is trained, from what and how; `expected` are its images where they have not been read."""
    recipe = job.run.recipe
    rows = {
        "network": network_text(job.run.spec),
        "begins from": start,
        "form": UNMERGED,
        "recipe": recipe.about,
        "cost": f"{amount(network_cost(job.run.spec, SIDE, merged=False).params)} parameters in the network, "
        "those of the head come on top",
        "classes": f"{classes:,}",
        "steps": steps_text(recipe, pace, expected),
        "arithmetic": arithmetic_text(recipe),
        **place_rows(job, expected),
    }
    if expected is not None:
        rows["time"] = "not measured: how long a step takes depends on the images"
    return facts_view(name, rows)


def segmentation_view(figures: Mapping[str, float], names: Sequence[str]) -> RenderableType:
    """Intersection over union and accuracy by class, and their means."""
    table = plain_table()
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    table.add_column("accuracy %", justify="right")
    for name in names:
        table.add_row(name, _percent(figures.get(f"{IOU}{name}")), _percent(figures.get(f"{ACCURACY}{name}")))
    counted_in = sum(f"{IOU}{name}" in figures for name in names)
    over = "" if counted_in == len(names) else f" over {counted_in} of {len(names)} classes"
    means = Text(
        f"mIoU {figures['miou']:.2f}{over}  pixel accuracy {figures['pixel_accuracy']:.2f}  "
        f"mean accuracy {figures['mean_accuracy']:.2f}",
        style="bold",
    )
    return Group(table, Text(), means, *_notes(figures, names))


def _notes(figures: Mapping[str, float], names: Sequence[str]) -> list[Text]:
    """What is to be said of classes that are nowhere."""
    absent = [name for name in names if f"{IOU}{name}" not in figures]
    wrong = [name for name in names if f"{IOU}{name}" in figures and f"{ACCURACY}{name}" not in figures]
    notes = []
    if absent:
        which = f"{len(absent)} classes occur" if len(absent) > 1 else "1 class occurs"
        said = "neither in the masks nor in what is predicted, and count not in mIoU"
        notes.append(Text(f"{which} {said}: {_some(absent)}"))
    if wrong:
        which = f"{len(wrong)} classes are" if len(wrong) > 1 else "1 class is"
        notes.append(Text(f"{which} predicted and in no mask, and count in mIoU as 0: {_some(wrong)}"))
    return notes


def _some(names: Sequence[str]) -> str:
    return listed(names) if len(names) <= NAMED else f"{', '.join(names[:NAMED])}, ..."


def ending_lines(apart: Mapping[str, float], maps_apart: float | None, unreadable: int, images: int) -> list[str]:
    """How far the merged form is off, and what was not seen."""
    lines = []
    if maps_apart is not None:
        farthest = max(apart, key=lambda name: abs(apart[name]), default=None)
        at = "" if farthest is None else f"; of all figures {SHOWN.get(farthest, farthest)} is farthest off, by "
        by = "" if farthest is None else f"{apart[farthest]:+.2g}"
        lines.append(
            f"judged in merged form: its maps are off from those that were trained by {maps_apart:.1e}{at}{by}"
        )
    left_out = f"; {counted(unreadable, 'unreadable image')} left out" if unreadable else ""
    lines.append(f"on {counted(images, 'validation image')}{left_out}")
    return lines


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"


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
