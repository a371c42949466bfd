"""The names of the metrics that a run yields, and the keys of a recipe that request them.

The tables repeat the names that measures and transfers yield, so that a study file can be checked without torch before
anything is trained; a test compares them with every measure. `{class}` is a placeholder for the name of a class. Some
metrics describe the machine and not the network: times, throughput and memory.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.config.measures import MEASURES
from harness.config.recipes.proxy import ProxyRecipe

TRAIN_IMAGES, VAL_IMAGES, CHANCE_TOP1 = "train_images", "val_images", "chance_top1"
"""Metrics that describe the data of a result: training images read from disk, validation images of the last epoch, and
the accuracy on these in percent of the best constant prediction."""


CURVE_METRICS = ("top1", "val_loss")
"""Metrics of every epoch."""
COST_METRICS = ("params", "macs")
"""Metrics that follow from the network."""
ALWAYS_MEASURED = {
    "latency": (
        *("latency_ms_p50", "latency_ms_p90", "latency_ms_low", "latency_ms_high", "latency_ms_n"),
        *("latency_ms_left_out", "latency_ms_disturbed"),
    ),
    "peak_memory": ("peak_memory_bytes", "peak_gpu_memory_bytes"),
}
"""Metrics of every run, by measure; see `harness.measures.ALWAYS_MEASURES`."""
MEASURED_ON_DEMAND = {name: MEASURES[name].metrics for name in sorted(MEASURES)}
"""Metrics by the measure that a recipe can name; see `harness.measures.ON_DEMAND_MEASURES`."""
VALIDATION_METRICS = (VAL_IMAGES, CHANCE_TOP1)
"""Metrics of every run that is trained."""
TRANSFER_METRICS = {
    "masks": ("miou", "chance_miou", "iou_ground", "iou_{class}", "transfer_s"),
    "boxes": ("ap", "ap50", "ap75", "ap_{class}", "transfer_s"),
}
"""Metrics by what a transfer learns; see `harness.training.transfer.TRANSFER_TASKS`."""
ON_GPU = ("peak_gpu_memory_bytes", "throughput_images_per_s_batch128")
ON_CPU = ("throughput_images_per_s_batch32",)
OF_MACHINE = ("latency", "peak", "throughput", "train_step_disturbed")
OF_NETWORK = ("ap", "box_ap", "cue", "erf", "iou", "merge_error", "miou", "shape", "train_step_gradients")
"""First words of metrics that describe the machine, and of those that do not; a class name may follow them."""
MACHINE_UNITS = re.compile(r"(?:^|_)(?:ns|us|ms|s|min|h|bytes|[kmg]i?b|per_s|fps|hz|j|joules?|watts?|w)(?:_|$)")
"""Units of time, throughput, memory and energy in a metric's name, which classify every other metric."""


@dataclass(frozen=True, slots=True)
class MetricSource:
    """Metrics that one source yields, and the key that requests it."""

    names: tuple[str, ...]
    needs: str | None
    """The key that a study file lacks for these metrics; None if the recipe yields them already."""


def metrics_of(recipe: ProxyRecipe, *, device: str | None = None) -> tuple[str, ...]:
    """The metrics that runs of this recipe yield on a device, `cpu` or `cuda`; with None, on either of them."""
    names = (name for source in sources(recipe) if source.needs is None for name in source.names)
    absent = {"cpu": ON_GPU, "cuda": ON_CPU}.get(device or "", ())
    return tuple(dict.fromkeys(name for name in names if name not in absent))


def sources(recipe: ProxyRecipe) -> Iterator[MetricSource]:
    """All metrics, each with the key that this recipe lacks for it, if any."""
    yield MetricSource((*CURVE_METRICS, *VALIDATION_METRICS), None if recipe.epochs else "`proxy.epochs` of at least 1")
    yield MetricSource(COST_METRICS, None)
    yield from (MetricSource(names, None) for names in ALWAYS_MEASURED.values())
    for measure, names in MEASURED_ON_DEMAND.items():
        yield MetricSource(names, None if measure in recipe.measures else f"`measures: [{measure}]` in `proxy`")
    for learns, names in TRANSFER_METRICS.items():
        is_there = recipe.transfer is not None and recipe.transfer.learns == learns
        head = "fcos" if learns == "boxes" else "deeplabv3plus"
        yield MetricSource(names, None if is_there else f"`transfer: {{head: {head}}}` in `proxy`")


def is_among(name: str, names: tuple[str, ...], classes: tuple[str, ...] | None = None) -> bool:
    """Whether a name is one of these; if the classes are not known, any text matches `{class}`."""
    return any(_matches(name, pattern, classes) for pattern in names)


def _matches(name: str, pattern: str, classes: tuple[str, ...] | None) -> bool:
    head, mark, tail = pattern.partition("{class}")
    if not mark:
        return name == pattern
    if classes is None:
        return re.fullmatch(f"{re.escape(head)}.+{re.escape(tail)}", name) is not None
    return name in {f"{head}{class_name}{tail}" for class_name in classes}


def is_of_machine(name: str) -> bool:
    """Whether a metric is a time, a throughput or memory, which is valid only in the environment it was measured in."""
    prefixes = (*OF_MACHINE, *OF_NETWORK)
    first_words = [words for words in prefixes if name == words or name.startswith(f"{words}_")]
    if first_words:
        return max(first_words, key=len) in OF_MACHINE
    return MACHINE_UNITS.search(name) is not None
