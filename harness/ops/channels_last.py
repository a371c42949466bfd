"""Output, input gradient and weight gradient as three depth-wise convolutions in channels-last layout.

On CPUs the stock operator's forward pass is fast in channels-last layout, and its backward pass is slow in any layout.
But both gradients are depth-wise convolutions themselves: the input's is the output's gradient convolved with the
flipped kernel, the weight's is the input convolved with N*C kernels, which are the output's gradients. The last one is
slow when its operands do not fit into the cache; then the weight gradient is a product of spectra (`fft`).

Shapes: N batch, C channels, H W height and width; x (N, C, H, W), weight (C, 1, KH, KW).
Extra memory while the weight gradient is computed: a copy of the input, a copy of the output's gradient and the weight
gradients of all images; half of that where the weight gradients are larger than the images; or the memory of `fft`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.ops import fft
from harness.ops.geometry import Algorithm, Pair, Window

SPECTRAL_FROM = 2_000_000
"""Number of input values times kernel side from which the weight gradient is computed as a product of spectra."""

SPECTRAL_BATCH = 8
"""Batch size from which the spectra of the maps cost more than those of the kernels."""


class _ChannelsLastConv(torch.autograd.Function):
    """Differentiable twice: its backward pass consists of differentiable operators on its inputs."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        return _depthwise(x, weight, bias, window)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Window], output: Tensor) -> None:  # noqa: ARG004
        x, weight, _, ctx.window = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        with torch.autocast(x.device.type, enabled=False):  # for a backward pass called where autocast is on
            return (
                _input_gradient(grad, weight, ctx.window) if needs_x else None,
                _weight_gradient(x, grad, (weight.shape[2], weight.shape[3]), ctx.window) if needs_weight else None,
                grad.sum((0, 2, 3)) if needs_bias else None,
                None,
            )


def _input_gradient(grad: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Convolution of the output's gradient with the flipped kernel, with padding d(K-1) - p."""
    sides = zip(weight.shape[-2:], window.padding, window.dilation, strict=True)
    ph, pw = (d * (k - 1) - p for k, p, d in sides)
    return _depthwise(grad, weight.flip(2, 3), None, window._replace(padding=(ph, pw)))


def _weight_gradient(x: Tensor, grad: Tensor, kernel: Pair, window: Window) -> Tensor:
    if x.dtype in fft.DTYPES and min(kernel) * x.numel() >= SPECTRAL_FROM and len(x) >= SPECTRAL_BATCH:
        return fft.weight_gradient(x, grad, kernel, window)
    if kernel[0] * kernel[1] < x.shape[2] * x.shape[3]:
        return _direct_weight_gradient(x, grad, window)
    halves = zip(x.chunk(2), grad.chunk(2), strict=True)  # the gradients of each image are larger than the images
    return torch.stack([_direct_weight_gradient(*half, window) for half in halves]).sum(0)


def _direct_weight_gradient(x: Tensor, grad: Tensor, window: Window) -> Tensor:
    """dL/dw[c, i, j] = sum over n, h, w of grad[n, c, h, w] x[n, c, h + i d - p, w + j d - p].

    A depth-wise convolution over N*C channels, in which the forward pass's dilation d is the stride.
    """
    n, c = x.shape[:2]
    images, kernels = _fold_batch(x), _fold_batch(grad).transpose(0, 1)
    tensor = F.conv2d(images, kernels, None, window.dilation, window.padding, groups=n * c)
    return tensor.view(n, c, *tensor.shape[2:]).sum(0).unsqueeze(1)


def _fold_batch(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (1, N*C, H, W) in channels-last layout."""
    return x.permute(2, 3, 0, 1).flatten(2).contiguous().unsqueeze(0).permute(0, 3, 1, 2)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    return F.conv2d(x, weight, bias, 1, window.padding, window.dilation, groups=weight.shape[0])


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    # Change the layout outside the autograd function: it must save its own inputs for a correct second derivative.
    x = x.contiguous(memory_format=torch.channels_last)
    output: Tensor = _ChannelsLastConv.apply(x, weight, bias, window)
    return output


def _fits(x: Tensor, weight: Tensor, window: Window) -> bool:
    """Stride 1, padding at most d(K-1), and a non-empty input."""
    sides = zip(weight.shape[-2:], window.padding, window.dilation, strict=True)
    return window.stride == (1, 1) and x.numel() > 0 and all(p <= d * (k - 1) for k, p, d in sides)


CHANNELS_LAST = Algorithm(run=_run, fits=_fits)
