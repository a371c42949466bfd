"""Operators: the large depth-wise convolution with its algorithms, and batch norm with its activation."""

from harness.ops.autotune import autotune
from harness.ops.batch_norm import batch_norm_act
from harness.ops.depthwise import DepthwiseConv2d, depthwise_conv2d

__all__ = ["DepthwiseConv2d", "autotune", "batch_norm_act", "depthwise_conv2d"]
