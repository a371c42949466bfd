"""The costs of the families, from their blocks to the networks.

Sources: RepLKNet, arXiv 2203.06717, section 4.1; MobileNetV2, arXiv 1801.04381, table 2; ConvNeXt, arXiv 2201.03545,
section 2.
"""

from collections.abc import Callable
from functools import lru_cache

from harness.models.cost.large_kernels import large_kernel
from harness.models.cost.layers import Cost, Part, bn, conv, conv_bn, linear, ln, patches, strided
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import Kernel
from harness.models.spec.network import NetworkSpec, inner_width

MOBILENET_STEM = 2
"""Channels of the stem relative to those of the first stage."""
MOBILENET_LAST = 4
"""Channels of the last 1x1 relative to those of the last stage."""


@lru_cache(maxsize=4096)
def replknet_stem(h: int, w: int, c_in: int, c: int, *, stride: int = 4) -> Cost:
    """3x3 dense of stride 2, 3x3 depth-wise, 1x1, 3x3 depth-wise of stride 2 (or 1)."""
    first = conv_bn(h, w, c_in, c, k=3, stride=2)
    h, w = strided(h, 2), strided(w, 2)
    depthwise = conv_bn(h, w, c, c, k=3, groups=c)
    pointwise = conv_bn(h, w, c, c, k=1)
    return first + depthwise + pointwise + conv_bn(h, w, c, c, k=3, stride=stride // 2, groups=c)


@lru_cache(maxsize=65_536)
def transition(h: int, w: int, c_in: int, c: int) -> Cost:
    """1x1, then 3x3 depth-wise of stride 2."""
    return conv_bn(h, w, c_in, c, k=1) + conv_bn(h, w, c, c, k=3, stride=2, groups=c)


def rep_lk(h: int, w: int, c: int, *, width: int, kernel: Kernel, merged: bool = False) -> Cost:
    """x + pw2(relu(large_kernel(pw1(bn(x)))))"""
    pw1 = conv_bn(h, w, c, width, k=1)
    pw2 = conv_bn(h, w, width, c, k=1)
    return bn(c) + pw1 + large_kernel(h, w, width, kernel, merged=merged) + pw2


def conv_ffn(h: int, w: int, c: int, *, width: int) -> Cost:
    """x + pw2(gelu(pw1(bn(x))))"""
    return bn(c) + conv_bn(h, w, c, width, k=1) + conv_bn(h, w, width, c, k=1)


def _replknet(spec: NetworkSpec, h: int, w: int, merged: bool) -> tuple[Part, ...]:
    """Stem, then stages with transitions between them, then the head."""
    cost = replknet_stem(h, w, spec.in_channels, spec.C[0], stride=spec.stem_stride)
    for stride in (2, spec.stem_stride // 2):
        h, w = strided(h, stride), strided(w, stride)
    rows = [Part("stem", (h, w), cost, Cost())]
    for i, c in enumerate(spec.C):
        if i > 0:
            cost = transition(h, w, spec.C[i - 1], c)
            h, w = strided(h, 2), strided(w, 2)
            rows.append(Part(f"transition {i}", (h, w), cost, Cost()))
        rows.append(Part(f"stage {i + 1}", (h, w), *_replknet_stage(spec, i, h, w, merged)))
    rows.append(Part("head", (1, 1), bn(spec.C[-1]) + linear(spec.C[-1], spec.classes), Cost()))
    return tuple(rows)


def _replknet_stage(spec: NetworkSpec, i: int, h: int, w: int, merged: bool) -> tuple[Cost, Cost]:
    """The cost of stage i and of its large kernels."""
    c, kernel = spec.C[i], spec.kernel_of(i)
    width = inner_width(c, spec.at("dw_ratio", i))
    hidden = inner_width(c, spec.at("ffn_ratio", i))
    pair = _replknet_pair(h, w, c, width, hidden, kernel, merged)
    return pair * spec.B[i], large_kernel(h, w, width, kernel, merged=merged) * spec.B[i]


@lru_cache(maxsize=65_536)
def _replknet_pair(h: int, w: int, c: int, width: int, hidden: int, kernel: Kernel, merged: bool) -> Cost:
    """A large-kernel block and the ConvFFN after it."""
    return rep_lk(h, w, c, width=width, kernel=kernel, merged=merged) + conv_ffn(h, w, c, width=hidden)


def inverted_residual(
    h: int, w: int, c_in: int, c: int, *, width: int, kernel: Kernel, stride: int = 1, merged: bool = False
) -> Cost:
    """x + pw2(relu6(large_kernel(relu6(pw1(x))))), without pw1 if width is c_in"""
    pw1 = Cost() if width == c_in else conv_bn(h, w, c_in, width, k=1)
    large = large_kernel(h, w, width, kernel, stride=stride, merged=merged)
    return pw1 + large + conv_bn(strided(h, stride), strided(w, stride), width, c, k=1)


def _mobilenet_v2(spec: NetworkSpec, h: int, w: int, merged: bool) -> tuple[Part, ...]:
    """Stem, stages, and the head with its 1x1 before the pooling."""
    c_in = MOBILENET_STEM * spec.C[0]
    cost = conv_bn(h, w, spec.in_channels, c_in, k=3, stride=spec.stem_stride)
    h, w = strided(h, spec.stem_stride), strided(w, spec.stem_stride)
    rows = [Part("stem", (h, w), cost, Cost())]
    for i, (c, stride) in enumerate(zip(spec.C, FAMILIES[spec.family].strides, strict=True)):
        cost, large = _mobilenet_stage(spec, i, h, w, c_in, merged)
        h, w, c_in = strided(h, stride), strided(w, stride), c
        rows.append(Part(f"stage {i + 1}", (h, w), cost, large))
    cost = conv_bn(h, w, c_in, MOBILENET_LAST * c_in, k=1) + linear(MOBILENET_LAST * c_in, spec.classes)
    return (*rows, Part("head", (1, 1), cost, Cost()))


def _mobilenet_stage(spec: NetworkSpec, i: int, h: int, w: int, c_in: int, merged: bool) -> tuple[Cost, Cost]:
    """The cost of stage i and of its large kernels; its first block has the stride and c_in input channels."""
    whole, larges = Cost(), Cost()
    for c_from, stride, count in ((c_in, FAMILIES[spec.family].strides[i], 1), (spec.C[i], 1, spec.B[i] - 1)):
        width, kernel = expanded_width(spec, i, c_from), spec.kernel_of(i)
        block = inverted_residual(h, w, c_from, spec.C[i], width=width, kernel=kernel, stride=stride, merged=merged)
        whole += block * count
        larges += large_kernel(h, w, width, kernel, stride=stride, merged=merged) * count
        h, w = strided(h, stride), strided(w, stride)
    return whole, larges


def expanded_width(spec: NetworkSpec, i: int, c_in: int) -> int:
    """Width inside a block of stage i with c_in input channels; the first stage does not expand."""
    is_fixed = i in FAMILIES[spec.family].unexpanded_stages
    return c_in if is_fixed else inner_width(c_in, spec.at("ffn_ratio", i))


def is_single(kernel: Kernel, *, merged: bool) -> bool:
    """Whether the kernel is one biased convolution without a norm, as ConvNeXt's own is in either form."""
    return kernel.kind == "plain" and (merged or kernel.s is None)


def convnext_stem(h: int, w: int, c_in: int, c: int, *, stride: int = 4) -> Cost:
    """ln(conv(x)), with one patch of side `stride` per output pixel"""
    return patches(h, w, c_in, c, k=stride) + ln(c)


def downsample(h: int, w: int, c_in: int, c: int) -> Cost:
    """conv(ln(x)), with one 2x2 patch per output pixel"""
    return ln(c_in) + patches(h, w, c_in, c, k=2)


def conv_dw(h: int, w: int, c: int, kernel: Kernel, *, merged: bool = False) -> Cost:
    """The large kernel of any kind, ConvNeXt's own included."""
    if not is_single(kernel, merged=merged):
        return large_kernel(h, w, c, kernel, merged=merged)
    groups = c if kernel.depthwise else 1
    return conv(h, w, c, c, k=kernel.k, dilation=kernel.dilation, groups=groups, bias=True)


def convnext_block(h: int, w: int, c: int, *, width: int, kernel: Kernel, merged: bool = False) -> Cost:
    """x + gamma mlp(ln(conv_dw(x)))"""
    mlp = linear(c, width, positions=h * w) + linear(width, c, positions=h * w)
    return conv_dw(h, w, c, kernel, merged=merged) + ln(c) + mlp + Cost(params=c)


def _convnext(spec: NetworkSpec, h: int, w: int, merged: bool) -> tuple[Part, ...]:
    """Stem, stages with their downsampling, and the head."""
    cost = convnext_stem(h, w, spec.in_channels, spec.C[0], stride=spec.stem_stride)
    h, w = h // spec.stem_stride, w // spec.stem_stride
    rows = [Part("stem", (h, w), cost, Cost())]
    for i, (c, stride) in enumerate(zip(spec.C, FAMILIES[spec.family].strides, strict=True)):
        step = downsample(h, w, spec.C[i - 1], c) if stride > 1 else Cost()
        h, w, kernel = h // stride, w // stride, spec.kernel_of(i)
        block = convnext_block(h, w, c, width=inner_width(c, spec.at("ffn_ratio", i)), kernel=kernel, merged=merged)
        large = conv_dw(h, w, c, kernel, merged=merged)
        rows.append(Part(f"stage {i + 1}", (h, w), step + block * spec.B[i], large * spec.B[i]))
    return (*rows, Part("head", (1, 1), ln(spec.C[-1]) + linear(spec.C[-1], spec.classes), Cost()))


PARTS: dict[str, Callable[[NetworkSpec, int, int, bool], tuple[Part, ...]]] = {
    "replknet": _replknet,
    "mobilenet_v2": _mobilenet_v2,
    "convnext": _convnext,
}
"""(spec, height, width, merged) -> the parts of a network, by the spec's `family`."""
