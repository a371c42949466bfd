"""Arguments for any block of the table, drawn from the alphabet that all blocks share."""

import inspect
from typing import Any

from hypothesis import strategies as st
from random_specs import kernels, odd_sides
from torch import nn

from harness.blocks.stem import Stem

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
    assert not unknown, f"{block.__name__} takes {unknown}: use the alphabet of harness.blocks, or extend ALPHABET here"
    values = {name: draw(ALPHABET[name]) for name in names}
    if block is Stem:
        values["stride"] *= 2
    if values.get("s") is not None:
        values["s"] = min(values["s"], values["k"]) if values.get("dilation", 1) == 1 else None
    return values
