"""Builds the search space from the keys `axes`, `when`, `rules` and `budgets`; checks all values before training."""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from harness.config.axes import Axis, Choice, GridEnumerator, Range, Sampler, Value, random_sampler, split_name
from harness.config.census import take_census
from harness.config.expressions import Expression
from harness.config.problems import FileErrors
from harness.config.recipe_axes import adapted_text, chosen_recipe, is_recipe_axis, recipe_name
from harness.config.space import BUDGETS, Candidate, Space
from harness.config.study import OrdinalRange, Study, WeightedValues
from harness.config.yaml_file import Document, KeyPath, dotted, quoted
from harness.errors import SpecError, StudyError, UserError
from harness.models.cost import network_cost
from harness.models.spec.family import FAMILIES
from harness.models.spec.network import MAY_DIFFER, NetworkSpec

MOST_STAGES = max(family.stages for family in FAMILIES.values())
MAX_GRID = 20_000
"""Largest number of combinations of a grid."""
PRICED_FIRST = 200
"""Number of combinations that are searched for a feasible one before a census of the space is taken."""
PROBES = 300
"""Number of random combinations on which the expressions of a larger space are tried."""
MAX_PRICED_ALONE = 64
"""Number of random combinations on which a value is tried that does not fit the base."""

MAX_REJECTIONS = 10
"""Maximum number of invalid values of one axis that are reported."""
MAX_NOTES = 5
"""Maximum number of notes on values of the proxy that are adapted to choices."""


def read_space(study: Study, base: NetworkSpec, bases: dict[str, NetworkSpec], problems: FileErrors) -> Space | None:
    """The space that a study file describes; None, with its problems reported, if the axes are invalid."""
    stages = max(FAMILIES[spec.family].stages for spec in (base, *bases.values()))
    chosen = {name: raw for name, raw in study.axes.items() if not isinstance(raw, str)}
    axes = {name: _axis(name, raw, stages, problems) for name, raw in chosen.items()}
    derived = {name: _derived(name, raw, stages, problems) for name, raw in study.axes.items() if isinstance(raw, str)}
    when = {name: _expression(text, ("when", name), problems) for name, text in study.when.items()}
    rules = [_expression(text, ("rules", i), problems) for i, text in enumerate(study.rules)]
    try:
        space = Space(
            base=base,
            bases=bases,
            axes={name: axis for name, axis in axes.items() if axis},
            derived={name: expression for name, expression in derived.items() if expression},
            when={
                name: condition
                for name, condition in when.items()
                if condition and (axes | derived).get(name, condition)
            },
            rules=tuple(rule for rule in rules if rule),
            budgets={name: limit for name in BUDGETS if (limit := getattr(study.budgets, name)) is not None},
            recipe=study.proxy,
        )
    except StudyError as error:
        problems.add_error(("axes",), error)
        return None
    try_values(space, study, problems)
    _require_effects(space, problems)
    if all(axes.values()) and all(derived.values()) and all(when.values()):
        _try_expressions(space, problems)
    if study.search.sampler == "grid" and space.size > MAX_GRID:
        rule = f"A grid must have at most {MAX_GRID} combinations, but these axes have {space.size:,}"
        problems.add(("axes",), rule, remedy="Thin the axes, or search with the sampler tpe or random and `trials`.")
    return space


def require_feasible(space: Space, document: Document) -> None:
    """Raise `StudyError` if the census of the space contains no configuration within rules and budgets.

    The error contains the rules and budgets that are broken, and the cost of the nearest network.
    """
    if any(candidate.is_feasible for candidate in itertools.islice(space.grid(), PRICED_FIRST)):
        return
    census = take_census(space)
    if census.feasible:
        return
    assert census.nearest is not None, "every space has a configuration"
    counts = census.ruled_out.most_common()
    causes = ", ".join(f"{count:,} break `{dotted(_place_of(key))}`" for key, count in counts)
    least = " and ".join(f"{amount:,} {name}" for name, amount in census.least.items())
    bound = f" The least is {least}." if least else ""
    of = f"{census.priced:,}" if census.is_complete else f"{census.priced:,} drawn from {census.size:,} combinations"
    rule = "At least one configuration must be within rules and budgets"
    remedy = f"Of {of}, {causes}.{bound} {_nearest(census.nearest, space)}"
    raise StudyError(rule, place=document.place(_place_of(counts[0][0])), remedy=remedy)


def _nearest(candidate: Candidate, space: Space) -> str:
    """A sentence on the network that breaks rules and budgets least: its choices, its cost, and what it breaks."""
    choices = ", ".join(f"{name}={json.dumps(value)}" for name, value in candidate.params.items())
    cost = candidate.cost
    amounts = [f"{getattr(cost, name):,} {name}" for name in space.budgets] if cost else []
    has = f" has {' and '.join(amounts)}" if amounts else ""
    return f"The nearest, {choices},{has or ' is none'}: {candidate.reason}."


def _place_of(violation: str) -> KeyPath:
    """The path in the file of the rule or budget that a candidate violates."""
    if violation in BUDGETS:
        return ("budgets", violation)
    stated = re.fullmatch(r"rules\[(\d+)\]", violation)
    return ("rules", int(stated[1])) if stated else ("axes",)


def _axis(name: str, raw: list[Any] | WeightedValues | OrdinalRange, stages: int, problems: FileErrors) -> Axis | None:
    at: KeyPath = ("axes", name)
    try:
        split_name(name, stages)
    except StudyError as error:
        problems.add_error(at, error)
        return None
    if isinstance(raw, list):
        values = _values(at, raw, problems)
        return _from_list(values) if values else None
    if isinstance(raw, WeightedValues):
        values = _values((*at, "values"), raw.values, problems)
        prior = _prior((*at, "prior"), raw, problems)
        return replace(_from_list(values), prior=prior) if prior and len(values) == len(prior) else None
    try:
        ends = (raw.low, raw.high, raw.step)
        if all(float(end).is_integer() for end in ends):
            return Range(int(raw.low), int(raw.high), int(raw.step), raw.log)
        return Range(*ends, raw.log)
    except StudyError as error:
        end = (*at, error.rule.split("`")[1])
        rule = error.rule.replace(f"`{end[-1]}`", f"`{dotted(end)}`", 1)
        problems.add(end, rule, value=None if error.value is None else quoted(error.value), remedy=error.remedy)
        return None


def _derived(name: str, text: str, stages: int, problems: FileErrors) -> Expression | None:
    """The expression of a derived axis; None, with its problem reported, if it is invalid."""
    at: KeyPath = ("axes", name)
    try:
        split_name(name, stages)
        return Expression(text, key=dotted(at), place=problems.document.place(at))
    except StudyError as error:
        if error.place is not None:
            error.remedy = f"{error.remedy or ''} A value to choose has brackets, as `[{text:.40}]`.".strip()
        problems.add_error(at, error)
        return None


def _values(at: KeyPath, raw: list[Any], problems: FileErrors) -> list[Value]:
    """The valid values of a list, each a scalar or one value per stage, without duplicates."""
    values: dict[tuple[bool, Value], Value] = {}
    if not raw:
        problems.add(at, f"`{dotted(at)}` must have at least one value", value=quoted(raw))
    for i, entry in enumerate(raw):
        value = _value(entry)
        key = (isinstance(value, bool), value)  # true is not 1
        if isinstance(value, dict):
            rule = f"`{dotted((*at, i))}` must be a value, null, or a list of one value per stage"
            problems.add((*at, i), rule, value=quoted(entry))
        elif key in values:
            remedy = "Leave one out; a list of one value per stage has brackets of its own, as `[[3, 3, 3, 3]]`."
            problems.add((*at, i), f"`{dotted(at)}` must name each value once", value=quoted(entry), remedy=remedy)
        else:
            values[key] = value
    return list(values.values())


def _prior(at: KeyPath, raw: WeightedValues, problems: FileErrors) -> tuple[float, ...] | None:
    """The weights of the values; None, with the problem reported, if they are no prior."""
    if len(raw.prior) != len(raw.values):
        rule = f"`{dotted(at)}` must have one weight per value, {len(raw.values)} in all"
        problems.add(at, rule, value=quoted(raw.prior), remedy="A value that is no better than another has its weight.")
    elif raw.prior and not sum(raw.prior) > 0:
        problems.add(at, f"`{dotted(at)}` must have a weight above 0", value=quoted(raw.prior))
    else:
        return tuple(raw.prior)
    return None


def _value(raw: Any) -> Any:
    """A value of a list as an axis stores it; anything nested deeper becomes a mapping, which no axis accepts."""
    if isinstance(raw, list):
        return {} if any(isinstance(part, list | dict) for part in raw) else tuple(raw)
    return {} if isinstance(raw, dict) else raw


def _from_list(values: list[Value]) -> Axis:
    """An ordinal axis for three or more whole numbers that increase in equal steps, else an unordered one."""
    whole = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    if len(whole) == len(values) > 2:
        step = whole[1] - whole[0]
        if step > 0 and whole == list(range(whole[0], whole[-1] + 1, step)):
            return Range(whole[0], whole[-1], step)
    return Choice(tuple(values))


def _expression(text: str, at: KeyPath, problems: FileErrors) -> Expression | None:
    try:
        return Expression(text, key=dotted(at), place=problems.document.place(at))
    except StudyError as error:
        problems.add_error(at, error)
        return None


def try_values(space: Space, study: Study, problems: FileErrors, *, only_recipe: bool = False) -> None:
    """Report the values that fit no network or recipe of the space; of a range, only the first."""
    for name, axis in space.axes.items():
        raw = study.axes[name]
        assert not isinstance(raw, str), "a derived axis is not among those that are chosen"
        if only_recipe and not is_recipe_axis(name):
            continue
        at: KeyPath = ("axes", name)
        listed = raw.values if isinstance(raw, WeightedValues) else raw
        if isinstance(listed, list):
            at = (*at, "values") if listed is not raw else at
            values = ((i, _value(entry)) for i, entry in enumerate(listed))
            written = [((*at, i), value) for i, value in values if not isinstance(value, dict)]
        else:
            written = [(at, axis.at(i)) for i in range(min(len(axis), MAX_GRID))]
        refused = ((place, value, error) for place, value in written if (error := _rejection(space, name, value)))
        for place, value, error in itertools.islice(refused, MAX_REJECTIONS if isinstance(listed, list) else 1):
            stage = re.search(r"\[(\d+)\]", error.field) if isinstance(error, SpecError) else None
            exact = (*place, int(stage[1])) if stage and isinstance(value, tuple) else place
            problems.add(exact, error.rule, value=quoted(error.value), remedy=_with_derived(space, error))


def _require_effects(space: Space, problems: FileErrors) -> None:
    """Report the axes of one stage of `MAY_DIFFER` whose values all give the same network.

    In MobileNetV2, for example, the blocks of the first stage do not use `ffn_ratio`.
    """
    for name, axis in space.axes.items():
        of, stage = split_name(name, MOST_STAGES)
        if len(axis) > 1 and stage is not None and of in MAY_DIFFER and _is_idle(space, name, axis):
            rule = f"`{dotted(('axes', name))}` must change the network, but all of its values give the same one"
            problems.add(("axes", name), rule, remedy="Leave the axis out.")


def _is_idle(space: Space, name: str, axis: Axis) -> bool:
    """Whether the values of an axis give equal networks with all other choices that were tried."""
    has_network = False
    for others in _other_choices(space, name):
        networks = set()
        for i in range(min(len(axis), MAX_PRICED_ALONE)):
            try:
                networks.add(space.network(others | {name: axis.at(i)}).fingerprint())
            except UserError:
                continue
            if len(networks) > 1:
                return False
        has_network = has_network or bool(networks)
    return has_network


def _with_derived(space: Space, error: UserError) -> str | None:
    """The remedy of an error; if its field has a derived axis, with the expression."""
    name = error.field if isinstance(error, SpecError) else ""
    if name not in space.derived:
        return error.remedy
    return f"{error.remedy or ''} It is `{space.derived[name].text}`.".strip()


def adapted_notes(space: Space) -> Iterator[str]:
    """A note on each value of the proxy that is adapted to a choice on an axis of the recipe."""
    notes = [
        adapted_text(name, axis.at(i), fitted)
        for name, axis in space.axes.items()
        if is_recipe_axis(name)
        for i in range(min(len(axis), MAX_PRICED_ALONE))
        for fitted in chosen_recipe(space.recipe, {name: axis.at(i)})[1]
        if recipe_name(fitted.key) not in (*space.axes, *space.derived)
    ]
    yield from notes[:MAX_NOTES]
    if len(notes) > MAX_NOTES:
        yield f"and {len(notes) - MAX_NOTES} more values of the proxy are adapted to the choices on its axes"


def _rejection(space: Space, name: str, value: Value) -> UserError | None:
    """The reason why a value fits no network or recipe of the space that was tried; None if it fits one."""
    refusal: UserError | None = None
    for others in _other_choices(space, name):
        params = others | {name: value}
        try:
            if is_recipe_axis(name):
                network_cost(space.network(params), space.recipe_of(params).resolution)
            else:
                space.network(params)
        except UserError as error:
            refusal = refusal or error
        else:
            return None
    return refusal


def _other_choices(space: Space, name: str) -> Iterator[dict[str, Value]]:
    """Choices on the other axes: none (the base's values apply), all at their ends, each alone, and random ones."""
    others = {other: axis for other, axis in space.axes.items() if other != name}
    yield {}
    yield {other: axis.at(0) for other, axis in others.items()}
    yield {other: axis.at(len(axis) - 1) for other, axis in others.items()}
    for other, axis in others.items():
        yield from ({other: axis.at(i)} for i in range(min(len(axis), MAX_PRICED_ALONE)))
    choose = random_sampler(0)
    for _ in range(MAX_PRICED_ALONE):
        yield {other: choose(other, axis) for other, axis in others.items()}


def _try_expressions(space: Space, problems: FileErrors) -> None:
    """Report the conditions and rules that are neither true nor false for some network of the space."""
    if not (space.when or space.rules or space.derived):
        return
    failed: dict[tuple[str, str | None], StudyError] = {}
    for choose in _choosers(space):
        for error in _failures(space, choose):
            failed.setdefault((error.rule, error.place), error)
    for error in failed.values():
        problems.add_error((), error)


def _failures(space: Space, choose: Sampler) -> Iterator[StudyError]:
    """The errors of conditions and rules for one combination."""
    try:
        params = space.sample_params(choose)
        values = space.values_of(params)
    except SpecError:
        return
    except StudyError as error:
        yield error
        return
    for rule in space.rules:
        try:
            rule.holds(values)
        except StudyError as error:
            yield error


def _choosers(space: Space) -> Iterator[Sampler]:
    if space.size <= PROBES:
        enumerator = GridEnumerator()
        while enumerator.advance():
            yield enumerator
    else:
        yield from itertools.repeat(random_sampler(0), PROBES)
