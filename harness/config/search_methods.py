"""What each sampler can take; `harness.config.sampler_checks` refuses the rest when a study file is read.

Optuna is not imported here; `harness.search.samplers` builds the samplers of this table.
"""

import math
from collections.abc import Iterable, Sized
from dataclasses import dataclass

GP_RANDOM_TRIALS = 10
"""Number of complete trials after which the first Gaussian process is fitted."""
MAX_GP_TRIALS = 500
"""A fit takes time that grows with the cube of the trials: 1.2 s a proposal at 500, on one thread (10 axes, n = 3)."""
MAX_GP_VALUES = 10_000
"""Longest axis of a Gaussian process, whose acquisition function is computed for the values of an axis at once."""
MOST_CMAES = 15
"""Maximum number of networks of a generation of CMA-ES."""
POPULATION = 20
"""Networks of a generation of NSGA-II; with Optuna's 50, most studies would end in the first, random generation."""


WILCOXON_P = 0.1
"""The pruner wilcoxon gives a configuration up if the p value of its comparison with the best one is below this."""
WILCOXON_SEEDS = 4
"""Fewest shared seeds with a p value below `WILCOXON_P`: with four, the least is 1/16; with three, 1/8."""

PRIOR_SHARE = 0.5
"""Share of the first trials that is drawn from the prior of the axes."""
PRIOR_TRIALS = {"random": math.inf, "tpe": 10.0}
"""By sampler that takes a prior: the number of trials after which that share decreases, as 1 / trials. For tpe it is
the number of its random trials; random does not learn, so that there is nothing to replace the prior."""

PLATEAU_TRIALS = 20
"""Number of complete configurations from which on `search.plateau` may end a search."""


@dataclass(frozen=True, slots=True)
class SamplerTraits:
    """What a sampler can take; `docs/search.md` has the table for readers."""

    least_trials: int = 1
    """Number of trials below which its model would never propose anything."""
    most_trials: int | None = None
    most_values: int | None = None
    """Maximum number of values of an axis."""
    grows_axes: bool = True
    """Whether a study may get further values of an axis: a distribution that was learned has the values of its time."""
    pruners: tuple[str, ...] | None = None
    """The pruners that it can be combined with; None for all."""
    takes_several_objectives: bool = True
    needs_order: bool = False
    """Whether every axis must have ordered values, or two of them."""
    takes_latency_budget: bool = True
    """Whether it learns from networks that turn out to be over `budgets.latency_ms`."""
    package: str | None = None
    """A package that it needs."""


SAMPLERS: dict[str, SamplerTraits] = {
    "grid": SamplerTraits(),
    "random": SamplerTraits(),
    "qmc": SamplerTraits(),
    "tpe": SamplerTraits(),
    "gp": SamplerTraits(
        least_trials=GP_RANDOM_TRIALS + 1,
        most_trials=MAX_GP_TRIALS,
        most_values=MAX_GP_VALUES,
        pruners=("none", "wilcoxon"),
    ),
    "nsga2": SamplerTraits(least_trials=2 * POPULATION),
    "cmaes": SamplerTraits(
        least_trials=2 * MOST_CMAES,
        takes_several_objectives=False,
        needs_order=True,
        takes_latency_budget=False,
        grows_axes=False,
        package="cmaes",
    ),
}
"""By the name in a study file."""
LEARNS_LATE = {
    "gp": f"which draws {GP_RANDOM_TRIALS} networks at random before it fits a model",
    "nsga2": f"whose first generation of {POPULATION} networks is drawn at random",
    "cmaes": f"which learns after each generation of up to {MOST_CMAES} networks",
}
"""Why a sampler needs several trials, as the end of a sentence."""


def traits_of(sampler: str) -> SamplerTraits:
    """What a sampler can take; a plug-in takes everything, as far as is known here."""
    return SAMPLERS.get(sampler, SamplerTraits())


def trials_from_prior(sampler: str, trials: int) -> float:
    """How many of a study's first `trials` are drawn from the prior of its axes; see `PRIOR_SHARE`."""
    constant = PRIOR_TRIALS.get(sampler, 0.0)
    return PRIOR_SHARE * sum(min(1.0, constant / i) for i in range(1, trials + 1))


def cmaes_population(axes: Iterable[Sized]) -> int:
    """Networks of a generation of CMA-ES: four, and three times the logarithm of the number of axes (Hansen 2016)."""
    varied = sum(len(axis) > 1 for axis in axes)
    return min(MOST_CMAES, 4 + math.floor(3 * math.log(max(1, varied))))
