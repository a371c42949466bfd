"""The families of networks, and what of a spec each of them has."""

import math
from typing import NamedTuple


class Family(NamedTuple):
    """What a network of the family can vary."""

    strides: tuple[int, ...]
    """Stride of each stage, taken on its way in."""
    stem_strides: tuple[int, ...]
    """Possible total strides of the stem."""
    unsupported_fields: tuple[str, ...] = ()
    """Fields of a spec that mean nothing here and stand at their default."""
    widths: tuple[str, ...] = ("dw_ratio",)
    """Ratios, fields of a spec, of the channels of its large kernels to C."""
    is_padded: bool = True
    """Whether strided convolutions are padded: sides of maps are then rounded up, and otherwise down."""
    has_bare_kernels: bool = False
    """Whether a plain large kernel without a small one is a biased convolution, and no batch norm stands behind it."""

    @property
    def stages(self) -> int:
        """How many values a field per stage has."""
        return len(self.strides)

    def least_side(self, stem_stride: int) -> int:
        """The least side of an image of which something is left on the last map."""
        return 1 if self.is_padded else stem_stride * math.prod(self.strides)


FAMILIES: dict[str, Family] = {
    "replknet": Family(strides=(1, 2, 2, 2), stem_strides=(2, 4)),
    "mobilenet_v2": Family(
        strides=(1, 2, 2, 2, 1, 2, 1),
        stem_strides=(1, 2),
        unsupported_fields=("dw_ratio",),
        widths=("dw_ratio", "ffn_ratio"),
    ),
    "convnext": Family(
        strides=(1, 2, 2, 2),
        stem_strides=(2, 4),
        unsupported_fields=("dw_ratio",),
        is_padded=False,
        has_bare_kernels=True,
    ),
}
