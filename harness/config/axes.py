"""The axes of a search space: which field of a network varies, over which values, and the samplers that choose one.

An axis is named after a field of the spec (`K`), or after one stage of a field that has one value per stage (`K[3]`);
the axis `base` chooses among whole networks, and `recipe.optimizer.lr` sets a key of the proxy (`recipe_axes`).
"""

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harness.config.recipe_axes import KEY_MODELS, PREFIX, is_recipe_axis, require_recipe_axis
from harness.errors import StudyError, did_you_mean
from harness.models.spec.network import FIELDS, PER_STAGE

Scalar = bool | int | float | str | None
Value = Scalar | tuple[Scalar, ...]

MAX_VALUES = 10**9
"""Maximum number of values of one axis."""
BASE = "base"
"""The axis that chooses a whole network, whose values apply wherever no other axis decides."""
DATA_FIELDS = ("in_channels", "classes")
"""Fields that follow from the data set, so that they cannot be axes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An axis of unordered values; each is a scalar, null, or one value per stage."""

    values: tuple[Value, ...]
    prior: tuple[float, ...] | None = None
    """A weight for each value: how much it is expected to be the best one."""

    def __post_init__(self) -> None:
        if not self.values:
            raise StudyError("An axis must have at least one value", remedy="List the values to try.")

    def __len__(self) -> int:
        return len(self.values)

    def at(self, i: int) -> Value:
        """The value with that index."""
        return self.values[i]

    def member(self, value: object) -> Value:
        """The value of the axis that equals this one. Raises `StudyError` if there is none."""
        plain = tuple(value) if isinstance(value, list) else value
        for member in self.values:
            if member == plain and isinstance(member, bool) == isinstance(plain, bool):
                return member
        raise StudyError("A choice must be one of the axis' values", value=value)


@dataclass(frozen=True, slots=True)
class Range:
    """An ordinal axis: low, low + step, ..., high. With `log`, samplers draw uniformly on a logarithmic scale."""

    low: int | float
    high: int | float
    step: int | float = 1
    log: bool = False
    prior: tuple[float, ...] | None = None
    """As in `Choice`."""

    def __post_init__(self) -> None:
        if self.step <= 0:
            raise StudyError("`step` must be above 0", value=self.step)
        if self.low > self.high:
            raise StudyError(f"`high` must be at least `low` ({self.low})", value=self.high)
        steps = (self.high - self.low) / self.step
        if steps > MAX_VALUES:
            raise StudyError(f"`step` must leave at most {MAX_VALUES:,} values", value=self.step)
        if not math.isclose(steps, round(steps), rel_tol=1e-9, abs_tol=1e-9):
            below, above = (_round_float(self.low + n * self.step) for n in (math.floor(steps), math.ceil(steps)))
            rule = f"`high` must be `low` ({self.low}) plus a whole number of steps of {self.step}"
            raise StudyError(rule, value=self.high, remedy=f"Try {below} or {above}.")
        if self.log and not (self.is_integer and self.low >= 1 and self.step == 1):
            raise StudyError("`log` needs whole numbers from 1 on and a `step` of 1")

    def __len__(self) -> int:
        return round((self.high - self.low) / self.step) + 1

    @property
    def is_integer(self) -> bool:
        """Whether all values are whole numbers."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.step))

    @property
    def values(self) -> tuple[int | float, ...]:
        """All values, from low to high."""
        return tuple(self.at(i) for i in range(len(self)))

    def at(self, i: int) -> int | float:
        """The value with that index."""
        return _round_float(self.low + i * self.step)

    def member(self, value: object) -> int | float:
        """The value of the axis that equals this one up to rounding. Raises `StudyError` if there is none."""
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            i = round((value - self.low) / self.step)
            if 0 <= i < len(self) and math.isclose(self.at(i), value, rel_tol=1e-9, abs_tol=1e-9 * self.step):
                return self.at(i)
        raise StudyError(f"A choice must be one of {self.low}, {self.low + self.step}, ..., {self.high}", value=value)


Axis = Choice | Range
Sampler = Callable[[str, Axis], Any]
"""Function of an axis' name and the axis that returns one of its values; called only for active axes."""


@lru_cache(maxsize=4096)
def split_name(name: str, stages: int) -> tuple[str, int | None]:
    """The field that an axis sets, and the stage if it sets only one; `base` and a key of the proxy count as fields.

    Raises `StudyError` for other names.
    """
    if name == BASE:
        return BASE, None
    if is_recipe_axis(name):
        require_recipe_axis(name)
        return name, None
    match = re.fullmatch(r"(\w+)(?:\[(\d{1,3})\])?", name)
    of, stage = (match[1], match[2]) if match else (name, None)
    if of not in FIELDS:
        allowed = [field for field in FIELDS if field not in DATA_FIELDS]
        remedy = did_you_mean(of, allowed, "Fields")
        if name in KEY_MODELS:
            remedy = f"Write `{PREFIX}{name}` for the key of the proxy."
        raise StudyError(f"`{name:.60}` must be a field of the network", remedy=remedy)
    if of in DATA_FIELDS:
        raise StudyError(f"`{name}` cannot be an axis: the data set decides it")
    if stage is None:
        return of, None
    if of not in PER_STAGE:
        raise StudyError(f"`{of}` has one value for all stages", value=name, remedy=f"Write `{of}`.")
    if int(stage) >= stages:
        raise StudyError(f"`{of}` has the stages 0 to {stages - 1}", value=name, remedy=f"Try `{of}[{stages - 1}]`.")
    return of, int(stage)


def random_sampler(seed: int) -> Sampler:
    """A sampler that draws uniformly on every axis (on its logarithmic scale with `log`); determined by the seed."""
    generator = random.Random(seed)
    return lambda _, axis: _draw_uniformly(axis, generator)


def prior_sampler(seed: int) -> Sampler:
    """A sampler that draws from the prior of each axis, uniformly where it has none; determined by the seed."""
    generator = random.Random(seed)

    def choose(_: str, axis: Axis) -> Value:
        if axis.prior is None:
            return _draw_uniformly(axis, generator)
        return axis.at(generator.choices(range(len(axis)), axis.prior)[0])

    return choose


def _draw_uniformly(axis: Axis, generator: random.Random) -> Value:
    if isinstance(axis, Range) and axis.log:
        drawn = math.exp(generator.uniform(math.log(axis.low), math.log(axis.high + 1)))
        return min(int(drawn), int(axis.high))
    return axis.at(generator.randrange(len(axis)))


class GridEnumerator:
    """A sampler that enumerates all combinations; the last axis varies fastest."""

    def __init__(self) -> None:
        self._digits: list[int] | None = None
        self._lengths: list[int] = []

    def advance(self) -> bool:
        """Go to the next combination; False after the last one."""
        if self._digits is None:
            self._digits = []
            return True
        while self._digits and self._digits[-1] + 1 == self._lengths[len(self._digits) - 1]:
            self._digits.pop()
        self._lengths = []
        if self._digits:
            self._digits[-1] += 1
        return bool(self._digits)

    def __call__(self, _: str, axis: Axis) -> Value:
        """The value of that axis in the current combination."""
        assert self._digits is not None, "advance() must be called first"
        if len(self._lengths) == len(self._digits):
            self._digits.append(0)
        self._lengths.append(len(axis))
        return axis.at(self._digits[len(self._lengths) - 1])


def _round_float(number: int | float) -> int | float:
    """Remove floating-point noise: 0.3 and not 0.30000000000000004."""
    return number if isinstance(number, int) else round(number, 12)
