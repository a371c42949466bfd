"""The cost of one image, and the table of a network's parts."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs of one image; they add up, and `cost * n` is that of n equal parts."""

    params: int = 0
    macs: int = 0
    macs_in_bounds: int = 0
    activations: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.params + other.params,
            self.macs + other.macs,
            self.macs_in_bounds + other.macs_in_bounds,
            self.activations + other.activations,
        )

    def __mul__(self, n: int) -> "Cost":
        return Cost(self.params * n, self.macs * n, self.macs_in_bounds * n, self.activations * n)


class Part(NamedTuple):
    """One row of the table of a network's costs."""

    name: str
    """`stem`, `stage 1`, `transition 1`, ... `head`."""
    size: tuple[int, int]
    """Height and width of its output map."""
    cost: Cost
    large_kernels: Cost
    """The share of the large-kernel convolutions (their small parallel kernels included) in `cost`."""
