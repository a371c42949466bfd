"""The families of networks, and the fields of a spec that each supports."""

import math
from typing import NamedTuple


class Family(NamedTuple):
    """The possible variation of networks in a family."""

    strides: tuple[int, ...]
    """Stride of each stage, applied at its start."""
    stem_strides: tuple[int, ...]
    """Possible total strides of the stem."""
    unsupported_fields: tuple[str, ...] = ()
    """Fields of a spec that have no meaning in this family and must keep their default."""
    widths: tuple[str, ...] = ("dw_ratio",)
    """Fields of a spec that are the ratio of the channels of large kernels to C."""
    ratios_to_input: tuple[str, ...] = ()
    """Fields of a spec that are a ratio to the channels of a block's input, not to C."""
    unexpanded_stages: tuple[int, ...] = ()
    """Stages in which `ffn_ratio` changes nothing."""
    joins_equal_shapes: bool = False
    """Whether a block can have a shortcut only if its input has the shape of its output."""
    is_padded: bool = True
    """Whether strided convolutions are padded: sides of maps are then rounded up, otherwise down."""
    has_bare_kernels: bool = False
    """Whether a plain large kernel without a small one is a biased convolution without a batch norm."""

    @property
    def stages(self) -> int:
        """Number of stages, and of values of a field per stage."""
        return len(self.strides)

    def least_side(self, stem_stride: int) -> int:
        """The smallest side of an image that leaves a pixel on the last map."""
        return 1 if self.is_padded else stem_stride * math.prod(self.strides)


FAMILIES: dict[str, Family] = {
    "replknet": Family(strides=(1, 2, 2, 2), stem_strides=(2, 4)),
    "mobilenet_v2": Family(
        strides=(1, 2, 2, 2, 1, 2, 1),
        stem_strides=(1, 2),
        unsupported_fields=("dw_ratio",),
        widths=("dw_ratio", "ffn_ratio"),
        ratios_to_input=("ffn_ratio",),
        unexpanded_stages=(0,),
        joins_equal_shapes=True,
    ),
    "convnext": Family(
        strides=(1, 2, 2, 2),
        stem_strides=(2, 4),
        unsupported_fields=("dw_ratio",),
        is_padded=False,
        has_bare_kernels=True,
    ),
}
