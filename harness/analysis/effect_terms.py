"""Which effects of a search space are estimated: of every axis, of pairs of axes, and those that the study names.

An effect compares groups of an axis' values:

- **Levels.** Each value against the reference: `false`, null, or the first value. An ordered axis with more than
  `SHORT` values is divided into four groups of neighboring values, each against the lowest.
- **Halves.** Of an ordered axis with four or more values also the upper half against the lower one; the middle value of
  an odd number is in neither.
- **Stages.** Of a field that has an axis per stage (`K[0]` to `K[3]`), the mean of its axes' effects.
- **Pairs.** How the effect of the first axis differs between the levels of the second: that at the second's upper half
  less that at its lower half. Of fields with an axis per stage, the mean over the stages that both have.
- **Stages compared.** The effect of a field in each stage less that in the first.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.analysis.formatting import format_value
from harness.config.axes import Axis
from harness.config.effects import (
    PAIRED_FIELDS,
    STAGE,
    EffectEntry,
    Levels,
    as_levels,
    axes_of,
    compared_levels,
    is_ordered,
    reference_index,
    stage_of,
    varied_axes,
)
from harness.config.space import Space
from harness.errors import StudyError

SHORT = 6
"""Number of values up to which each value of an ordered axis is a level of its own."""
GROUPS = 4
MOST_LISTED = 2


class TermKind(StrEnum):
    """What an effect compares."""

    LEVELS = "levels"
    HALVES = "halves"
    STAGES = "stages"
    PAIR = "pair"
    STAGES_COMPARED = "stages compared"


@dataclass(frozen=True, slots=True)
class CellContrast:
    """Cells of the space, given by the levels that a configuration has on some axes, and the weights of their means."""

    cells: tuple[Mapping[str, Levels], ...]
    signs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """An effect: a weighted sum of contrasts of cells."""

    subject: str
    """The axis, field or pair, such as `shortcut x K`."""
    compared: str
    """What is compared, such as `true against false`."""
    kind: TermKind
    parts: tuple[tuple[float, CellContrast], ...]
    entry: EffectEntry | None = None
    """The entry of the study file that names it."""

    @property
    def name(self) -> str:
        """The effect as text."""
        return f"{self.subject}: {self.compared}"


def effect_terms(space: Space, entries: Sequence[EffectEntry]) -> tuple[Term, ...]:
    """The effects of all axes and pairs in the order of the space; those that entries name have their entry."""
    terms = [*_axis_terms(space), *_field_terms(space)]
    terms += _default_pairs(space) if not any(entry.pair for entry in entries) else []
    for entry in entries:
        for named in _entry_terms(entry, space):
            same = next((i for i, term in enumerate(terms) if term.parts == named.parts), None)
            if same is None:
                terms.append(named)
            else:
                terms[same] = replace(terms[same], entry=terms[same].entry or entry)
    return tuple(terms)


def _axis_terms(space: Space) -> Iterator[Term]:
    for name, axis in varied_axes(space).items():
        for levels, against in _level_groups(axis):
            yield _axis_term(name, axis, levels, against, TermKind.LEVELS)
        if is_ordered(axis) and len(axis) > 3:
            yield _axis_term(name, axis, *_halves(axis), TermKind.HALVES)


def _field_terms(space: Space) -> Iterator[Term]:
    """The mean effect of each field with axes for several stages."""
    fields = dict.fromkeys(name.partition("[")[0] for name in varied_axes(space) if stage_of(name) is not None)
    for field in fields:
        axes = axes_of(field, space)
        if len(axes) > 1:
            yield _mean_term(field, axes, space)


def _mean_term(field: str, axes: Sequence[str], space: Space) -> Term:
    parts = tuple((1 / len(axes), _axis_contrast(name, *main_levels(space.axes[name]))) for name in axes)
    compared = {compared_text(space.axes[name], *main_levels(space.axes[name])) for name in axes}
    text = compared.pop() if len(compared) == 1 else "upper against lower half"
    return Term(field, f"{text}, mean of {len(axes)} stages", TermKind.STAGES, parts)


def _default_pairs(space: Space) -> Iterator[Term]:
    for first, second in PAIRED_FIELDS:
        try:
            yield from _pair_terms(first, second, space)
        except StudyError:  # the space has no such axes
            continue


def _entry_terms(entry: EffectEntry, space: Space) -> Iterator[Term]:
    if entry.pair is not None:
        terms: Iterator[Term] = _pair_terms(entry.pair[0], entry.pair[1], space)
    else:
        assert entry.axis is not None
        terms = _named_axis_terms(entry.axis, entry, space)
    yield from (replace(term, entry=entry) for term in terms)


def _named_axis_terms(name: str, entry: EffectEntry, space: Space) -> Iterator[Term]:
    axes = axes_of(name, space)
    if len(axes) > 1 and not entry.has_levels:
        yield _mean_term(name, axes, space)
        return
    for axis_name in axes:
        axis = space.axes[axis_name]
        levels = compared_levels(entry, axis) if entry.has_levels else main_levels(axis)
        kind = TermKind.HALVES if is_ordered(axis) and len(axis) > 2 and not entry.has_levels else TermKind.LEVELS
        yield _axis_term(axis_name, axis, *levels, kind)


def _pair_terms(first: str, second: str, space: Space) -> Iterator[Term]:
    """The terms of a pair; none if the two have no pair of different axes. Raises `StudyError` for unknown names."""
    axes = axes_of(first, space)
    if second == STAGE:
        for later in axes[1:]:
            parts = tuple(
                (sign, _axis_contrast(name, *main_levels(space.axes[name])))
                for sign, name in ((1.0, later), (-1.0, axes[0]))
            )
            compared = f"{compared_text(space.axes[later], *main_levels(space.axes[later]))}, {later} less {axes[0]}"
            yield Term(f"{first} x stage", compared, TermKind.STAGES_COMPARED, parts)
        return
    others = axes_of(second, space)
    pairs = [(a, b) for a in axes for b in others if a != b]
    of_one_stage = [(a, b) for a, b in pairs if stage_of(a) is not None and stage_of(a) == stage_of(b)]
    pairs = of_one_stage or pairs
    if pairs:
        parts = tuple((1 / len(pairs), _pair_contrast(a, b, space)) for a, b in pairs)
        a, b = pairs[0]
        effect = compared_text(space.axes[a], *main_levels(space.axes[a]))
        upper, lower = (_levels_text(space.axes[b], levels) for levels in main_levels(space.axes[b]))
        compared = f"{effect}, at {upper} less at {lower}"
        mean = f", mean of {len(pairs)}" if len(pairs) > 1 else ""
        yield Term(f"{first} x {second}", f"{compared}{mean}", TermKind.PAIR, parts)


def main_levels(axis: Axis) -> tuple[Levels, Levels]:
    """The two groups by which an axis is judged: halves if it is ordered, otherwise all others and the reference."""
    if is_ordered(axis) and len(axis) > 2:
        return _halves(axis)
    reference = reference_index(axis)
    return as_levels(i for i in range(len(axis)) if i != reference), as_levels([reference])


def _halves(axis: Axis) -> tuple[Levels, Levels]:
    half = len(axis) // 2
    return range(len(axis) - half, len(axis)), range(half)


def _level_groups(axis: Axis) -> Iterator[tuple[Levels, Levels]]:
    """The groups of values that are compared, and with which."""
    count = len(axis)
    if is_ordered(axis) and count > SHORT:
        bounds = [round(k * count / GROUPS) for k in range(GROUPS + 1)]
        groups = [range(low, high) for low, high in itertools.pairwise(bounds)]
    else:
        reference = reference_index(axis)
        groups = [range(i, i + 1) for i in (reference, *(i for i in range(count) if i != reference))]
    yield from ((group, groups[0]) for group in groups[1:])


def _axis_term(name: str, axis: Axis, levels: Levels, against: Levels, kind: TermKind) -> Term:
    return Term(name, compared_text(axis, levels, against), kind, ((1.0, _axis_contrast(name, levels, against)),))


def _axis_contrast(name: str, levels: Levels, against: Levels) -> CellContrast:
    return CellContrast(({name: levels}, {name: against}), (1, -1))


def _pair_contrast(first: str, second: str, space: Space) -> CellContrast:
    (a, b), (c, d) = main_levels(space.axes[first]), main_levels(space.axes[second])
    cells = tuple({first: one, second: other} for one, other in ((a, c), (b, c), (a, d), (b, d)))
    return CellContrast(cells, (1, -1, -1, 1))


def compared_text(axis: Axis, levels: Levels, against: Levels) -> str:
    """Text such as `9 to 13 against 3`."""
    return f"{_levels_text(axis, levels)} against {_levels_text(axis, against)}"


def _levels_text(axis: Axis, levels: Levels) -> str:
    if len(levels) > MOST_LISTED and is_ordered(axis):
        return f"{format_value(axis.at(levels[0]))} to {format_value(axis.at(levels[-1]))}"
    return " or ".join(format_value(axis.at(i)) for i in levels)


def cell_text(cell: Mapping[str, Levels], space: Space) -> str:
    """Text such as `shortcut=true and K[0]=9 to 13`."""
    return " and ".join(f"{name}={_levels_text(space.axes[name], levels)}" for name, levels in cell.items())
