"""Refuses, when a study file is read, what the study's sampler and pruner cannot take, not when a proposal fails."""

import importlib.util
import itertools
from collections.abc import Iterator

from harness.config.axes import Axis, Choice, Range, Value
from harness.config.census import SCARCE_SHARE, take_census
from harness.config.objectives import several_objectives_problems
from harness.config.problems import FileErrors, Problem
from harness.config.search_methods import LEARNS_LATE, PRIOR_TRIALS, WILCOXON_SEEDS, SamplerTraits, traits_of
from harness.config.space import BUDGETS, Space
from harness.config.study import Study
from harness.config.yaml_file import Document, quoted
from harness.errors import StudyError


def values_in_order(axis: Axis) -> tuple[Value, ...] | None:
    """The values of an axis in increasing order; None if they have no order.

    Numbers have one, and so have lists of numbers if each is at least the one before it in every stage.
    """
    if isinstance(axis, Range):
        return axis.values
    if all(_is_number(value) for value in axis.values):
        return tuple(sorted(axis.values))  # type: ignore[type-var]
    lists = [value for value in axis.values if isinstance(value, tuple) and all(map(_is_number, value))]
    if len(lists) < len(axis) or len({len(value) for value in lists}) > 1:
        return None
    ordered: list[tuple[float, ...]] = sorted(lists)  # type: ignore[arg-type]
    steps = itertools.pairwise(ordered)
    is_chain = all(low <= high for before, after in steps for low, high in zip(before, after, strict=True))
    return tuple(ordered) if is_chain else None


def check_sampler(study: Study, space: Space, problems: FileErrors) -> None:
    """Report what the study's sampler cannot take."""
    traits = traits_of(study.search.sampler)
    for at, rule, value, remedy in (*_search_problems(study, traits), *_space_problems(study, space, traits)):
        problems.add(at, rule, value=None if value is None else quoted(value), remedy=remedy)


def require_dense(study: Study, space: Space, document: Document) -> None:
    """Raise `StudyError` for a sampler that needs most of its own proposals, in a space where few are feasible."""
    if study.search.sampler != "cmaes" or not (space.rules or space.budgets):
        return
    census = take_census(space)
    if census.is_scarce:
        key = next((("budgets", name) for name in BUDGETS if name in space.budgets), ("rules",))
        raise StudyError(
            f"at least {SCARCE_SHARE:.0%} of the networks must be within rules and budgets for the sampler cmaes, "
            f"which learns only from its own proposals",
            place=document.place(key),
            remedy=f"Here {census.text()}. Narrow the axes, raise the budget, or search with tpe, gp or nsga2.",
        )


def _search_problems(study: Study, traits: SamplerTraits) -> Iterator[Problem]:
    search = study.search
    name, trials, least = search.sampler, search.trials or 0, traits.least_trials
    if trials and trials < least:
        rule = f"`search.trials` must be at least {least} for the sampler {name}, {LEARNS_LATE[name]}"
        yield ("search", "trials"), rule, trials, f"Write `trials: {least}` or more, or search with tpe or random."
    if traits.most_trials is not None and trials > traits.most_trials:
        rule = (
            f"`search.trials` must be at most {traits.most_trials} for the sampler {name}, whose time for a proposal "
            f"grows with the cube of the trials"
        )
        yield ("search", "trials"), rule, trials, f"Write `trials: {traits.most_trials}` or less, or search with tpe."
    if traits.pruners is not None and search.pruner not in traits.pruners:
        rule = f"`search.pruner` must be {' or '.join(traits.pruners)} for the sampler {name}, which learns nothing "
        yield (
            ("search", "pruner"),
            f"{rule}from a network that was given up, and would propose it again",
            search.pruner,
            "Leave the pruner out, or search with tpe.",
        )
    if search.pruner == "wilcoxon" and search.seeds <= WILCOXON_SEEDS:
        rule = (
            f"`search.seeds` must be at least {WILCOXON_SEEDS + 1} for the pruner wilcoxon, which cannot decide on "
            f"fewer than {WILCOXON_SEEDS} seeds"
        )
        remedy = f"Write `seeds: {WILCOXON_SEEDS + 1}` or more, or take a pruner with a screening run, as median."
        yield ("search", "seeds"), rule, search.seeds, remedy
    if study.has_several_objectives:
        yield from several_objectives_problems(study, traits)
    if traits.package is not None and importlib.util.find_spec(traits.package) is None:
        rule = f"the package {traits.package} must be installed for the sampler {name}"
        yield ("search", "sampler"), rule, None, f"Install it: `make setup`, or `pip install {traits.package}`."


def _space_problems(study: Study, space: Space, traits: SamplerTraits) -> Iterator[Problem]:
    name = study.search.sampler
    if traits.needs_order:
        for key, axis in space.axes.items():
            if len(axis) > 2 and values_in_order(axis) is None:
                assert isinstance(axis, Choice), "a range has an order"
                rule = f"`axes.{key}` must be a range, or numbers, or two values, for the sampler {name}"
                remedy = "Keep two of the values, fix the field in `base`, or search with tpe, gp or nsga2."
                yield ("axes", key), rule, list(axis.values), remedy
    for key, axis in space.axes.items():
        if axis.prior is not None and name not in PRIOR_TRIALS:
            rule = f"`axes.{key}.prior` must be left out for the sampler {name}, which does not use it"
            remedy = f"List the values alone, or search with {' or '.join(PRIOR_TRIALS)}."
            yield ("axes", key, "prior"), rule, list(axis.prior), remedy
        if traits.most_values is not None and len(axis) > traits.most_values:
            rule = f"`axes.{key}` must have at most {traits.most_values:,} values for the sampler {name}"
            yield ("axes", key), rule, len(axis), "Write a larger `step`, or search with tpe."
    if not traits.takes_latency_budget and study.budgets.latency_ms is not None:
        rule = f"`budgets.latency_ms` must be left out for the sampler {name}, which cannot learn from it"
        yield ("budgets", "latency_ms"), rule, study.budgets.latency_ms, "Limit `macs`, or search with tpe or gp."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
