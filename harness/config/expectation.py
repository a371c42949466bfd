"""The effect that a claim expects: `> 0`, `< -1.5`, or `within 0.5` of 0."""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

_FORM = re.compile(r"\s*(>|<|within)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")


class ExpectationKind(StrEnum):
    """The relation that is expected between an effect and its bound."""

    ABOVE = ">"
    BELOW = "<"
    WITHIN = "within"


@dataclass(frozen=True, slots=True)
class Expectation:
    """An expected effect: above a bound, below it, or within it of 0. Raises `ValueError` for an invalid bound."""

    kind: ExpectationKind
    bound: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.bound):
            raise ValueError(f"the bound of an expectation must be finite, but got {self.bound}")
        if self.kind == ExpectationKind.WITHIN and self.bound < 0:
            raise ValueError(f"the bound of `within` must not be negative, but got {self.bound:g}. Try `within 0.5`.")

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:g}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an expectation. Raises `ValueError` with rule, value and examples for an invalid text."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(
                f"an expectation must be `>`, `<` or `within` and a number, but got {text[:40]!r}. "
                "Write `> 0`, `< -1.5` or `within 0.5`."
            )
        return cls(ExpectationKind(match[1]), float(match[2]))

    @property
    def bounds(self) -> tuple[float, ...]:
        """The effects at which the expectation starts or ceases to be met."""
        return (-self.bound, self.bound) if self.kind == ExpectationKind.WITHIN else (self.bound,)

    def nearest(self, effect: float) -> float:
        """The bound that is closest to an effect."""
        return min(self.bounds, key=lambda bound: abs(effect - bound))

    def holds(self, effect: float) -> bool:
        """Whether an effect, known without error, is as expected."""
        match self.kind:
            case ExpectationKind.ABOVE:
                return effect > self.bound
            case ExpectationKind.BELOW:
                return effect < self.bound
            case ExpectationKind.WITHIN:
                return abs(effect) <= self.bound
