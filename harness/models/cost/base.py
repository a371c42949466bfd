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
    params_saved: int = 0
    """Of `params`, those that vanish when every batch norm is folded into the convolution or classifier beside it."""

    @property
    def params_folded(self) -> int:
        """Parameters with every batch norm folded: how the paper counts, there in the merged form."""
        return self.params - self.params_saved

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.params + other.params,
            self.macs + other.macs,
            self.macs_in_bounds + other.macs_in_bounds,
            self.activations + other.activations,
            self.params_saved + other.params_saved,
        )

    def __mul__(self, n: int) -> "Cost":
        return Cost(
            self.params * n, self.macs * n, self.macs_in_bounds * n, self.activations * n, self.params_saved * n
        )


class Part(NamedTuple):
    """One row of the table of a network's costs."""

    name: str
    """`stem`, `stage 1`, `transition 1`, ... `head`."""
    size: tuple[int, int]
    """Height and width of its output map."""
    cost: Cost
    large_kernels: Cost
    """The share of the large-kernel convolutions (their small parallel kernels included) in `cost`."""
