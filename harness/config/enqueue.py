"""The key `search.enqueue`: configurations that a study tries first: presets, choices, and the best of another study.

What a file lists itself is checked when it is read. The best of another study is looked up in the database when a study
is checked for a run (`harness.search.enqueue`).
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.config.axes import BASE, Axis, Choice, Value
from harness.config.problems import FileErrors
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import Candidate, Space, axis_value, plain_fields
from harness.config.study import Study
from harness.config.yaml_file import KeyPath, quoted
from harness.errors import StudyError, did_you_mean
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS

AT: KeyPath = ("search", "enqueue")
BEST_OF = re.compile(r"best (?:(\d{1,4}) )?of ([A-Za-z0-9][A-Za-z0-9_-]{0,63})")
MAX_NAMED = 12
"""Maximum number of an axis' values that an error lists."""


class BestOf(NamedTuple):
    """The first configurations of another study."""

    study: str
    most: int = 1


def best_of(entry: object) -> BestOf | None:
    """The study that an entry such as `best of kernel_size` or `best 3 of kernel_size` names; None for any other."""
    match = BEST_OF.fullmatch(entry) if isinstance(entry, str) else None
    return None if match is None else BestOf(match[2], int(match[1] or 1))


def entry_text(entry: object) -> str:
    """An entry as messages and tables have it."""
    if isinstance(entry, Mapping):
        return ", ".join(f"{name}={json.dumps(value)}" for name, value in entry.items())
    return str(entry)


def check_enqueue(study: Study, space: Space, problems: FileErrors) -> None:
    """Report the entries that name no configuration of the space."""
    for i, entry in enumerate(study.search.enqueue):
        of = best_of(entry)
        if of is not None and of.study != study.study and of.most > 0:
            continue
        try:
            if of is not None:
                raise StudyError(
                    "`search.enqueue` must name the best of another study, and one of them or more",
                    value=entry_text(entry),
                    remedy="Write it as `best 3 of OTHER_STUDY`.",
                )
            listed_candidate(entry, space)
        except StudyError as error:
            problems.add((*AT, i), error.rule, value=quoted(error.value), remedy=error.remedy)


def listed_candidate(entry: object, space: Space) -> Candidate:
    """The configuration of a preset or a mapping of choices. Raises `StudyError` if the space has no such one."""
    if isinstance(entry, Mapping):
        return _feasible(_choices(entry, space), space, entry_text(entry))
    name = str(entry)
    if name not in PRESETS:
        rule = "`search.enqueue` must list presets, mappings of choices such as `{K: 13}`, and `best of OTHER_STUDY`"
        raise StudyError(rule, value=name, remedy=did_you_mean(name, PRESETS, "Presets"))
    return network_candidate(PRESETS[name], None, space, name)


def network_candidate(spec: NetworkSpec, recipe: ProxyRecipe | None, space: Space, named: str) -> Candidate:
    """The configuration of a space that is this network, with its recipe on axes of the recipe.

    Without a recipe, the study's proxy has the values on these axes. Raises `StudyError` if the space has none.
    """
    base = space.base
    spec = spec.replace(classes=base.classes, in_channels=base.in_channels)
    recipe = recipe or space.recipe
    reasons: list[StudyError] = []
    for of_base in space.bases or (None,):

        def choose(name: str, axis: Axis, of_base: str | None = of_base) -> Value:
            if name == BASE:
                return axis.member(of_base)
            return member_of(name, axis, axis_value(name, spec, recipe), f"`{named}` has a value")

        try:
            candidate = space.sample(choose)
            if candidate.spec is not None and candidate.spec.fingerprint() == spec.fingerprint():
                return _feasible(candidate.params, space, named)
            reasons.append(_other_network(candidate, spec, named))
        except StudyError as error:
            reasons.append(error)
    raise reasons[0]


def member_of(name: str, axis: Axis, value: Any, what: str) -> Value:
    """The value of an axis that is meant: one for all stages may be a list of equal ones. Raises `StudyError`."""
    plain = tuple(value) if isinstance(value, list | tuple) else value
    forms: list[Any] = [plain]
    if isinstance(plain, tuple) and len(set(plain)) == 1:
        forms.append(plain[0])
    if isinstance(axis, Choice) and not isinstance(plain, tuple):
        forms += [each for each in axis.values if isinstance(each, tuple) and all(part == plain for part in each)]
    for form in forms:
        try:
            return axis.member(form)
        except StudyError:
            continue
    first = ", ".join(json.dumps(_plain(axis.at(i))) for i in range(min(len(axis), MAX_NAMED)))
    more = ", ..." if len(axis) > MAX_NAMED else ""
    rule = f"`search.enqueue` must list configurations of the space, but {what} that the axis `{name}` lacks"
    raise StudyError(rule, value=_plain(value), remedy=f"Values: {first}{more}.")


def _choices(entry: Mapping[str, Any], space: Space) -> dict[str, Value]:
    """The choices on all active axes: those of the mapping, and the base's on the others, where the axes have them."""
    for name in entry:
        if name in space.derived:
            remedy = f"It follows from others, as `{space.derived[name].text}`; leave it out."
            raise StudyError("`search.enqueue` must choose on axes that are not derived", value=name, remedy=remedy)
        if name not in space.axes:
            rule = "`search.enqueue` must choose on the study's axes"
            raise StudyError(rule, value=name, remedy=did_you_mean(name, space.axes, "Axes"))
    active: set[str] = set()

    def choose(name: str, axis: Axis) -> Value:
        active.add(name)
        if name in entry:
            return member_of(name, axis, entry[name], "the mapping has a value")
        if len(axis) == 1:
            return axis.at(0)
        if name == BASE or space.bases:
            raise StudyError(
                "`search.enqueue` must choose on every axis where `base` is one",
                value=entry_text(entry),
                remedy=f"Add `{name}: ...`.",
            )
        return member_of(name, axis, axis_value(name, space.base, space.recipe), "the base has a value")

    choices = space.sample_params(choose)
    if extra := next((name for name in entry if name not in active), None):
        rule = "`search.enqueue` must choose on axes that count there, as `when` and the base have it"
        raise StudyError(rule, value=entry_text(entry), remedy=f"Leave `{extra}` out.")
    return choices


def _feasible(params: dict[str, Value], space: Space, named: str) -> Candidate:
    candidate = space.candidate(params)
    if not candidate.is_feasible:
        rule = f"`search.enqueue` must list configurations within rules and budgets, but of `{named}`: "
        raise StudyError(f"{rule}{candidate.reason}", value=named, remedy="Leave it out, or widen the space.")
    return candidate


def _other_network(candidate: Candidate, spec: NetworkSpec, named: str) -> StudyError:
    """The error of a network that has the axes' values, but differs from the space's networks in other fields."""
    rule = f"`search.enqueue` must list configurations of the space, but `{named}` "
    if candidate.spec is None:
        return StudyError(f"{rule}is none: {candidate.reason}", value=named)
    own, other = plain_fields(spec), plain_fields(candidate.spec)
    name = next(name for name in own if own[name] != other[name])
    values = f"has `{name}: {json.dumps(own[name])}`, and the space `{json.dumps(other[name])}`"
    return StudyError(f"{rule}{values}", value=named, remedy="Leave it out, or make the field an axis.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
