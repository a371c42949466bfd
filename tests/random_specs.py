"""Small random networks, for tests that hold for every network."""

from hypothesis import strategies as st

from harness.kernels import KINDS, Kernel
from harness.spec import NetworkSpec

odd_sides = st.integers(0, 7).map(lambda half: 2 * half + 1)

ANY_KIND = st.sampled_from(sorted(KINDS))


@st.composite
def kernels(draw: st.DrawFn, kinds: st.SearchStrategy[str] = ANY_KIND) -> Kernel:
    """Any large kernel of any kind, or of these kinds."""
    name = draw(kinds)
    kind, k = KINDS[name], draw(odd_sides)
    dilation = draw(st.integers(kind.dilations[0], min(3, kind.dilations[1])))
    small = st.none() | st.sampled_from(range(1, k + 1, 2))
    return Kernel(
        k=k,
        s=draw(small) if kind.has_small and dilation == 1 else None,
        kind=name,
        dilation=dilation,
        depthwise=draw(st.booleans()) if kind.can_be_dense else True,
    )


@st.composite
def specs(draw: st.DrawFn) -> NetworkSpec:
    """Any network of the family with few blocks and channels; kernels below, at and above the side of its maps."""
    name = draw(ANY_KIND)
    drawn = [draw(kernels(st.just(name))) for _ in range(4)]
    return NetworkSpec(
        B=tuple(draw(st.integers(1, 2)) for _ in range(4)),
        C=tuple(draw(st.sampled_from((2, 4, 6, 8))) for _ in range(4)),
        K=tuple(kernel.k for kernel in drawn),
        shortcut=draw(st.booleans()),
        reparam=tuple(kernel.s for kernel in drawn),
        kernel=name,
        dilation=tuple(kernel.dilation for kernel in drawn),
        depthwise=all(kernel.depthwise for kernel in drawn),
        dw_ratio=draw(st.sampled_from((0.5, 1.0, 1.5))),
        ffn_ratio=draw(st.sampled_from((1.0, 2.5, 4.0))),
        drop_path=draw(st.sampled_from((0.0, 0.2))),
        stem_stride=draw(st.sampled_from((2, 4))),
        in_channels=draw(st.integers(1, 3)),
        classes=draw(st.integers(1, 5)),
    )
