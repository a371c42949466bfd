"""What blocks consist of, priced: convolutions, batch norm, the classifier."""

from functools import lru_cache

from harness.cost.base import Cost


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
    """Convolution of odd sides k (or height and width), padded so that its centre stands on every stride-th pixel."""
    kh, kw = k if isinstance(k, tuple) else (k, k)
    per_tap = c_in // groups * c
    outputs = strided(h, stride) * strided(w, stride)
    taps = _taps_in_bounds(h, kh, stride, dilation) * _taps_in_bounds(w, kw, stride, dilation)
    return Cost(kh * kw * per_tap + bias * c, kh * kw * per_tap * outputs, per_tap * taps, c * outputs)


def bn(c: int) -> Cost:
    """Batch norm: scale and shift."""
    return Cost(params=2 * c)


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
    return conv(h, w, c_in, c, k=k, stride=stride, dilation=dilation, groups=groups) + bn(c)


def linear(c_in: int, c: int) -> Cost:
    """Fully connected layer with bias."""
    return Cost(c_in * c + c, c_in * c, c_in * c, c)


def strided(n: int, stride: int) -> int:
    """The side of the output of a convolution padded by k // 2."""
    return (n - 1) // stride + 1


@lru_cache(maxsize=4096)
def _taps_in_bounds(n: int, k: int, stride: int, dilation: int) -> int:
    """Along one axis of side n: pairs (output i, tap j) with 0 <= i stride + (j - k // 2) dilation < n."""
    outputs = range(0, strided(n, stride) * stride, stride)
    return sum(min(k // 2, (n - 1 - at) // dilation) + min(k // 2, at // dilation) + 1 for at in outputs)
