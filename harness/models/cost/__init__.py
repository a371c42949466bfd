"""The cost of a network, in closed form from its spec: parameters, multiply-accumulates, activations.

Conventions as in RepLKNet's tables (arXiv 2203.06717): a multiply-accumulate (MAC) counts once; convolutions and fully
connected layers count, norms and activation functions do not. In-bounds MACs leave out the taps on zero padding.
Activations are the elements of all outputs of convolutions and of fully connected layers, per image.

`layers` has the leaves, `large_kernels` the kinds of large kernel, `families` the blocks and networks of each family.
Each function takes h and w, the sides of its input map, and the arguments of the block.
"""

from functools import lru_cache

from harness.errors import SpecError
from harness.models.cost.families import PARTS
from harness.models.cost.layers import Cost, Part
from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec

__all__ = ["Cost", "Part", "network_cost", "network_parts"]


def network_cost(spec: NetworkSpec, resolution: int | tuple[int, int], merged: bool = True) -> Cost:
    """The cost of the whole network for one image of side `resolution` or (height, width); merged by default."""
    return sum((part.cost for part in network_parts(spec, resolution, merged)), Cost())


@lru_cache(maxsize=4096)
def network_parts(spec: NetworkSpec, resolution: int | tuple[int, int], merged: bool = True) -> tuple[Part, ...]:
    """The cost of the network part by part, from the stem to the head.

    Raises `SpecError` for images so small that no pixel is left on the last map.
    """
    h, w = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    least = FAMILIES[spec.family].least_side(spec.stem_stride)
    if min(h, w) < least:
        raise SpecError(
            f"`stem_stride` must leave a pixel of the image on the last map; {spec.family} with stem_stride "
            f"{spec.stem_stride} needs images of {least} pixels a side, and these have {min(h, w)}",
            field="stem_stride",
            remedy="Take larger images or a smaller stem_stride.",
        )
    return PARTS[spec.family](spec, h, w, merged)
