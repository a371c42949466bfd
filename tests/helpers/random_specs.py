"""Small random networks, for tests that hold for every network."""

from typing import Any

from hypothesis import strategies as st

from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import KERNEL_KINDS, Kernel, largest_small_kernel
from harness.models.spec.network import NetworkSpec

odd_sides = st.integers(0, 7).map(lambda half: 2 * half + 1)

ANY_KIND = st.sampled_from(sorted(KERNEL_KINDS))

OWN: dict[str, st.SearchStrategy[Any]] = {
    "stripe": st.sampled_from((1, 3, 5, 7)),
    "band_ratio": st.sampled_from((0.01, 0.125, 0.2, 1 / 3)),
}
"""Values of the fields that count with one kind of kernel alone."""


@st.composite
def kernels(
    draw: st.DrawFn, kinds: st.SearchStrategy[str] = ANY_KIND, kind_fields: dict[str, Any] | None = None
) -> Kernel:
    """Any large kernel of any kind, or of these kinds; with these values of its kind's own fields."""
    name = draw(kinds)
    kind = KERNEL_KINDS[name]
    kernel = Kernel(
        k=15,
        kind=name,
        dilation=draw(st.integers(kind.dilations[0], min(3, kind.dilations[1]))),
        depthwise=draw(st.booleans()) if kind.can_be_dense else True,
        **({field: draw(OWN[field]) for field in kind.fields} if kind_fields is None else kind_fields),
    )
    kernel = kernel._replace(k=draw(st.sampled_from(range(kind.least_k(kernel), kernel.k + 1, 2))))
    return kernel._replace(s=draw(st.sampled_from((None, *range(1, largest_small_kernel(kernel) + 1, 2)))))


@st.composite
def specs(draw: st.DrawFn) -> NetworkSpec:
    """Any network with few blocks and channels, half of them with stages that differ in all fields per stage.

    Kernels are below, at and above the side of its maps.
    """
    family = draw(st.sampled_from(sorted(FAMILIES)))
    stages, stem_strides, lacks = (
        FAMILIES[family].stages,
        FAMILIES[family].stem_strides,
        FAMILIES[family].unsupported_fields,
    )
    differs = draw(st.booleans())
    kinds = [draw(ANY_KIND) for _ in range(stages)] if differs else [draw(ANY_KIND)] * stages
    kind_fields = {field: draw(OWN[field]) for kind in sorted(set(kinds)) for field in KERNEL_KINDS[kind].fields}
    drawn = [draw(kernels(st.just(kind), kind_fields)) for kind in kinds]
    widths = (8, 10, 12) if any(KERNEL_KINDS[kind].least_width > 1 for kind in kinds) else (2, 4, 6, 8)
    dense = [kernel.depthwise for kernel in drawn]

    def per_stage(values: st.SearchStrategy[Any]) -> Any:
        return tuple(draw(values) for _ in range(stages)) if differs else draw(values)

    return NetworkSpec(
        family=family,
        B=tuple(draw(st.integers(1, 2)) for _ in range(stages)),
        C=tuple(draw(st.sampled_from(widths)) for _ in range(stages)),
        K=tuple(kernel.k for kernel in drawn),
        shortcut=per_stage(st.booleans()),
        reparam=tuple(kernel.s for kernel in drawn),
        kernel=tuple(kinds),
        dilation=tuple(kernel.dilation for kernel in drawn),
        depthwise=tuple(dense) if differs else all(dense),
        dw_ratio=1.0 if "dw_ratio" in lacks else per_stage(st.sampled_from((0.5, 1.0, 1.5))),
        ffn_ratio=per_stage(st.sampled_from((1.0, 2.5, 4.0))),
        drop_path=draw(st.sampled_from((0.0, 0.2))),
        stem_stride=draw(st.sampled_from(stem_strides)),
        in_channels=draw(st.integers(1, 3)),
        classes=draw(st.integers(1, 5)),
        **kind_fields,
    )


@st.composite
def specs_and_sizes(draw: st.DrawFn, least: int = 1) -> tuple[NetworkSpec, tuple[int, int]]:
    """Any network, and an image on whose last map something is left."""
    spec = draw(specs())
    sides = st.integers(max(least, FAMILIES[spec.family].least_side(spec.stem_stride)), 50)
    return spec, (draw(sides), draw(sides))
