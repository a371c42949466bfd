"""The number that a run is judged by: from its curve, from what was measured on it, or from its spec alone."""

from collections.abc import Iterable, Mapping, Sequence

from harness.config.expressions import Formula
from harness.config.study import CURVES
from harness.models.cost import network_cost
from harness.training.run import Epoch, Run, missing_epochs

COST_OBJECTIVES = ("params", "macs")
"""Objectives that follow from the spec: of the merged network, at the recipe's resolution."""
LATENCY = "latency_ms_p50"
LATENCY_BOUND = "latency_ms_high"
"""The upper end of the median's 95 % interval: what budgets and objectives decide on, so that noise buys nothing."""


TIME_PREFIXES = ("latency_", "throughput_")
"""How the names of metrics begin that runs of equal networks share; see `measures.timing_cache`."""


def compares_times(metrics: Iterable[str]) -> bool:
    """Whether an objective or a claim is about times: one measurement for all seeds would have no spread."""
    return any(name.startswith(TIME_PREFIXES) for metric in metrics for name in Formula(metric).names)


def curve_value(metric: str, epoch: Epoch) -> float | None:
    """The objective after an epoch, where it is one that every epoch has."""
    return getattr(epoch, metric) if metric in CURVES else None


def final_value(metric: str, run: Run, curve: Sequence[Epoch], measures: Mapping[str, float]) -> float | None:
    """The objective of a complete run: of its last epoch, never of its best; None where it was not measured.

    A curve that lacks an epoch has no value: its last epoch may be another one than the recipe's.
    """
    if metric in CURVES:
        is_whole = not missing_epochs((epoch.epoch for epoch in curve), run.recipe.epochs)
        return curve_value(metric, curve[-1]) if curve and is_whole else None
    if metric in COST_OBJECTIVES:
        return float(getattr(network_cost(run.spec, run.recipe.resolution), metric))
    return measures.get(metric)


def objective_value(metric: str, run: Run, curve: Sequence[Epoch], measures: Mapping[str, float]) -> float | None:
    """What a complete run is ranked by: its `final_value`, but of a latency the upper bound where there is one."""
    if metric == LATENCY and LATENCY_BOUND in measures:
        return measures[LATENCY_BOUND]
    return final_value(metric, run, curve, measures)


def formula_value(formula: Formula, run: Run, curve: Sequence[Epoch], measures: Mapping[str, float]) -> float | None:
    """What a claim compares, of a complete run."""
    return formula.value(lambda name: final_value(name, run, curve, measures))
