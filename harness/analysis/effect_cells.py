"""The cells of an effect in a search space: configurations with all of their counterparts within rules and budgets.

The counterpart of a configuration in another cell has that cell's levels and the same choices on all other axes. Axes
that are active in one of the two alone are drawn uniformly. A space is described by its *draws*: uniform on every axis
given that the network is within rules and budgets, which is also how space-filling trials are drawn.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.effect_terms import CellContrast
from harness.analysis.statistics.effects import SpaceMeans
from harness.analysis.statistics.response_surface import INACTIVE, AxisCoding, Columns, Floats, Ints, encode
from harness.config.axes import BASE, Axis, GridEnumerator, Range, Value, random_sampler
from harness.config.effects import Levels, is_ordered, level_index, stage_of
from harness.config.space import Space
from harness.models.cost import Cost

Params = Mapping[str, Value]
Choices = tuple[tuple[str, Value], ...]
Evaluate = Callable[[Cost], float | None]
SMALL = 1_000
"""Number of combinations up to which the whole space is used, and not a sample of it."""
FLIPS = 20_000
"""Number of counterparts, over all effects, for which a sample of the space is made; each takes 0.1 to 0.4 ms."""
SMALLEST_SAMPLE, LARGEST_SAMPLE = 200, 2_000
BATCHES = 10
MOST_VARIANTS = 8
"""Maximum number of counterparts in a cell of several levels that are tried for one configuration."""
MAX_TRIES = 100_000
SAMPLE_SEED = 9_176_211_534_061
"""Of the sample of the space: no study's seed, so that the sample is not made of its own draws."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A configuration in a cell, with its weight."""

    batch: int
    cell: int
    weight: float
    params: Params


class SpaceCells:
    """Counts and encodes the configurations of a space by the cells of effects; deterministic."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._names = tuple(space.axes)
        self._codings = tuple(_coding(axis) for axis in space.axes.values())
        self._costs: dict[Choices, Cost | None] = {}
        self._levels: dict[Choices, list[int]] = {}
        self._deciding = _deciding_axes(space)
        self._random = random.Random(0)
        self.is_whole = space.size <= SMALL
        """Whether means are over the whole space."""
        self._draws: list[tuple[Params, float]] = []

    def sample(self, contrasts: Sequence[CellContrast]) -> None:
        """Draw the sample that the means are taken over, as large as these effects allow."""
        if self.is_whole:
            self._draws = list(self._enumerate())
            return
        flips = sum(len(contrast.cells) - 1 for contrast in contrasts)
        size = min(LARGEST_SAMPLE, max(SMALLEST_SAMPLE, FLIPS // max(1, flips)))
        choose = random_sampler(SAMPLE_SEED)
        tried = (self.space.sample_params(choose) for _ in range(MAX_TRIES))
        feasible = (params for params in tried if self.is_feasible(params))
        self._draws = [(params, 1.0) for params in itertools.islice(feasible, size)]

    @property
    def size(self) -> int:
        """The number of configurations that the means are taken over."""
        return len(self._draws)

    def is_feasible(self, params: Params) -> bool:
        """Whether the network of these choices is within rules and budgets."""
        return self._cost(params) is not None

    def _cost(self, params: Params) -> Cost | None:
        """The cost of a network within rules and budgets, None for others; each is built once."""
        key = tuple(params.items())
        if key not in self._costs:
            candidate = self.space.candidate(dict(params))
            self._costs[key] = candidate.cost if candidate.is_feasible else None
        return self._costs[key]

    def encode(self, configurations: Sequence[Params]) -> Columns:
        """The columns of the model for these configurations."""
        return encode(self.levels(configurations), self._codings)

    def levels(self, configurations: Sequence[Params]) -> Ints:
        """The level indices of configurations on all axes."""
        rows = [self._levels_of(params) for params in configurations]
        return np.array(rows, np.int64).reshape(len(rows), len(self._names))

    def _levels_of(self, params: Params) -> list[int]:
        key, axes = tuple(params.items()), self.space.axes
        if key not in self._levels:
            self._levels[key] = [
                level_index(axes[name], params[name]) if name in params else INACTIVE for name in self._names
            ]
        return self._levels[key]

    def probability(self, params: Params) -> float:
        """The probability of these choices in a draw, before rules and budgets."""
        return math.prod(_share(self.space.axes[name], value) for name, value in params.items())

    def column_means(self, contrast: CellContrast) -> SpaceMeans:
        """The means of the model's columns in the cells."""
        rows, counts, share = self._matched(contrast)
        values = self.encode([row.params for row in rows]).values
        return self._means(rows, counts, share, values, len(contrast.cells))

    def value_means(self, contrast: CellContrast, evaluate: Evaluate) -> SpaceMeans:
        """The means of a value that follows from the network, such as its MACs."""
        rows, counts, share = self._matched(contrast)
        costs = {cost for row in rows if (cost := self._cost(row.params)) is not None}
        values = {cost: evaluate(cost) for cost in costs}
        of_rows = [values.get(cost) if (cost := self._cost(row.params)) else None for row in rows]
        table = np.array([math.nan if value is None else value for value in of_rows], float)
        return self._means(rows, counts, share, table, len(contrast.cells))

    def memberships(self, contrast: CellContrast, configurations: Sequence[Params], *, is_free: bool = False) -> Floats:
        """The weight of each configuration in its cell: the share of its counterparts that exist.

        With `is_free`, all counterparts are within rules and budgets, and none is built.
        """
        table = np.zeros((len(configurations), len(contrast.cells)))
        for i, params in enumerate(configurations):
            own = self.cell_of(contrast, params)
            if own is not None:
                others = [cell for k, cell in enumerate(contrast.cells) if k != own and not is_free]
                table[i, own] = math.prod(self._share_of(params, cell) for cell in others)
        return table

    def cell_of(self, contrast: CellContrast, params: Params) -> int | None:
        """The cell that a configuration is in; None for none."""
        for k, cell in enumerate(contrast.cells):
            if all(
                name in params and level_index(self.space.axes[name], params[name]) in levels
                for name, levels in cell.items()
            ):
                return k
        return None

    def _means(self, rows: Sequence[_Row], counts: Floats, share: float, values: Floats, cells: int) -> SpaceMeans:
        sums = np.zeros((len(counts), cells, *values.shape[1:]))
        weights = np.array([row.weight for row in rows])
        index = np.array([row.batch for row in rows], int), np.array([row.cell for row in rows], int)
        np.add.at(sums, index, weights.reshape(-1, *[1] * (values.ndim - 1)) * values)
        return SpaceMeans(sums, counts, share)

    def _matched(self, contrast: CellContrast) -> tuple[list[_Row], Floats, float]:
        """The draws in a cell with their counterparts; the total weight by batch; and the share that has them all."""
        batches = 1 if self.is_whole else BATCHES
        rows: list[_Row] = []
        counts, in_cells, total = np.zeros(batches), 0.0, 0.0
        for i, (params, probability) in enumerate(self._draws):
            own = self.cell_of(contrast, params)
            if own is None:
                continue
            in_cells += probability
            others = {k: self._feasible(params, cell) for k, cell in enumerate(contrast.cells) if k != own}
            weight = probability * math.prod(share for _, share in others.values())
            if weight == 0:
                continue
            batch = i * batches // len(self._draws)
            counts[batch] += weight
            total += weight
            rows.append(_Row(batch, own, weight, params))
            for k, (variants, share) in others.items():
                rows += [_Row(batch, k, weight * part / share, other) for other, part in variants]
        return rows, counts, total / in_cells if in_cells else 0.0

    def _share_of(self, params: Params, cell: Mapping[str, Levels]) -> float:
        """The share of the counterparts in a cell that exist."""
        variants = list(self._variants(params, cell, MOST_VARIANTS))
        total = sum(part for _, part in variants)
        return sum(part for other, part in variants if self.is_feasible(other)) / total if total else 0.0

    def _feasible(self, params: Params, cell: Mapping[str, Levels]) -> tuple[list[tuple[Params, float]], float]:
        """The counterparts in a cell that exist, with their weights, and the share that they are of all of them."""
        variants = list(self._variants(params, cell, MOST_VARIANTS if self.is_whole else 1))
        total = sum(part for _, part in variants)
        kept = [(other, part / total) for other, part in variants if self.is_feasible(other)]
        return kept, sum(part for _, part in kept)

    def _variants(self, params: Params, cell: Mapping[str, Levels], most: int) -> Iterator[tuple[Params, float]]:
        """The counterparts of a configuration in a cell, with their weights: all, or `most` that are drawn."""
        axes = self.space.axes
        if self.is_whole or math.prod(len(levels) for levels in cell.values()) <= most:
            for chosen in itertools.product(*cell.values()):
                settings = {name: axes[name].at(i) for name, i in zip(cell, chosen, strict=True)}
                weight = math.prod(_share(axes[name], value) for name, value in settings.items())
                for completed, part in self._completions(params, settings, most):
                    yield completed, weight * part
            return
        for _ in range(most):
            settings = {name: self._draw(axes[name], levels) for name, levels in cell.items()}
            yield from self._completions(params, settings, 1)

    def _completions(self, params: Params, settings: Mapping[str, Value], most: int) -> Iterator[tuple[Params, float]]:
        """The configurations with these settings and otherwise the same choices; the settings must be active in them.

        Axes that become active have all of their values, with their probabilities, or `most` that are drawn.
        """
        fixed, added, enumerator = {**params, **settings}, set[str](), GridEnumerator()
        if settings.keys() <= params.keys() - self._deciding:
            yield fixed, 1.0  # the same axes are active
            return

        def choose(name: str, axis: Axis) -> Value:
            if name in fixed:
                return fixed[name]
            added.add(name)
            return enumerator(name, axis)

        completions: list[tuple[Params, float]] = []
        while enumerator.advance():
            if len(completions) == most and not self.is_whole:
                completions = [(self._drawn(fixed), 1 / most) for _ in range(most)]
                break
            added.clear()
            completed = self.space.sample_params(choose)
            completions.append((completed, math.prod(_share(self.space.axes[name], completed[name]) for name in added)))
        yield from (completion for completion in completions if settings.keys() <= completion[0].keys())

    def _drawn(self, fixed: Params) -> Params:
        """A configuration with these choices where its axes are active, and drawn on all others."""

        def choose(name: str, axis: Axis) -> Value:
            return fixed[name] if name in fixed else self._draw(axis, range(len(axis)))

        return self.space.sample_params(choose)

    def _draw(self, axis: Axis, levels: Levels) -> Value:
        """A value of these levels, with its probability."""
        if isinstance(axis, Range) and axis.log and len(levels) <= MAX_TRIES:
            return self._random.choices([axis.at(i) for i in levels], [_share(axis, axis.at(i)) for i in levels])[0]
        return axis.at(self._random.choice(levels))

    def _enumerate(self) -> Iterator[tuple[Params, float]]:
        """Every configuration within rules and budgets, with its probability."""
        enumerator = GridEnumerator()
        while enumerator.advance():
            params = self.space.sample_params(enumerator)
            if self.is_feasible(params):
                yield params, self.probability(params)


def _deciding_axes(space: Space) -> frozenset[str]:
    """The axes that decide which others are active: those whose fields a condition uses, and `base`."""
    expressions = (*space.when.values(), *space.derived.values())  # a condition may use a derived axis
    used = {reference for expression in expressions for reference in expression.references()}
    if any(of == "reparam" for of, _ in used):  # the base's small kernel depends on these; see `Space`
        used |= {(of, None) for of in ("K", "dilation", "kernel", "stripe")}
    return frozenset(name for name in space.axes if name == BASE or any(_sets(name, *field) for field in used))


def _sets(axis: str, of: str, stage: int | None) -> bool:
    """Whether an axis may set a field in a stage, which may be counted from the end, or in any with None."""
    own = stage_of(axis)
    return axis.partition("[")[0] == of and (own is None or stage is None or stage < 0 or own == stage)


def _coding(axis: Axis) -> AxisCoding:
    return AxisCoding(len(axis), is_ordered(axis), is_log=isinstance(axis, Range) and axis.log)


def _share(axis: Axis, value: Value) -> float:
    """The probability of a value in a uniform draw on its axis."""
    if isinstance(axis, Range) and axis.log:
        assert isinstance(value, int)
        return math.log((value + 1) / value) / math.log((axis.high + 1) / axis.low)
    return 1 / len(axis)
