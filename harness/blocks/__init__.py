"""A file per kind of block, leaf to root; every class has `__init__`, `forward` and `cost`, in that order.

`cost(h, w, ...)` takes the sides of the input map and those arguments of `__init__` that cost anything; the formula
stands in `harness.cost`. One alphabet of arguments: c_in and c channels, width of what lies inside, k and s kernel
sides, stride, depthwise, shortcut, drop_path, merged. A block that has a merged form also has `merge` (`Mergeable`).
"""

from torch import nn

from harness.blocks.conv_ffn import ConvFFN
from harness.blocks.rep_lk import RepLKBlock
from harness.blocks.reparam import ReparamConv
from harness.blocks.stem import Stem
from harness.blocks.transition import Transition

BLOCKS: dict[str, type[nn.Module]] = {
    "stem": Stem,
    "transition": Transition,
    "reparam_conv": ReparamConv,
    "rep_lk": RepLKBlock,
    "conv_ffn": ConvFFN,
}
