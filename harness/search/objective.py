"""The number that a run is judged by: from its curve, from what was measured on it, or from its spec alone."""

from harness.cost import network_cost
from harness.run import Epoch, Run
from harness.store import Store
from harness.study.model import CURVES

COSTS = ("params", "macs")
"""Objectives that follow from the spec: of the merged network, at the recipe's resolution."""


def curve_value(metric: str, epoch: Epoch) -> float | None:
    """The objective after an epoch, where it is one that every epoch has."""
    return getattr(epoch, metric) if metric in CURVES else None


def final_value(metric: str, run: Run, store: Store) -> float | None:
    """The objective of a complete run: of its last epoch, never of its best; None where nobody measured it."""
    if metric in CURVES:
        epochs = store.epochs(run.id)
        return curve_value(metric, epochs[-1]) if epochs else None
    if metric in COSTS:
        return float(getattr(network_cost(run.spec, run.recipe.resolution), metric))
    return store.measures(run.id).get(metric)
