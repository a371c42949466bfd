"""The importance of each axis as Optuna computes it, for comparison with effects.

PED-ANOVA (Watanabe, Bansal & Hutter 2023, IJCAI) compares the distribution of an axis' values among the best tenth of
all configurations with that among all of them: it states which axes decide who is among the best, not by how much, and
its values depend on which configurations the sampler chose.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.config.formula import Formula
from harness.config.measures import COST_METRICS, is_of_machine
from harness.config.study import Study
from harness.config.study_checks import DIRECTIONS

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Direction = Literal["maximize", "minimize"]
LEAST_TRIALS = 20
"""Smallest number of configurations, of which a tenth are the best."""


@dataclass(frozen=True, slots=True)
class Importances:
    """The importance of each axis."""

    evaluator: str
    direction: Direction
    shares: Mapping[str, float]
    """By axis; they sum to 1."""


def direction_of(metric: str, study: Study) -> Direction:
    """Whether the largest or the smallest values of a metric are the best; costs, times and losses are minimized."""
    if metric in study.objectives:
        return study.objectives[metric]
    if metric in DIRECTIONS:
        return "maximize" if DIRECTIONS[metric] == "maximize" else "minimize"
    is_cost = all(name in COST_METRICS or is_of_machine(name) for name in Formula(metric).names)
    return "minimize" if is_cost and not metric.startswith("throughput") else "maximize"


def importances(
    study: Study, trials: Sequence["FrozenTrial"], values: Mapping[int, float], metric: str
) -> Importances | None:
    """The importance of each axis for these values, by trial; None for too few, and if all are equal."""
    if len(values) < LEAST_TRIALS or len(set(values.values())) < 2:
        return None
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    direction = direction_of(metric, study)
    known = [trial for trial in trials if trial.number in values]
    names = [name for name in study.axes if len({str(trial.params.get(name)) for trial in known}) > 1]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy = optuna.create_study(direction=direction)
            for trial in known:
                kept = {name: trial.params[name] for name in names if name in trial.params}
                distributions = {name: trial.distributions[name] for name in kept}
                value = values[trial.number]
                copy.add_trial(optuna.trial.create_trial(params=kept, distributions=distributions, value=value))
            shares = get_param_importances(copy, evaluator=PedAnovaImportanceEvaluator())
    finally:
        optuna.logging.set_verbosity(verbosity)
    return Importances(f"PED-ANOVA, Optuna {optuna.__version__}", direction, shares)
