"""The cost of RepLKNet (arXiv 2203.06717, section 4.1), from its blocks to the network."""

from harness.models.cost.large_kernels import large_kernel
from harness.models.cost.layers import Cost, Part, bn, conv_bn, linear, strided
from harness.models.spec.kernel import Kernel
from harness.models.spec.network import NetworkSpec, inner_width


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


def rep_lk(h: int, w: int, c: int, *, width: int, kernel: Kernel, merged: bool = False) -> Cost:
    """x + pw2(relu(large_kernel(pw1(bn(x)))))"""
    pw1 = conv_bn(h, w, c, width, k=1)
    pw2 = conv_bn(h, w, width, c, k=1)
    return bn(c) + pw1 + large_kernel(h, w, width, kernel, merged=merged) + pw2


def conv_ffn(h: int, w: int, c: int, *, width: int) -> Cost:
    """x + pw2(gelu(pw1(bn(x))))"""
    return bn(c) + conv_bn(h, w, c, width, k=1) + conv_bn(h, w, width, c, k=1)


def parts(spec: NetworkSpec, h: int, w: int, merged: bool) -> tuple[Part, ...]:
    """Stem, then stages with transitions between them, then the head."""
    cost = stem(h, w, spec.in_channels, spec.C[0], stride=spec.stem_stride)
    for stride in (2, spec.stem_stride // 2):
        h, w = strided(h, stride), strided(w, stride)
    rows = [Part("stem", (h, w), cost, Cost())]
    for i, c in enumerate(spec.C):
        if i > 0:
            cost = transition(h, w, spec.C[i - 1], c)
            h, w = strided(h, 2), strided(w, 2)
            rows.append(Part(f"transition {i}", (h, w), cost, Cost()))
        rows.append(Part(f"stage {i + 1}", (h, w), *_stage(spec, i, h, w, merged)))
    rows.append(Part("head", (1, 1), bn(spec.C[-1]) + linear(spec.C[-1], spec.classes), Cost()))
    return tuple(rows)


def _stage(spec: NetworkSpec, i: int, h: int, w: int, merged: bool) -> tuple[Cost, Cost]:
    """The cost of stage i and of its large kernels."""
    c, kernel = spec.C[i], spec.kernel_of(i)
    width = inner_width(c, spec.dw_ratio)
    block = rep_lk(h, w, c, width=width, kernel=kernel, merged=merged)
    ffn = conv_ffn(h, w, c, width=inner_width(c, spec.ffn_ratio))
    return (block + ffn) * spec.B[i], large_kernel(h, w, width, kernel, merged=merged) * spec.B[i]
