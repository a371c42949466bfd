"""Every block of the networks, and arguments for any of them, drawn from the alphabet that all blocks share."""

import importlib
import inspect
import pkgutil
from typing import Any

from hypothesis import strategies as st
from random_specs import kernels
from torch import nn

from harness.models import large_kernels
from harness.models.build import NETWORKS
from harness.models.convnext import ConvNeXtStem, Downsample
from harness.models.large_kernels import LARGE_KERNELS
from harness.models.replknet import RepLKNetStem, Transition
from harness.models.spec.kernel import KERNEL_KINDS

ALPHABET: dict[str, st.SearchStrategy[Any]] = {
    "c_in": st.integers(1, 6),
    "c": st.integers(1, 6),
    "width": st.integers(1, 8),
    "kernel": kernels(),
    "stride": st.sampled_from((1, 2)),
    "shortcut": st.booleans(),
    "drop_path": st.just(0.0),
    "merged": st.booleans(),
}


def _blocks_of(module: str) -> dict[str, type[nn.Module]]:
    """The classes that a module defines and that have a cost, as `replknet.Stem`."""
    members = vars(importlib.import_module(module)).items()
    return {
        f"{module.rpartition('.')[2]}.{name}": member
        for name, member in members
        if isinstance(member, type)
        and issubclass(member, nn.Module)
        and member.__module__ == module
        and "cost" in vars(member)
    }


_FAMILIES = sorted({network.__module__ for network in NETWORKS.values()})
_KINDS = sorted(
    module_info.name for module_info in pkgutil.iter_modules(large_kernels.__path__, f"{large_kernels.__name__}.")
)
BLOCKS = {name: block for module in (*_FAMILIES, *_KINDS) for name, block in _blocks_of(module).items()}
"""Every block of a family and every kind of large kernel."""


@st.composite
def arguments(draw: st.DrawFn, block: type[nn.Module]) -> dict[str, Any]:
    """Keyword arguments of the block's constructor; a name outside the alphabet is an error of the block's author."""
    names = list(inspect.signature(block).parameters)
    unknown = set(names) - set(ALPHABET)
    assert not unknown, f"{block.__name__} takes {unknown}: use the alphabet of harness.models, or extend ALPHABET here"
    values = {name: draw(ALPHABET[name]) for name in names}
    if "kernel" in values:
        kinds = [kind for kind, made in LARGE_KERNELS.items() if made is block] or sorted(LARGE_KERNELS)
        values["kernel"] = draw(kernels(st.sampled_from(kinds)))
        least = KERNEL_KINDS[values["kernel"].kind].least_width
        values |= {name: max(values[name], least) for name in ("c", "width") if name in values}
    if block in (RepLKNetStem, ConvNeXtStem):
        values["stride"] *= 2
    return values


def side_after(block: type[nn.Module], values: dict[str, Any], side: int) -> int:
    """The side of the block's output map: rounded down where the block looks at whole patches, otherwise up."""
    stride: int = values.get("stride", 2 if block in (Transition, Downsample) else 1)
    return side // stride if block in (ConvNeXtStem, Downsample) else -(-side // stride)
