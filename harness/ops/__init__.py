"""The large depth-wise convolution: one public function, its algorithms, and the choice between them."""

from harness.ops.autotune import autotune
from harness.ops.depthwise import DepthwiseConv2d, depthwise_conv2d

__all__ = ["DepthwiseConv2d", "autotune", "depthwise_conv2d"]
