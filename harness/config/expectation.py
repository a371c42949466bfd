"""What a claim expects of its effect: `> 0`, `< -1.5`, or `within 0.5` of nothing."""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

_FORM = re.compile(r"\s*(>|<|within)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")


class ExpectationKind(StrEnum):
    """How an effect is expected to lie to its bound."""

    ABOVE = ">"
    BELOW = "<"
    WITHIN = "within"


@dataclass(frozen=True, slots=True)
class Expectation:
    """Above the bound, below it, or not further from 0 than it. Raises `ValueError` for a bound that is none."""

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
        """The expectation that a text states; `ValueError` with rule, value and examples where it states none."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(
                f"an expectation must be `>`, `<` or `within` and a number, but got {text[:40]!r}. "
                "Write `> 0`, `< -1.5` or `within 0.5`."
            )
        return cls(ExpectationKind(match[1]), float(match[2]))

    @property
    def bounds(self) -> tuple[float, ...]:
        """The values at which the expectation begins or ends to hold."""
        return (-self.bound, self.bound) if self.kind == ExpectationKind.WITHIN else (self.bound,)

    def nearest(self, effect: float) -> float:
        """The bound that is hardest to tell from an effect."""
        return min(self.bounds, key=lambda bound: abs(effect - bound))

    def holds(self, effect: float) -> bool:
        """Whether an effect that is known without error is as expected."""
        match self.kind:
            case ExpectationKind.ABOVE:
                return effect > self.bound
            case ExpectationKind.BELOW:
                return effect < self.bound
            case ExpectationKind.WITHIN:
                return abs(effect) <= self.bound
