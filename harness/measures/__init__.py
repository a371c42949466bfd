"""Measures of a trained network, in two tables; a measure yields (name, value), independently of the training loop."""

from collections.abc import Iterator

from harness.config.measures import MEASURES
from harness.config.recipes.proxy import ProxyRecipe
from harness.measures import brier_score, merge_error, receptive_field, shape_bias, speed, zero_cost
from harness.measures.base import Measure

ALWAYS_MEASURES: dict[str, Measure] = {
    "latency": speed.latency,
    "peak_memory": speed.peak_memory,
}
"""Taken of every run, before the others: the peak of memory is that of the training."""

ON_DEMAND_MEASURES: dict[str, Measure] = {
    "brier_score": brier_score.brier_score,
    "erf": receptive_field.erf,
    "merge_error": merge_error.merge_error,
    "shape_bias": shape_bias.shape_bias,
    "throughput": speed.throughput,
    "train_step": speed.train_step,
    "zero_cost": zero_cost.zero_cost,
}
"""Taken if the recipe lists them under `measures`; `harness.config.measures.MEASURES` has a row for each."""

MACHINE_MEASURES = ("latency", "peak_memory", *(name for name, row in MEASURES.items() if row.is_of_machine))
"""Measures that yield times, throughput or memory; `config.measures.is_of_machine` is true for their metrics."""
INITIAL_MEASURES = ("zero_cost",)
"""Measures of the initial weights, taken before the training; all others are taken after it."""
TRAINING_MEASURES = ("peak_memory",)
"""Measures that are available only at the end of a training, and cannot be measured again on its weights."""


def measures_of(recipe: ProxyRecipe) -> Iterator[Measure]:
    """The measures of a trained run, in the order of the tables."""
    yield from ALWAYS_MEASURES.values()
    names = (name for name in ON_DEMAND_MEASURES if name in recipe.measures and name not in INITIAL_MEASURES)
    yield from (ON_DEMAND_MEASURES[name] for name in names)


def initial_measures_of(recipe: ProxyRecipe) -> Iterator[Measure]:
    """The measures of a run before its training."""
    yield from (ON_DEMAND_MEASURES[name] for name in INITIAL_MEASURES if name in recipe.measures)


def machine_measures_of(recipe: ProxyRecipe) -> Iterator[Measure]:
    """The measures of a run that describe the machine and can be measured again on stored weights."""
    names = [name for name in MACHINE_MEASURES if name not in TRAINING_MEASURES]
    yield from (ALWAYS_MEASURES[name] for name in names if name in ALWAYS_MEASURES)
    yield from (ON_DEMAND_MEASURES[name] for name in names if name in recipe.measures)
