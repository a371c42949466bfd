"""A convolution and its weight gradient as two operators; each provides the other's derivative, to any order.

The gradient of the input is the convolution of the output's gradient with the flipped kernel. The gradient of the
weight is a correlation: linear in either factor, with gradients that are convolutions again. With a stride, zeros are
first inserted between the output's gradients.
Shapes: x (N, C, H, W), weight (C, 1, KH, KW), bias (C,).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from harness.ops.geometry import Pair

CONVOLVE = "(Tensor x, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] padding, SymInt[] dilation) -> Tensor"
CORRELATE = "(Tensor x, Tensor grad, SymInt[] kernel, SymInt[] stride, SymInt[] padding, SymInt[] dilation) -> Tensor"
"""Schemas of the two operators: `grad` is the output's gradient, `kernel` the sides of the weight."""

Operator = Callable[..., Tensor]
Gradients = tuple[Tensor | None, ...]
NO_OPERATOR_GRADIENTS: Gradients = (None, None)
NO_WINDOW_GRADIENTS: Gradients = (None, None, None)


def register_operator(
    name: str, schema: str, device: str, compute: Operator, shape: Operator
) -> OpOverload[..., Tensor]:
    """Register `compute` as a PyTorch operator, opaque to the compiler; `shape` is its fake implementation."""
    name = f"harness::{name}"
    torch.library.define(name, schema)
    torch.library.impl(name, device, compute)
    torch.library.register_fake(name, shape)
    operator: OpOverload[..., Tensor] = getattr(torch.ops.harness, name.removeprefix("harness::")).default
    return operator


class Convolve(torch.autograd.Function):
    """(convolve, correlate, x, weight, bias, stride, padding, dilation) -> output; the first two are the operators."""

    @staticmethod
    def forward(convolve: Operator, correlate: Operator, *inputs: Any) -> Tensor:  # noqa: ARG004, D102
        return convolve(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004, D102
        convolve, correlate, x, weight, _, *ctx.window = inputs
        ctx.operators = convolve, correlate
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:  # noqa: D102
        (x, weight), (grad,) = ctx.saved_tensors, grads
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[2:5]
        with torch.autocast(x.device.type, enabled=False):  # for a backward pass called where autocast is on
            return (
                *NO_OPERATOR_GRADIENTS,
                _input_gradient(ctx, x, grad, weight) if needs_x else None,
                _correlated(ctx, x, grad, list(weight.shape[2:])) if needs_weight else None,
                grad.sum((0, 2, 3)) if needs_bias else None,
                *NO_WINDOW_GRADIENTS,
            )


class Correlate(torch.autograd.Function):
    """(convolve, correlate, x, grad, kernel, stride, padding, dilation) -> the gradient of the weight."""

    @staticmethod
    def forward(convolve: Operator, correlate: Operator, *inputs: Any) -> Tensor:  # noqa: ARG004, D102
        return correlate(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004, D102
        convolve, correlate, x, grad, _, *ctx.window = inputs
        ctx.operators = convolve, correlate
        ctx.save_for_backward(x, grad)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:  # noqa: D102
        (x, grad), (upstream,) = ctx.saved_tensors, grads
        needs_x, needs_grad = ctx.needs_input_grad[2:4]
        with torch.autocast(x.device.type, enabled=False):
            return (
                *NO_OPERATOR_GRADIENTS,
                _input_gradient(ctx, x, grad, upstream) if needs_x else None,
                _convolved(ctx, x, upstream, *ctx.window) if needs_grad else None,
                None,
                *NO_WINDOW_GRADIENTS,
            )


def _input_gradient(ctx: Any, x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    stride, padding, dilation = ctx.window
    complement = [d * (k - 1) - p for k, p, d in zip(weight.shape[2:], padding, dilation, strict=True)]
    if max(stride) > 1:
        sides = zip(x.shape[2:], complement, weight.shape[2:], dilation, strict=True)
        grad = _insert_zeros(grad, stride, [n - 2 * p + d * (k - 1) for n, p, k, d in sides])
    return _convolved(ctx, grad, weight.flip(2, 3), [1, 1], complement, dilation)


def _insert_zeros(grad: Tensor, stride: list[int], size: list[int]) -> Tensor:
    """Put the values of `grad` (N, C, H', W') at the kernel's positions in a map of `size`, else 0; channels-last."""
    (n, c, height, width), (sh, sw) = grad.shape, stride
    spread = grad.new_zeros(n, *size, c).permute(0, 3, 1, 2)
    spread[:, :, : (height - 1) * sh + 1 : sh, : (width - 1) * sw + 1 : sw] = grad
    return spread


def _convolved(ctx: Any, x: Tensor, weight: Tensor, *window: list[int]) -> Tensor:
    convolve, correlate = ctx.operators
    inputs = x, weight, None, *window
    return Convolve.apply(convolve, correlate, *inputs) if torch.is_grad_enabled() else convolve(*inputs)  # type: ignore[no-any-return]


def _correlated(ctx: Any, x: Tensor, grad: Tensor, kernel: list[int]) -> Tensor:
    convolve, correlate = ctx.operators
    inputs = x, grad, kernel, *ctx.window
    return Correlate.apply(convolve, correlate, *inputs) if torch.is_grad_enabled() else correlate(*inputs)  # type: ignore[no-any-return]


def output_size(x: Tensor, weight: Tensor, *window: Sequence[int]) -> Pair:
    """Height and width of the convolution's output; `window` holds the fields of a `Window`."""
    sides = zip(x.shape[2:], weight.shape[2:], *window, strict=True)
    height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
    return height, width
