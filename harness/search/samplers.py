"""Optuna's samplers and pruners, under the names that a study file uses.

Optuna is imported inside the functions: the results of a finished study are shown without it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.config.study import HALVING_FACTOR, first_rung

if TYPE_CHECKING:
    import optuna

SCREENING_SEEDS = 1_000_000
"""Offset of the screening runs' seed from the study's first seed, far from all seeds that are in a mean."""


def seed_text(seed: int) -> str:
    """The seed of a run as text: `seed 3`, or `screening run`."""
    return "screening run" if seed >= SCREENING_SEEDS else f"seed {seed}"


def _random(seed: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _tpe(seed: int) -> "optuna.samplers.BaseSampler":
    from harness.search.tpe import IncrementalTPESampler

    return IncrementalTPESampler(seed)


SAMPLERS: dict[str, Callable[[int], "optuna.samplers.BaseSampler"]] = {
    "grid": _random,  # every configuration is enqueued, so nothing is left to sample
    "random": _random,
    "tpe": _tpe,
}


def _none(_: int) -> "optuna.pruners.BasePruner":
    from optuna.pruners import NopPruner

    return NopPruner()


def _successive_halving(epochs: int) -> "optuna.pruners.BasePruner":
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=first_rung(epochs), reduction_factor=HALVING_FACTOR)


def _hyperband(epochs: int) -> "optuna.pruners.BasePruner":
    from optuna.pruners import HyperbandPruner

    return HyperbandPruner(
        min_resource=max(1, epochs // HALVING_FACTOR**2), max_resource=epochs, reduction_factor=HALVING_FACTOR
    )


def _median(epochs: int) -> "optuna.pruners.BasePruner":
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=3, n_warmup_steps=first_rung(epochs) - 1)


PRUNERS: dict[str, Callable[[int], "optuna.pruners.BasePruner"]] = {
    "none": _none,
    "successive_halving": _successive_halving,
    "hyperband": _hyperband,
    "median": _median,
}


def build_sampler(name: str, seed: int, trials_so_far: int) -> "optuna.samplers.BaseSampler":
    """The sampler, seeded by the study's seed and number of trials; with the seed alone, a resumed one would repeat."""
    return SAMPLERS[name]((seed * 1_000_003 + trials_so_far) % 2**32)


def build_pruner(name: str, epochs: int) -> "optuna.pruners.BasePruner":
    """The pruner, with its rungs in epochs; it never decides before a third of the epochs (hyperband: a ninth)."""
    return PRUNERS[name](epochs)
