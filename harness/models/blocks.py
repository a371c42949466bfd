"""A file per kind of block, leaf to root; every class has `__init__`, `forward` and `cost`, in that order.

`cost(h, w, ...)` takes the sides of the input map and those arguments of `__init__` that cost anything; the formula
stands in `harness.models.cost`. One alphabet of arguments: c_in and c channels, width of what lies inside, k and s
kernel sides, kernel (a large one, as a value), stride, dilation, depthwise, shortcut, drop_path, merged. A block that
has a merged form also has `merge` (`Mergeable`).
"""

from torch import nn

from harness.models.convnext_block import ConvNeXtBlock
from harness.models.convnext_patches import ConvNeXtStem, Downsample
from harness.models.large_kernels.bands import BandsConv
from harness.models.large_kernels.dilated_reparam import DilatedReparamConv
from harness.models.large_kernels.peripheral import PeripheralConv
from harness.models.large_kernels.reparam import ReparamConv
from harness.models.large_kernels.sequential import SequentialConv
from harness.models.large_kernels.stripes import StripesConv
from harness.models.mobilenet_v2_block import InvertedResidual
from harness.models.replknet_block import RepLKBlock
from harness.models.replknet_conv_ffn import ConvFFN
from harness.models.replknet_stem import Stem
from harness.models.replknet_transition import Transition

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
