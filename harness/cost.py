"""What a network costs, in closed form from its spec: parameters, multiply-accumulates, activations.

Conventions, those of RepLKNet's tables (arXiv 2203.06717): a multiply-accumulate (MAC) counts once; convolutions and
the classifier count, batch norms and activation functions do not. In-bounds MACs leave out the taps on zero padding.
Activations are the elements of all outputs of convolutions and of the classifier, per image.

From leaf to root; each function takes h and w, the sides of its input map, and the arguments of the block it prices.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from harness.spec import NetworkSpec, inner_width


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


def network_cost(spec: NetworkSpec, resolution: int | tuple[int, int], merged: bool = True) -> Cost:
    """The cost of the whole network for one image of that side, or (height, width); by default of its merged form."""
    return sum((part.cost for part in network_parts(spec, resolution, merged)), Cost())


@lru_cache(maxsize=4096)
def network_parts(spec: NetworkSpec, resolution: int | tuple[int, int], merged: bool = True) -> tuple[Part, ...]:
    """The cost of the network part by part, from the stem to the head."""
    h, w = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    return _PARTS[spec.family](spec, h, w, merged)


def conv(h: int, w: int, c_in: int, c: int, *, k: int, stride: int = 1, groups: int = 1, bias: bool = False) -> Cost:
    """k x k convolution padded by k // 2."""
    per_tap = c_in // groups * c
    outputs = strided(h, stride) * strided(w, stride)
    taps = _taps_in_bounds(h, k, stride) * _taps_in_bounds(w, k, stride)
    return Cost(k * k * per_tap + bias * c, k * k * per_tap * outputs, per_tap * taps, c * outputs)


def bn(c: int) -> Cost:
    """Batch norm: scale and shift."""
    return Cost(params=2 * c)


def conv_bn(h: int, w: int, c_in: int, c: int, *, k: int, stride: int = 1, groups: int = 1) -> Cost:
    """bn(conv(x))"""
    return conv(h, w, c_in, c, k=k, stride=stride, groups=groups) + bn(c)


def linear(c_in: int, c: int) -> Cost:
    """Fully connected layer with bias."""
    return Cost(c_in * c + c, c_in * c, c_in * c, c)


def stem(h: int, w: int, c_in: int, c: int, *, stride: int = 4) -> Cost:
    """3x3 dense of stride 2, 3x3 depth-wise, 1x1, 3x3 depth-wise of stride 2 (or 1)."""
    first = conv_bn(h, w, c_in, c, k=3, stride=2)
    h, w = strided(h, 2), strided(w, 2)
    depthwise = conv_bn(h, w, c, c, k=3, groups=c)
    pointwise = conv_bn(h, w, c, c, k=1)
    return first + depthwise + pointwise + conv_bn(h, w, c, c, k=3, stride=stride // 2, groups=c)


def transition(h: int, w: int, c_in: int, c: int) -> Cost:
    """1x1, then 3x3 depth-wise of stride 2."""
    return conv_bn(h, w, c_in, c, k=1) + conv_bn(h, w, c, c, k=3, stride=2, groups=c)


def reparam_conv(
    h: int, w: int, c: int, *, k: int, s: int | None = None, depthwise: bool = True, merged: bool = False
) -> Cost:
    """bn(conv_k(x)) + bn(conv_s(x)), or one biased conv_k(x)."""
    groups = c if depthwise else 1
    if merged:
        return conv(h, w, c, c, k=k, groups=groups, bias=True)
    small = Cost() if s is None else conv_bn(h, w, c, c, k=s, groups=groups)
    return conv_bn(h, w, c, c, k=k, groups=groups) + small


def rep_lk(
    h: int,
    w: int,
    c: int,
    *,
    width: int,
    k: int,
    s: int | None = None,
    depthwise: bool = True,
    merged: bool = False,
) -> Cost:
    """x + pw2(relu(large_kernel(pw1(bn(x)))))"""
    pw1 = conv_bn(h, w, c, width, k=1)
    large_kernel = reparam_conv(h, w, width, k=k, s=s, depthwise=depthwise, merged=merged)
    pw2 = conv_bn(h, w, width, c, k=1)
    return bn(c) + pw1 + large_kernel + pw2


def conv_ffn(h: int, w: int, c: int, *, width: int) -> Cost:
    """x + pw2(gelu(pw1(bn(x))))"""
    return bn(c) + conv_bn(h, w, c, width, k=1) + conv_bn(h, w, width, c, k=1)


def _replknet(spec: NetworkSpec, h: int, w: int, merged: bool) -> tuple[Part, ...]:
    """Stem, then stages with transitions between them, then the head."""
    cost = stem(h, w, spec.in_channels, spec.C[0], stride=spec.stem_stride)
    for stride in (2, spec.stem_stride // 2):
        h, w = strided(h, stride), strided(w, stride)
    parts = [Part("stem", (h, w), cost, Cost())]
    for i, c in enumerate(spec.C):
        if i > 0:
            cost = transition(h, w, spec.C[i - 1], c)
            h, w = strided(h, 2), strided(w, 2)
            parts.append(Part(f"transition {i}", (h, w), cost, Cost()))
        parts.append(Part(f"stage {i + 1}", (h, w), *_replknet_stage(spec, i, h, w, merged)))
    parts.append(Part("head", (1, 1), bn(spec.C[-1]) + linear(spec.C[-1], spec.classes), Cost()))
    return tuple(parts)


def _replknet_stage(spec: NetworkSpec, i: int, h: int, w: int, merged: bool) -> tuple[Cost, Cost]:
    """The cost of stage i, and of the large kernels in it."""
    c, k, s = spec.C[i], spec.K[i], spec.reparam[i]
    width = inner_width(c, spec.dw_ratio)
    large_kernel = reparam_conv(h, w, width, k=k, s=s, depthwise=spec.depthwise, merged=merged)
    block = rep_lk(h, w, c, width=width, k=k, s=s, depthwise=spec.depthwise, merged=merged)
    ffn = conv_ffn(h, w, c, width=inner_width(c, spec.ffn_ratio))
    return (block + ffn) * spec.B[i], large_kernel * spec.B[i]


_PARTS = {"replknet": _replknet}


def strided(n: int, stride: int) -> int:
    """The side of the output of a convolution padded by k // 2."""
    return (n - 1) // stride + 1


@lru_cache(maxsize=4096)
def _taps_in_bounds(n: int, k: int, stride: int) -> int:
    """Along one axis of side n: pairs (output i, tap j) with 0 <= i stride + j - k // 2 < n, over all outputs."""
    outputs = range(0, strided(n, stride) * stride, stride)
    return sum(min(k // 2, n - 1 - at) + min(k // 2, at) + 1 for at in outputs)
