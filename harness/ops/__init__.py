"""The large depth-wise convolution: the public function, its algorithms, and how one of them is chosen."""

from harness.ops.autotune import autotune
from harness.ops.depthwise import DepthwiseConv2d, depthwise_conv2d

__all__ = ["DepthwiseConv2d", "autotune", "depthwise_conv2d"]
