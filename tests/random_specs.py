"""Small random networks, for tests that hold for every network."""

from hypothesis import strategies as st

from harness.spec import NetworkSpec

odd_sides = st.integers(0, 7).map(lambda half: 2 * half + 1)


@st.composite
def specs(draw: st.DrawFn) -> NetworkSpec:
    """Any network of the family with few blocks and channels; kernels below, at and above the side of its maps."""
    kernels = [draw(odd_sides) for _ in range(4)]
    return NetworkSpec(
        B=tuple(draw(st.integers(1, 2)) for _ in range(4)),
        C=tuple(draw(st.sampled_from((2, 4, 6, 8))) for _ in range(4)),
        K=tuple(kernels),
        shortcut=draw(st.booleans()),
        reparam=tuple(draw(st.none() | st.sampled_from(range(1, k + 1, 2))) for k in kernels),
        depthwise=draw(st.booleans()),
        dw_ratio=draw(st.sampled_from((0.5, 1.0, 1.5))),
        ffn_ratio=draw(st.sampled_from((1.0, 2.5, 4.0))),
        drop_path=draw(st.sampled_from((0.0, 0.2))),
        stem_stride=draw(st.sampled_from((2, 4))),
        in_channels=draw(st.integers(1, 3)),
        classes=draw(st.integers(1, 5)),
    )
