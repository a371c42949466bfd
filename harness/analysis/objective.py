"""The value of a metric or an objective for a run: from its curve, from its measured metrics, or from its spec."""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence

from harness.config.formula import Formula
from harness.config.study import CURVES
from harness.models.cost import network_cost
from harness.training.run import Epoch, Run, missing_epochs

COST_OBJECTIVES = ("params", "macs")
"""Objectives that are computed from the spec: for the merged network, at the recipe's resolution."""
LATENCY = "latency_ms_p50"
LATENCY_BOUND = "latency_ms_high"
"""Upper end of the median's 95 % interval; budgets and objectives use it, so that noise is no advantage."""
TIME_PREFIXES = ("latency_", "throughput_")
"""Name prefixes of metrics that runs of equal networks share; see `measures.speed`."""


def compares_times(metrics: Iterable[str]) -> bool:
    """Whether an objective or a claim compares times: one measurement for all seeds would have no spread."""
    return any(name.startswith(TIME_PREFIXES) for metric in metrics for name in Formula(metric).names)


def curve_value(metric: str, epoch: Epoch) -> float | None:
    """The metric after an epoch; None if epochs do not have it."""
    return getattr(epoch, metric) if metric in CURVES else None


def final_value(metric: str, run: Run, curve: Sequence[Epoch], measures: Mapping[str, float]) -> float | None:
    """The metric of a complete run: of its last epoch, never of its best; None if it was not measured.

    None also for a curve that lacks an epoch: its last epoch may not be the last one of the recipe.
    """
    if metric in CURVES:
        is_whole = not missing_epochs((epoch.epoch for epoch in curve), run.recipe.epochs)
        return curve_value(metric, curve[-1]) if curve and is_whole else None
    if metric in COST_OBJECTIVES:
        return float(getattr(network_cost(run.spec, run.recipe.resolution), metric))
    return measures.get(metric)


def objective_value(metric: str, run: Run, curve: Sequence[Epoch], measures: Mapping[str, float]) -> float | None:
    """The value by which a complete run is ranked: its `final_value`, but a latency's upper bound if it has one."""
    if metric == LATENCY and LATENCY_BOUND in measures:
        return measures[LATENCY_BOUND]
    return final_value(metric, run, curve, measures)


def spread_of(values: Collection[float]) -> float | None:
    """Standard deviation over the seeds (n - 1); None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def formula_value(formula: Formula, run: Run, curve: Sequence[Epoch], measures: Mapping[str, float]) -> float | None:
    """The value of a claim's formula for a complete run."""
    return formula.value(lambda name: final_value(name, run, curve, measures))
