"""The cost of one image, and of the layers that blocks consist of: convolutions, norms, fully connected layers."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one image; costs can be added, and `cost * n` is the cost of n equal parts."""

    params: int = 0
    macs: int = 0
    macs_in_bounds: int = 0
    activations: int = 0
    params_saved: int = 0
    """The part of `params` that vanishes when every batch norm is folded into an adjacent convolution or classifier."""

    @property
    def params_folded(self) -> int:
        """Parameters with every batch norm folded; the paper counts these, in the merged form."""
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
    """The part of `cost` in large-kernel convolutions, including their small parallel kernels."""


def conv(
    h: int,
    w: int,
    c_in: int,
    c: int,
    *,
    k: int | tuple[int, int],
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> Cost:
    """Convolution of odd sides k (or height and width), padded so that it is centered on every stride-th pixel."""
    kh, kw = k if isinstance(k, tuple) else (k, k)
    per_tap = c_in // groups * c
    outputs = strided(h, stride) * strided(w, stride)
    taps = _taps_in_bounds(h, kh, stride, dilation) * _taps_in_bounds(w, kw, stride, dilation)
    return Cost(kh * kw * per_tap + bias * c, kh * kw * per_tap * outputs, per_tap * taps, c * outputs)


def bn(c: int) -> Cost:
    """Batch norm: scale and shift."""
    return Cost(params=2 * c, params_saved=2 * c)


def conv_bn(
    h: int,
    w: int,
    c_in: int,
    c: int,
    *,
    k: int | tuple[int, int],
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Cost:
    """bn(conv(x))"""
    folded_to_bias = Cost(params=2 * c, params_saved=c)
    return conv(h, w, c_in, c, k=k, stride=stride, dilation=dilation, groups=groups) + folded_to_bias


def patches(h: int, w: int, c_in: int, c: int, *, k: int) -> Cost:
    """Biased k x k convolution of stride k without padding: one patch per output, dropping a remainder."""
    per_output, outputs = k * k * c_in * c, (h // k) * (w // k)
    return Cost(per_output + c, per_output * outputs, per_output * outputs, c * outputs)


def ln(c: int) -> Cost:
    """Layer norm: scale and shift."""
    return Cost(params=2 * c)


def linear(c_in: int, c: int, *, positions: int = 1) -> Cost:
    """Fully connected layer with bias, applied at `positions` positions."""
    return Cost(c_in * c + c, c_in * c * positions, c_in * c * positions, c * positions)


def strided(n: int, stride: int) -> int:
    """The side of the output of a convolution padded by k // 2."""
    return (n - 1) // stride + 1


@lru_cache(maxsize=4096)
def _taps_in_bounds(n: int, k: int, stride: int, dilation: int) -> int:
    """Along one axis of side n: pairs (output i, tap j) with 0 <= i stride + (j - k // 2) dilation < n."""
    last, reach = strided(n, stride) - 1, min(k // 2, (n - 1) // dilation)
    offsets = range(-reach * dilation, reach * dilation + 1, dilation)
    return sum(max(0, 1 + min(last, (n - 1 - at) // stride) + min(0, at // stride)) for at in offsets)
