"""Optuna's samplers and pruners, under the names that a study file uses.

Optuna is imported inside the functions: the results of a finished study are shown without it.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config.census import take_census
from harness.config.sampler_plugin import SamplerPlugin
from harness.config.search_methods import POPULATION, cmaes_population
from harness.config.space import Space
from harness.config.study import HALVING_FACTOR, MEDIAN_STARTUP_TRIALS, Search, first_rung
from harness.search.trial import recorded_params, stored_params

if TYPE_CHECKING:
    import optuna

SCREENING_SEEDS = 1_000_000
"""Offset of the screening runs' seed from the study's first seed, far from all seeds that are in a mean."""


def seed_text(seed: int) -> str:
    """The seed of a run as text: `seed 3`, or `screening run`."""
    return "screening run" if seed >= SCREENING_SEEDS else f"seed {seed}"


@dataclass(frozen=True, slots=True)
class SamplerRequest:
    """What a sampler is built from."""

    search: Search
    space: Space
    plugin: SamplerPlugin | None
    seed: int
    """Follows from the study's seed and its number of trials; with the former alone, a resumed study would repeat."""


def _random(request: SamplerRequest) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=request.seed)


def _qmc(request: SamplerRequest, sequence: str = "sobol") -> "optuna.samplers.BaseSampler":
    """A scrambled sequence. The study's attributes count its points, so that a resumed study continues it."""
    from optuna.samplers import QMCSampler, RandomSampler

    sampler = _quietly(
        lambda: QMCSampler(
            qmc_type=sequence,
            scramble=True,
            seed=request.search.seed,
            independent_sampler=RandomSampler(seed=request.seed),
            warn_independent_sampling=False,
        )
    )
    return _presented(request, sampler, is_complete=True)


def _tpe(request: SamplerRequest) -> "optuna.samplers.BaseSampler":
    from harness.search.tpe import IncrementalTPESampler

    return _presented(request, IncrementalTPESampler(request.seed))


def _gp(request: SamplerRequest) -> "optuna.samplers.BaseSampler":
    from harness.search.gp import FeasibleGPSampler
    from harness.search.presentation import present_axis

    axes = {name: present_axis(axis) for name, axis in request.space.axes.items()}

    def is_feasible(params: dict[str, Any]) -> bool:
        decoded = {name: axes[name].decode(value) for name, value in params.items()}
        choose = recorded_params(decoded)
        return request.space.sample(
            lambda name, axis: choose(name, axis) if name in decoded else axis.at(0)
        ).is_feasible

    def known() -> list[dict[str, Any]]:
        chosen = (stored_params(network.params, request.space.axes) for network in take_census(request.space).feasible)
        return [
            {name: axis.encode(params[name]) if name in params else axis.middle for name, axis in axes.items()}
            for params in chosen
        ]

    sampler = FeasibleGPSampler(request.seed, is_feasible, known)
    return _presented(request, sampler, is_complete=True, constraints="aligned")


def _nsga2(request: SamplerRequest) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import NSGAIISampler

    sampler = NSGAIISampler(population_size=POPULATION, seed=request.seed)
    return _presented(request, sampler, is_complete=True)


def _cmaes(request: SamplerRequest) -> "optuna.samplers.BaseSampler":
    """CMA-ES with margin (Hamano et al. 2022), which keeps a steep axis from being fixed at one of its steps."""
    from optuna.samplers import CmaEsSampler, RandomSampler

    sampler = _quietly(
        lambda: CmaEsSampler(
            seed=request.seed,
            n_startup_trials=0,
            independent_sampler=RandomSampler(seed=request.seed),
            warn_independent_sampling=False,
            popsize=cmaes_population(request.space.axes.values()),
            with_margin=True,
        )
    )
    return _presented(request, sampler, is_complete=True, orders_pairs=True, ends_trials=False)


def _plugin(request: SamplerRequest) -> "optuna.samplers.BaseSampler":
    from harness.search.plugin import build_plugin

    assert request.plugin is not None, "the study's sampler is a plug-in"
    return _presented(request, build_plugin(request.plugin, request.seed))


SAMPLERS: dict[str, Callable[[SamplerRequest], "optuna.samplers.BaseSampler"]] = {
    "grid": _random,  # every configuration is enqueued, so nothing is left to sample
    "random": _random,
    "qmc": _qmc,
    "tpe": _tpe,
    "gp": _gp,
    "nsga2": _nsga2,
    "cmaes": _cmaes,
}


def _presented(
    request: SamplerRequest, sampler: "optuna.samplers.BaseSampler", **presentation: Any
) -> "optuna.samplers.BaseSampler":
    """The sampler, which sees the study in this presentation."""
    from harness.search.presentation import Presentation, PresentedSampler

    hides_last = request.search.deterministic
    return PresentedSampler(sampler, request.space.axes, Presentation(hides_last=hides_last, **presentation))


def _quietly(build: Callable[[], "optuna.samplers.BaseSampler"]) -> "optuna.samplers.BaseSampler":
    """Build a sampler without Optuna's warning that it, or an argument, is experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return build()


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

    return MedianPruner(n_startup_trials=MEDIAN_STARTUP_TRIALS, n_warmup_steps=first_rung(epochs) - 1)


PRUNERS: dict[str, Callable[[int], "optuna.pruners.BasePruner"]] = {
    "none": _none,
    "successive_halving": _successive_halving,
    "hyperband": _hyperband,
    "asha": _none,  # the driver pauses and promotes: `harness.search.promotion`
    "median": _median,
    "wilcoxon": _none,  # it decides on seeds, not on epochs: `harness.search.wilcoxon`
}


def build_sampler(
    search: Search, space: Space, trials_so_far: int, plugin: SamplerPlugin | None = None
) -> "optuna.samplers.BaseSampler":
    """The sampler of a study whose space this is, and which has this number of trials.

    Raises `StudyError` for a plug-in that is no sampler, or whose code fails.
    """
    request = SamplerRequest(search, space, plugin, (search.seed * 1_000_003 + trials_so_far) % 2**32)
    return _plugin(request) if plugin is not None else SAMPLERS[search.sampler](request)


def build_pruner(name: str, epochs: int) -> "optuna.pruners.BasePruner":
    """The pruner, with its rungs in epochs; it never decides before a third of the epochs (hyperband: a ninth)."""
    return PRUNERS[name](epochs)


def pruner_of(search: Search, epochs: int) -> "optuna.pruners.BasePruner":
    """The pruner of a study, which compares a trial with those that it may use."""
    pruner = build_pruner(search.pruner, epochs)
    if not search.deterministic:
        return pruner
    from harness.search.lag import LaggedPruner

    return LaggedPruner(pruner)
