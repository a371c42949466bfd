"""The arms of a claim: texts such as `K=13, shortcut=false` that each select one configuration of the space."""

import json
import math
import re
from collections.abc import Callable, Collection
from typing import Any

from harness.config.axes import Axis, Choice, Value
from harness.config.expectation import Expectation
from harness.config.formula import Formula
from harness.config.problems import FileErrors
from harness.config.space import Space
from harness.config.study import Claim, Study
from harness.config.yaml_file import KeyPath, dotted, quoted
from harness.errors import StudyError, did_you_mean

BETWEEN_CHOICES = r",(?![^\[]*\])"
"""The commas between the choices of an arm; those inside brackets are between the values of a list."""
MAX_NAMED = 12
"""Maximum number of an axis' values that an error lists."""


def arm_choices(text: str, space: Space) -> dict[str, Value]:
    """The choices of an arm on all active axes; axes with a single value may be left out of the text.

    `K=13` means 13 in every stage. Raises `StudyError` for a text that selects no configuration, or several.
    """
    parsed = _parse_choices(text)
    for name in parsed:
        if name in space.derived:
            remedy = f"It follows from them, as `{space.derived[name].text}`; leave it out."
            raise StudyError("an arm must choose on the axes that are not derived", value=name, remedy=remedy)
        if name not in space.axes:
            raise StudyError(
                "an arm must choose on the study's axes", value=name, remedy=did_you_mean(name, space.axes)
            )
    active: set[str] = set()

    def choose(name: str, axis: Axis) -> Value:
        active.add(name)
        if name in parsed:
            return _member(name, axis, parsed[name])
        if len(axis) > 1:
            raise StudyError("an arm must choose on every axis that counts", value=text, remedy=f"Add `{name}=...`.")
        return axis.at(0)

    choices = space.sample_params(choose)
    if extra := next((name for name in parsed if name not in active), None):
        rule = "an arm must choose on axes that count there, as `when` and the base have it"
        raise StudyError(rule, value=text, remedy=f"Leave `{extra}` out.")
    return choices


def check_claims(study: Study, space: Space, problems: FileErrors) -> None:
    """Report the claims whose metric, contrast or expectation is invalid."""
    for i, claim in enumerate(study.claims):
        at: KeyPath = ("claims", i)
        _try(lambda text: Formula(text).require_value(), claim.metric, (*at, "metric"), problems)
        _try(Expectation.parse, claim.expect, (*at, "expect"), problems)
        _check_contrast(claim, (*at, "contrast"), space, problems)


def _check_contrast(claim: Claim, at: KeyPath, space: Space, problems: FileErrors) -> None:
    networks: dict[str, str] = {}
    for arm, weight in claim.contrast.items():
        place = (*at, arm)
        if not math.isfinite(weight) or weight == 0:
            problems.add(
                place, f"`{dotted(at)}` must weigh every arm with a number that is not 0", value=quoted(weight)
            )
        try:
            candidate = space.candidate(arm_choices(arm, space))
        except StudyError as error:
            problems.add(place, f"`{dotted(at)}`: {error.rule}", value=quoted(error.value), remedy=error.remedy)
            continue
        if not candidate.is_feasible:
            rule = (
                f"`{dotted(at)}` must name configurations within rules and budgets, but of `{arm}`: {candidate.reason}"
            )
            problems.add(place, rule)
        elif (twin := networks.setdefault(candidate.fingerprint, arm)) != arm:
            what = "network and recipe" if candidate.has_own_recipe else "network"
            problems.add(place, f"`{dotted(at)}` must name each {what} once, but `{arm}` is `{twin}` again")


def _try(read: Callable[[str], object], text: str, at: KeyPath, problems: FileErrors) -> None:
    try:
        read(text)
    except StudyError as error:
        problems.add(at, f"`{dotted(at)}` {error.rule}", value=quoted(error.value), remedy=error.remedy)
    except ValueError as error:
        problems.add(at, f"`{dotted(at)}` {error}")


def _parse_choices(text: str) -> dict[str, Any]:
    """Parse `K=[3,3,5,5], shortcut=false` into values by name; values are JSON, else text."""
    choices: dict[str, Any] = {}
    for part in re.split(BETWEEN_CHOICES, text):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value or name in choices:
            rule = "an arm must be choices on axes with commas between them, each axis once"
            raise StudyError(rule, value=text, remedy="As `K=13, shortcut=false`.")
        try:
            choices[name] = json.loads(value)
        except ValueError:
            choices[name] = value
    return choices


def without_choices(text: str, names: Collection[str]) -> str:
    """The text of an arm without its choices on these axes."""
    parts = [part.strip() for part in re.split(BETWEEN_CHOICES, text)]
    return ", ".join(part for part in parts if part.partition("=")[0].strip() not in names)


def _member(name: str, axis: Axis, value: Any) -> Value:
    """The value of the axis that is meant; a single value applies to all stages."""
    plain = tuple(value) if isinstance(value, list) else value
    if isinstance(axis, Choice) and not isinstance(plain, tuple):
        uniform = (
            choice for choice in axis.values if isinstance(choice, tuple) and all(part == plain for part in choice)
        )
        plain = next(uniform, plain)
    try:
        return axis.member(plain)
    except StudyError as error:
        values = ", ".join(json.dumps(axis.at(i)) for i in range(min(len(axis), MAX_NAMED)))
        raise StudyError(
            f"an arm must choose one of the values of `{name}`", value=value, remedy=f"Values: {values}."
        ) from error
