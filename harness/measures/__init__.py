"""What is measured of a trained network, in two tables; a measure yields (name, value), and knows no training loop."""

from collections.abc import Iterator

from harness.config.recipes.proxy import Recipe
from harness.measures import memory, merge_error, receptive_field, shape_bias, speed
from harness.measures.base import Measure, Trained

ALWAYS: dict[str, Measure] = {
    "latency": speed.latency,
    "peak_memory": memory.peak_memory,
}
"""Taken of every run, and first: the peak of memory is that of the training."""

ON_DEMAND: dict[str, Measure] = {
    "erf": receptive_field.erf,
    "merge_error": merge_error.merge_error,
    "shape_bias": shape_bias.shape_bias,
    "throughput": speed.throughput,
    "train_step": speed.train_step,
}
"""Taken where the recipe names them under `measures`, which knows the same names."""

OF_MACHINE = ("latency", "peak_memory", "throughput", "train_step")
"""Measures that yield times, throughput or memory: what `harness.config.metrics.is_of_machine` holds for."""
ONLY_IN_TRAINING = ("peak_memory",)
"""Those that are known at the end of a training alone, and cannot be measured again on its weights."""

__all__ = ["ALWAYS", "OF_MACHINE", "ONLY_IN_TRAINING", "ON_DEMAND", "Measure", "Trained", "measures_of", "times_of"]


def measures_of(recipe: Recipe) -> Iterator[Measure]:
    """All that is measured of a run, in the order of the tables."""
    yield from ALWAYS.values()
    yield from (measure for name, measure in ON_DEMAND.items() if name in recipe.measures)


def times_of(recipe: Recipe) -> Iterator[Measure]:
    """Of all that is measured of a run, what describes the machine and can be measured again on stored weights."""
    wanted = [name for name in OF_MACHINE if name not in ONLY_IN_TRAINING]
    yield from (ALWAYS[name] for name in wanted if name in ALWAYS)
    yield from (ON_DEMAND[name] for name in wanted if name in recipe.measures)
