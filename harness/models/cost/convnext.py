"""The cost of ConvNeXt (arXiv 2201.03545, section 2), from its blocks to the network."""

from harness.models.cost.large_kernels import large_kernel
from harness.models.cost.layers import Cost, Part, conv, linear, ln, patches
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import Kernel
from harness.models.spec.network import NetworkSpec, inner_width


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


def parts(spec: NetworkSpec, h: int, w: int, merged: bool) -> tuple[Part, ...]:
    """Stem, stages with their downsampling, and the head."""
    cost = convnext_stem(h, w, spec.in_channels, spec.C[0], stride=spec.stem_stride)
    h, w = h // spec.stem_stride, w // spec.stem_stride
    rows = [Part("stem", (h, w), cost, Cost())]
    for i, (c, stride) in enumerate(zip(spec.C, FAMILIES[spec.family].strides, strict=True)):
        step = downsample(h, w, spec.C[i - 1], c) if stride > 1 else Cost()
        h, w, kernel = h // stride, w // stride, spec.kernel_of(i)
        block = convnext_block(h, w, c, width=inner_width(c, spec.ffn_ratio), kernel=kernel, merged=merged)
        large = conv_dw(h, w, c, kernel, merged=merged)
        rows.append(Part(f"stage {i + 1}", (h, w), step + block * spec.B[i], large * spec.B[i]))
    return (*rows, Part("head", (1, 1), ln(spec.C[-1]) + linear(spec.C[-1], spec.classes), Cost()))
