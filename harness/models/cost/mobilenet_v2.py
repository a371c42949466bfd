"""The cost of MobileNetV2 (arXiv 1801.04381, table 2), from its blocks to the network."""

from harness.models.cost.large_kernels import large_kernel
from harness.models.cost.layers import Cost, Part, conv_bn, linear, strided
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import Kernel
from harness.models.spec.network import NetworkSpec, inner_width

STEM = 2
"""Channels of the stem relative to those of the first stage."""
LAST = 4
"""Channels of the last 1x1 relative to those of the last stage."""


def inverted_residual(
    h: int, w: int, c_in: int, c: int, *, width: int, kernel: Kernel, stride: int = 1, merged: bool = False
) -> Cost:
    """x + pw2(relu6(large_kernel(relu6(pw1(x))))), without pw1 if width is c_in"""
    pw1 = Cost() if width == c_in else conv_bn(h, w, c_in, width, k=1)
    large = large_kernel(h, w, width, kernel, stride=stride, merged=merged)
    return pw1 + large + conv_bn(strided(h, stride), strided(w, stride), width, c, k=1)


def parts(spec: NetworkSpec, h: int, w: int, merged: bool) -> tuple[Part, ...]:
    """Stem, stages, and the head with its 1x1 before the pooling."""
    c_in = STEM * spec.C[0]
    cost = conv_bn(h, w, spec.in_channels, c_in, k=3, stride=spec.stem_stride)
    h, w = strided(h, spec.stem_stride), strided(w, spec.stem_stride)
    rows = [Part("stem", (h, w), cost, Cost())]
    for i, (c, stride) in enumerate(zip(spec.C, FAMILIES[spec.family].strides, strict=True)):
        cost, large = _stage(spec, i, h, w, c_in, merged)
        h, w, c_in = strided(h, stride), strided(w, stride), c
        rows.append(Part(f"stage {i + 1}", (h, w), cost, large))
    cost = conv_bn(h, w, c_in, LAST * c_in, k=1) + linear(LAST * c_in, spec.classes)
    return (*rows, Part("head", (1, 1), cost, Cost()))


def _stage(spec: NetworkSpec, i: int, h: int, w: int, c_in: int, merged: bool) -> tuple[Cost, Cost]:
    """The cost of stage i and of its large kernels; its first block has the stride and c_in input channels."""
    whole, larges = Cost(), Cost()
    for c_from, stride, count in ((c_in, FAMILIES[spec.family].strides[i], 1), (spec.C[i], 1, spec.B[i] - 1)):
        width, kernel = expanded(spec, i, c_from), spec.kernel_of(i)
        block = inverted_residual(h, w, c_from, spec.C[i], width=width, kernel=kernel, stride=stride, merged=merged)
        whole += block * count
        larges += large_kernel(h, w, width, kernel, stride=stride, merged=merged) * count
        h, w = strided(h, stride), strided(w, stride)
    return whole, larges


def expanded(spec: NetworkSpec, i: int, c_in: int) -> int:
    """Width inside a block of stage i with c_in input channels; the first stage does not expand."""
    return c_in if i == 0 else inner_width(c_in, spec.ffn_ratio)
