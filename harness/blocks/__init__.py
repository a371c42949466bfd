"""A file per kind of block, leaf to root; every class has `__init__`, `forward` and `cost`, in that order.

`cost(h, w, ...)` takes the sides of the input map and those arguments of `__init__` that cost anything; the formula
stands in `harness.cost`. One alphabet of arguments: c_in and c channels, width of what lies inside, k and s kernel
sides, kernel (a large one, as a value), stride, dilation, depthwise, shortcut, drop_path, merged. A block that has a
merged form also has `merge` (`Mergeable`).
"""

from torch import nn

from harness.blocks.bands import BandsConv
from harness.blocks.conv_ffn import ConvFFN
from harness.blocks.convnext_block import ConvNeXtBlock
from harness.blocks.convnext_patches import ConvNeXtStem, Downsample
from harness.blocks.dilated_reparam import DilatedReparamConv
from harness.blocks.inverted_residual import InvertedResidual
from harness.blocks.peripheral import PeripheralConv
from harness.blocks.rep_lk import RepLKBlock
from harness.blocks.reparam import ReparamConv
from harness.blocks.sequential import SequentialConv
from harness.blocks.stem import Stem
from harness.blocks.stripes import StripesConv
from harness.blocks.transition import Transition

BLOCKS: dict[str, type[nn.Module]] = {
    "stem": Stem,
    "transition": Transition,
    "reparam_conv": ReparamConv,
    "dilated_reparam_conv": DilatedReparamConv,
    "stripes_conv": StripesConv,
    "bands_conv": BandsConv,
    "peripheral_conv": PeripheralConv,
    "sequential_conv": SequentialConv,
    "rep_lk": RepLKBlock,
    "conv_ffn": ConvFFN,
    "inverted_residual": InvertedResidual,
    "convnext_stem": ConvNeXtStem,
    "downsample": Downsample,
    "convnext_block": ConvNeXtBlock,
}
