"""The key `effects` of a study file: which effects of a search are named, and what is known of them from elsewhere.

The effect of every axis is estimated anyway (`harness.analysis.effects`); an entry adds a pair, a level to compare, and
a line for the plot: the statement, the guideline of RepLKNet's paper, its published value, a recorded claim.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Self, TypeAlias

from pydantic import Field, model_validator

from harness.config.axes import Axis, Range
from harness.config.problems import FileErrors
from harness.config.recipes.proxy import StrictModel
from harness.config.space import Space
from harness.config.yaml_file import KeyPath, dotted, quoted
from harness.errors import StudyError, did_you_mean

STAGE = "stage"
"""The second name of a pair that compares the effects of one field in different stages."""
PAIRED_FIELDS = (("shortcut", "K"), ("reparam", "K"), ("K", STAGE))
"""Pairs that RepLKNet's guidelines name: shortcuts and small kernels matter more for large kernels (2 and 3), and large
kernels may matter in other stages more than in the first (5). They are estimated unless `effects` names pairs."""

Levels: TypeAlias = range | tuple[int, ...]
"""Indices of values of an axis, in ascending order; a range where there is none between them."""


class EffectEntry(StrictModel):
    """An effect that is named: of an axis, or of a pair of axes, how the effect of one depends on the other."""

    axis: str | None = None
    """An axis, or a field with an axis per stage, whose effect is the mean over its stages."""
    pair: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    """Two axes or fields; `[K, stage]` compares the effect of K in each stage with that in the first."""
    level: Any = None
    """With `axis`: the value, or the list of values, to compare; by default the upper half of an ordered axis."""
    against: Any = None
    """With `level`: the value or values to compare with; by default `false`, null, or the first value of the axis."""
    says: str | None = None
    """The expectation in a sentence."""
    guideline: Annotated[int, Field(ge=1, le=5)] | None = None
    """Number of the guideline of RepLKNet's paper that the effect is about."""
    paper: str | None = None
    """The published result, with its place."""
    recorded: str | None = None
    """A claim that a grid recorded, as `guideline_2_shortcut.interaction_replknet`, whose verdict is shown, too."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.axis is None) == (self.pair is None):
            raise ValueError("must have either `axis` or `pair`")
        if self.pair is not None and (self.level is not None or self.against is not None):
            raise ValueError("must have `axis` where it has `level` or `against`")
        if self.recorded is not None and "." not in self.recorded:
            raise ValueError("`recorded` must be a study and a claim, as `guideline_2_shortcut.interaction_replknet`")
        return self

    @property
    def has_levels(self) -> bool:
        """Whether the entry names the levels that are compared."""
        return "level" in self.model_fields_set


def axes_of(name: str, space: Space) -> tuple[str, ...]:
    """The axes with several values that a name means: itself, or those of its stages in their order.

    Raises `StudyError` for a name that means none.
    """
    varied = varied_axes(space)
    if name in varied:
        return (name,)
    stages = tuple(axis for axis in varied if axis.partition("[")[0] == name and "[" in axis)
    if not stages:
        rule = "an effect must name an axis of the study that has several values"
        raise StudyError(rule, value=name, remedy=did_you_mean(name, varied, "Axes"))
    return tuple(sorted(stages))


def varied_axes(space: Space) -> dict[str, Axis]:
    """The axes with at least two values."""
    return {name: axis for name, axis in space.axes.items() if len(axis) > 1}


def stage_of(name: str) -> int | None:
    """The stage that an axis sets, if it sets one alone."""
    stage = re.fullmatch(r"\w+\[(\d+)\]", name)
    return int(stage[1]) if stage else None


def level_index(axis: Axis, value: Any) -> int:
    """The index of a value on its axis. Raises `StudyError` if it is none of its values."""
    member = axis.member(value)
    if isinstance(axis, Range):
        assert isinstance(member, int | float)
        return round((member - axis.low) / axis.step)
    return next(
        i for i, known in enumerate(axis.values) if known is member or (known, type(known)) == (member, type(member))
    )


def as_levels(indices: Iterable[int]) -> Levels:
    """The indices in the one form in which equal levels are equal."""
    ordered = sorted(set(indices))
    whole = range(ordered[0], ordered[-1] + 1)
    return whole if len(whole) == len(ordered) else tuple(ordered)


def level_indices(axis: Axis, value: Any) -> Levels:
    """The indices of the value, or of the values in a list, that an entry names. Raises `StudyError` for others."""
    try:
        return as_levels([level_index(axis, value)])
    except StudyError:
        if not isinstance(value, list) or not value:
            raise
    return as_levels(level_index(axis, part) for part in value)


def reference_index(axis: Axis) -> int:
    """The value that others are compared with: `false`, null where it is among them, otherwise the first."""
    if isinstance(axis, Range):
        return 0
    return next((i for i, value in enumerate(axis.values) if value is None or value is False), 0)


def is_ordered(axis: Axis) -> bool:
    """Whether the values of an axis are numbers in ascending order."""
    if isinstance(axis, Range):
        return True
    numbers = [value for value in axis.values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(axis) and numbers == sorted(numbers)


def compared_levels(entry: EffectEntry, axis: Axis) -> tuple[Levels, Levels]:
    """The levels that an entry with `level` compares. Raises `StudyError` for values that the axis lacks."""
    has_other = "against" in entry.model_fields_set
    against = level_indices(axis, entry.against) if has_other else as_levels([reference_index(axis)])
    return level_indices(axis, entry.level), against


def check_effects(entries: list[EffectEntry], space: Space, problems: FileErrors) -> None:
    """Report the entries that name no axis or no value of one."""
    for i, entry in enumerate(entries):
        for at, name in _names(entry, ("effects", i)):
            try:
                axes = axes_of(name, space)
                if entry.has_levels:
                    _check_levels(entry, [space.axes[axis] for axis in axes])
            except StudyError as error:
                problems.add(at, f"`{dotted(at)}`: {error.rule}", value=quoted(error.value), remedy=error.remedy)


def _names(entry: EffectEntry, at: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if entry.axis is not None:
        yield (*at, "axis"), entry.axis
    for k, name in enumerate(entry.pair or ()):
        if k == 0 or name != STAGE:
            yield (*at, "pair", k), name


def _check_levels(entry: EffectEntry, axes: list[Axis]) -> None:
    for axis in axes:
        level, against = compared_levels(entry, axis)
        if set(level) & set(against):
            raise StudyError("`level` and `against` must be different values", value=entry.level)
