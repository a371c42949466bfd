"""Arguments for any block of the table, drawn from the alphabet that all blocks share."""

import inspect
from typing import Any

from hypothesis import strategies as st
from random_specs import kernels, odd_sides
from torch import nn

from harness.models.convnext_patches import ConvNeXtStem, Downsample
from harness.models.large_kernels import LARGE_KERNELS
from harness.models.replknet_stem import Stem
from harness.models.replknet_transition import Transition
from harness.models.spec.kernel import KINDS

ALPHABET: dict[str, st.SearchStrategy[Any]] = {
    "c_in": st.integers(1, 6),
    "c": st.integers(1, 6),
    "width": st.integers(1, 8),
    "k": odd_sides,
    "s": st.none() | odd_sides,
    "kernel": kernels(),
    "stride": st.sampled_from((1, 2)),
    "dilation": st.integers(1, 3),
    "depthwise": st.booleans(),
    "shortcut": st.booleans(),
    "drop_path": st.just(0.0),
    "merged": st.booleans(),
}


@st.composite
def arguments(draw: st.DrawFn, block: type[nn.Module]) -> dict[str, Any]:
    """Keyword arguments of the block's constructor; a name outside the alphabet is an error of the block's author."""
    names = list(inspect.signature(block).parameters)
    unknown = set(names) - set(ALPHABET)
    assert not unknown, (
        f"{block.__name__} takes {unknown}: use the alphabet of harness.models.blocks, or extend ALPHABET here"
    )
    values = {name: draw(ALPHABET[name]) for name in names}
    if "kernel" in values:
        kinds = [kind for kind, made in LARGE_KERNELS.items() if made is block] or sorted(LARGE_KERNELS)
        values["kernel"] = draw(kernels(st.sampled_from(kinds)))
        least = KINDS[values["kernel"].kind].least_width
        values |= {name: max(values[name], least) for name in ("c", "width") if name in values}
    if block in (Stem, ConvNeXtStem):
        values["stride"] *= 2
    if values.get("s") is not None:
        values["s"] = min(values["s"], values["k"]) if values.get("dilation", 1) == 1 else None
    return values


def side_after(block: type[nn.Module], values: dict[str, Any], side: int) -> int:
    """The side of the block's output map: rounded down where the block looks at whole patches, otherwise up."""
    stride: int = values.get("stride", 2 if block in (Transition, Downsample) else 1)
    return side // stride if block in (ConvNeXtStem, Downsample) else -(-side // stride)
