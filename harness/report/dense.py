"""Views of a training for segmentation or detection: its start, its metrics by class, and its merged evaluation."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import DASH, join_words, plural, si
from harness.data.batching import BatchPlan
from harness.data.image_sources import ExpectedImages
from harness.models.cost import network_cost
from harness.report.console import plain_table
from harness.report.full_scale import (
    SCORE_TITLES,
    network_text,
    properties_view,
    schedule_rows,
)
from harness.training.full_scale.job import FullScaleJob

if TYPE_CHECKING:
    from harness.training.tasks.dense import MergedEvaluation

UNMERGED_NOTE = (
    "trained un-merged and merged last, as RepLKNet's author advises: batch norms and small kernels keep learning, "
    "and merging changes no prediction"
)
SIDE = 224
"""Side of the images for which the cost of a network is computed; its parameters do not depend on it."""
IOU, ACCURACY = "iou_", "accuracy_"
"""Prefixes of metric names, before the name of a class."""
MAX_NAMED = 5
"""Maximum number of classes that a note names."""
AP_TITLES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "small",
    "ap_medium": "medium",
    "ap_large": "large",
}
"""Metric names and their titles in tables; the last three are by the size of the objects."""
AP_SHAPES = {"": "boxes", "mask_": "masks"}
"""Prefixes of metric names, and the outputs to which these metrics refer."""


def downstream_view(
    job: FullScaleJob[Any],
    batch_plan: BatchPlan,
    name: str,
    start: str,
    classes: int,
    expected: ExpectedImages | None = None,
) -> RenderableType:
    """What is trained, from which weights and how; `expected` describes its images if they have not been read."""
    recipe, params = job.run.recipe, network_cost(job.run.spec, SIDE, merged=False).params
    rows = {
        "network": network_text(job.run.spec),
        "starts from": start,
        "form": UNMERGED_NOTE,
        "recipe": recipe.about,
        "cost": f"{si(params)} parameters in the network, plus those of the head",
        "classes": f"{classes:,}",
        **schedule_rows(job, batch_plan, expected),
    }
    if expected is not None:
        rows["time"] = "not measured: how long a step takes depends on the images"
    return properties_view(name, rows)


def segmentation_view(metrics: Mapping[str, float], names: Sequence[str]) -> RenderableType:
    """Intersection over union and accuracy by class, and their means."""
    table = plain_table(("class",), ("IoU %", "accuracy %"), no_wrap=False)
    for name in names:
        table.add_row(name, _percent(metrics.get(f"{IOU}{name}")), _percent(metrics.get(f"{ACCURACY}{name}")))
    counted_in = sum(f"{IOU}{name}" in metrics for name in names)
    over = "" if counted_in == len(names) else f" over {counted_in} of {len(names)} classes"
    means = Text(
        f"mIoU {metrics['miou']:.2f}{over}  pixel accuracy {metrics['pixel_accuracy']:.2f}  "
        f"mean accuracy {metrics['mean_accuracy']:.2f}",
        style="bold",
    )
    return Group(table, Text(), means, *_notes(metrics, names))


def _notes(metrics: Mapping[str, float], names: Sequence[str]) -> list[Text]:
    """Notes on classes that are missing from the masks or the predictions."""
    absent = [name for name in names if f"{IOU}{name}" not in metrics]
    wrong = [name for name in names if f"{IOU}{name}" in metrics and f"{ACCURACY}{name}" not in metrics]
    notes = []
    if absent:
        subject = f"{len(absent)} classes occur" if len(absent) > 1 else "1 class occurs"
        where = "neither in the masks nor in the predictions, and do not count in mIoU"
        notes.append(Text(f"{subject} {where}: {_some(absent)}"))
    if wrong:
        subject = f"{len(wrong)} classes are" if len(wrong) > 1 else "1 class is"
        notes.append(Text(f"{subject} predicted and in no mask, and count in mIoU as 0: {_some(wrong)}"))
    return notes


def _some(names: Sequence[str]) -> str:
    return join_words(names) if len(names) <= MAX_NAMED else f"{', '.join(names[:MAX_NAMED])}, ..."


def merged_evaluation_lines(evaluation: "MergedEvaluation", *, is_compared: bool) -> list[str]:
    """The difference of the merged form from the trained one, if it was compared, and the numbers of images."""
    lines, apart, unreadable = [], evaluation.metric_differences, evaluation.unreadable
    if is_compared:
        farthest = max(apart, key=lambda name: abs(apart[name]), default=None)
        name = "" if farthest is None else SCORE_TITLES.get(farthest, farthest)
        change = "" if farthest is None else f", {name} by {apart[farthest]:+.2g}, the largest change of a metric"
        maps = f"its feature maps differ from the trained ones by {evaluation.feature_difference:.1e}"
        lines.append(f"evaluated in merged form: {maps}{change}")
    left_out = f"; {plural(unreadable, 'unreadable image')} left out" if unreadable else ""
    lines.append(f"on {plural(evaluation.images, 'validation image')}{left_out}")
    return lines


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"


def detection_view(metrics: Mapping[str, float], names: Sequence[str]) -> RenderableType:
    """Average precision by class and its means, in percent, as defined by COCO."""
    kinds = {prefix: kind for prefix, kind in AP_SHAPES.items() if f"{prefix}ap" in metrics}
    by_class = plain_table(("class",), [f"AP of {kind} %" for kind in kinds.values()], no_wrap=False)
    means = plain_table(("of",), [f"{heading} %" for heading in AP_TITLES.values()], no_wrap=False)
    for name in names:
        by_class.add_row(name, *(_percent(metrics.get(f"{prefix}ap_{name}")) for prefix in kinds))
    for prefix, kind in kinds.items():
        means.add_row(kind, *(_percent(metrics.get(f"{prefix}{name}")) for name in AP_TITLES))
    return Group(by_class, Text(), means)
