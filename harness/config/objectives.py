"""Several objectives in a study: what cannot be combined with them, and which of them are known before a run ends."""

from collections.abc import Iterator

from harness.config.measures import COST_METRICS
from harness.config.problems import Problem
from harness.config.search_methods import SamplerTraits
from harness.config.study import CURVES, Study

PARETO_PRUNERS = ("none", "successive_halving")
"""Pruners of a study with several objectives."""


def known_objectives(study: Study) -> tuple[str, ...]:
    """The objectives that are known while a run is trained, in the order of the file: curves and costs."""
    return tuple(name for name in study.objectives if name in CURVES or name in COST_METRICS)


def several_objectives_problems(study: Study, traits: SamplerTraits) -> Iterator[Problem]:
    """What a study with several objectives cannot have, each with its key, rule, value and remedy."""
    search, n = study.search, len(study.objectives)
    if not traits.takes_several_objectives:
        yield (
            ("objectives",),
            f"`objectives` must hold one objective for the sampler {search.sampler}",
            n,
            "Put the others into `budgets`, or search with tpe, gp or nsga2.",
        )
    if search.pruner not in PARETO_PRUNERS:
        yield (
            ("search", "pruner"),
            f"`search.pruner` must be {' or '.join(PARETO_PRUNERS)} for {n} objectives: the others compare one value",
            search.pruner,
            "Write `pruner: successive_halving`, which decides by Pareto rank, or keep one objective.",
        )
    for name, value in (("racing", search.racing), ("plateau", search.plateau)):
        if value is not None:
            yield (
                ("search", name),
                f"`search.{name}` must be left out for {n} objectives, since it is about the best value of one",
                None,
                "Leave it out, or keep one objective and put the others into `budgets`.",
            )
