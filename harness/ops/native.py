"""PyTorch's own operator: computes every call, and is the fastest for small kernels."""

import torch.nn.functional as F
from torch import Tensor

from harness.ops.geometry import Algorithm, Window


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    return F.conv2d(x, weight, bias, window.stride, window.padding, window.dilation, groups=weight.shape[0])


def _fits(x: Tensor, weight: Tensor, window: Window) -> bool:  # noqa: ARG001
    return True


NATIVE = Algorithm(run=_run, fits=_fits)
