"""The metrics that runs yield, the measures that a recipe can request, and the keys that request them.

The functions that measure need torch; these tables do not, so that a study is checked, planned and shown without it. A
test compares the two. `{class}` in a metric is a placeholder for the name of a class. Some metrics describe the machine
and not the network: times, throughput and memory.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from harness.config.recipes.proxy import ProxyRecipe

MEASURED_CALLS = 5
"""Estimated number of calls of a time measure: two for warm-up, and three or more."""
PASSES = 3
"""Cost of a training step in forward passes: the backward pass costs twice the forward pass."""

MeasureName = Literal[
    "brier_score",
    "erf",
    "merge_error",
    "shape_bias",
    "throughput",
    "train_step",
    "zero_cost",
]
"""The keys of `MEASURES`, as a recipe's `measures` accepts them."""
ZERO_COST: MeasureName = "zero_cost"
ScoreName = Literal["synflow", "grad_norm", "naswot", "receptive_field"]
"""The keys of `SCORES`, as `search.first_rung` accepts them."""
SCORES: dict[ScoreName, str] = {
    "synflow": "synflow_log10",
    "grad_norm": "grad_norm",
    "naswot": "naswot_logdet",
    "receptive_field": "receptive_field_px",
}
"""The metrics of the measure `zero_cost`, by score; see `harness.measures.zero_cost.SCORE_FUNCTIONS`."""
SCORE_METRICS = tuple(SCORES.values())
CellFormat = Literal["mean", "percent", "largest_error", "most_bytes", "are_finite"]
"""How the values of a configuration's runs are written in a cell; see `harness.report.configurations`."""


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """One metric of a measure as a column of tables."""

    name: str
    """Name of the metric in runs."""
    heading: str
    format: CellFormat
    is_by_batch: bool = False
    """Whether runs append the batch size to the name."""
    disturbed: str | None = None
    """Name of the metric that marks a disturbed measurement; the cell then starts with `~`, as for a latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRow:
    """What is known of a measure without taking it."""

    metrics: tuple[str, ...]
    """Names of all metrics that it can yield; `{class}` is a placeholder for the name of a class."""
    columns: tuple[MetricColumn, ...]
    """The metrics for comparing networks; all others are in the JSON and in `harness show STUDY TRIAL`."""
    images: Callable[["ProxyRecipe", int], int]
    """(recipe, number of validation images) -> images that it passes through the network on a CPU; a gradient counts
    as two more."""
    is_of_machine: bool = False
    """Whether it yields times, throughput or memory, which are measured again in another environment."""


def _enlarged_images(recipe: "ProxyRecipe", val: int) -> int:
    """Images of the receptive field count by their pixels: their side is four times as long, up to 1024."""
    side = recipe.resolution
    return round(min(32, val or 32) * (1 + 2 * 2) * (max(side, min(4 * side, 1024)) / side) ** 2)


MEASURES: dict[str, MeasureRow] = {
    "throughput": MeasureRow(
        metrics=("throughput_images_per_s_batch32", "throughput_images_per_s_batch128", "throughput_disturbed"),
        columns=(
            MetricColumn(
                "throughput_images_per_s_batch", "images/s", "mean", is_by_batch=True, disturbed="throughput_disturbed"
            ),
        ),
        images=lambda recipe, val: 32 * MEASURED_CALLS,  # noqa: ARG005 (the table's signature)
        is_of_machine=True,
    ),
    "merge_error": MeasureRow(
        metrics=("merge_error_max_abs", "merge_error_relative"),
        columns=(MetricColumn("merge_error_relative", "merge\nerror", "largest_error"),),
        images=lambda recipe, val: 4 * 3 * 2,  # noqa: ARG005 (4 images, 3 passes, each in float64)
    ),
    "train_step": MeasureRow(
        metrics=(
            "train_step_s",
            "train_step_images_per_s",
            "train_step_peak_bytes",
            "train_step_gradients_finite",
            "train_step_disturbed",
        ),
        columns=(
            MetricColumn("train_step_s", "step\ns", "mean", disturbed="train_step_disturbed"),
            MetricColumn("train_step_peak_bytes", "step\nmemory", "most_bytes"),
            MetricColumn("train_step_gradients_finite", "step\ngradients", "are_finite"),
        ),
        images=lambda recipe, val: recipe.batch_size * PASSES * (MEASURED_CALLS + 1),  # noqa: ARG005
        is_of_machine=True,
    ),
    "erf": MeasureRow(
        metrics=tuple(f"erf_{name}_r{t}_pct" for name in ("raw", "log") for t in (20, 30, 50, 99)),
        columns=(
            MetricColumn("erf_log_r20_pct", "ERF %\nt=20", "percent"),
            MetricColumn("erf_log_r30_pct", "30", "percent"),
            MetricColumn("erf_log_r50_pct", "50", "percent"),
            MetricColumn("erf_log_r99_pct", "99", "percent"),
        ),
        images=_enlarged_images,
    ),
    "shape_bias": MeasureRow(
        metrics=("shape_decisions", "cue_decisions", "shape_bias_pct", "shape_bias_pct_{class}"),
        columns=(MetricColumn("shape_bias_pct", "shape\nbias %", "percent"),),
        images=lambda recipe, val: val,  # noqa: ARG005
    ),
    "brier_score": MeasureRow(
        metrics=("brier_score",),
        columns=(MetricColumn("brier_score", "Brier\nscore", "mean"),),
        images=lambda recipe, val: val,  # noqa: ARG005
    ),
    ZERO_COST: MeasureRow(
        metrics=SCORE_METRICS,
        columns=(
            MetricColumn("synflow_log10", "synflow\nlog10", "mean"),
            MetricColumn("grad_norm", "gradient\nnorm", "mean"),
            MetricColumn("naswot_logdet", "NASWOT\nlog det", "mean"),
            MetricColumn("receptive_field_px", "field\npx", "mean"),
        ),
        images=lambda recipe, val: 32 * (PASSES + 1) + 2 * PASSES,  # noqa: ARG005 (one image in float64)
    ),
}
"""The measures that a recipe can name, in the order of their columns; see `harness.measures.ON_DEMAND_MEASURES`."""

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
OF_NETWORK = (
    *("ap", "box_ap", "brier", "cue", "erf", "grad_norm", "iou", "merge_error", "miou", "naswot", "receptive_field"),
    *("shape", "synflow", "train_step_gradients"),
)
"""First words of metrics that describe the machine, and of those that do not; a class name may follow them."""
MACHINE_UNITS = re.compile(r"(?:^|_)(?:ns|us|ms|s|min|h|bytes|[kmg]i?b|per_s|fps|hz|j|joules?|watts?|w)(?:_|$)")
"""Units of time, throughput, memory and energy in a metric's name, which classify every other metric."""


@dataclass(frozen=True, slots=True)
class MetricSource:
    """Metrics that one source yields, and the key that requests it."""

    names: tuple[str, ...]
    needs: str | None
    """The key that a study file lacks for these metrics; None if the recipe yields them already."""


def metrics_of(recipe: "ProxyRecipe", *, device: str | None = None) -> tuple[str, ...]:
    """The metrics that runs of this recipe yield on a device, `cpu` or `cuda`; with None, on either of them."""
    names = (name for source in sources(recipe) if source.needs is None for name in source.names)
    absent = {"cpu": ON_GPU, "cuda": ON_CPU}.get(device or "", ())
    return tuple(dict.fromkeys(name for name in names if name not in absent))


def sources(recipe: "ProxyRecipe") -> Iterator[MetricSource]:
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
