"""A convolution and its weight gradient as two operators, made differentiable by each other, to any order.

The gradient of the input is the convolution of the output's gradient with the flipped kernel; that of the weight a
correlation, which is linear in either factor and whose own gradients are convolutions again. For windows of stride 1.
Shapes: x (N, C, H, W), weight (C, 1, KH, KW), bias (C,).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from harness.ops.window import Pair

CONVOLVE = "(Tensor x, Tensor weight, Tensor? bias, SymInt[] padding, SymInt[] dilation) -> Tensor"
CORRELATE = "(Tensor x, Tensor grad, SymInt[] kernel, SymInt[] padding, SymInt[] dilation) -> Tensor"
"""What the two operators take: `grad` is the output's gradient, `kernel` the sides of the weight's."""

Operator = Callable[..., Tensor]
Gradients = tuple[Tensor | None, ...]
NONE: Gradients = (None, None)


def operator(name: str, schema: str, device: str, compute: Operator, shape: Operator) -> OpOverload[..., Tensor]:
    """Make PyTorch know `compute` as one operator, which its compiler does not look into, of results like `shape`'s."""
    name = f"harness::{name}"
    torch.library.define(name, schema)
    torch.library.impl(name, device, compute)
    torch.library.register_fake(name, shape)
    found: OpOverload[..., Tensor] = getattr(torch.ops.harness, name.removeprefix("harness::")).default
    return found


class Convolve(torch.autograd.Function):
    """(convolve, correlate, x, weight, bias, padding, dilation) -> output, where the first two are the operators."""

    @staticmethod
    def forward(convolve: Operator, correlate: Operator, *given: Any) -> Tensor:  # noqa: ARG004, D102
        return convolve(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004, D102
        *ctx.operators, x, weight, _, padding, dilation = inputs
        ctx.window = padding, dilation
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:  # noqa: D102
        (x, weight), (grad,) = ctx.saved_tensors, grads
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[2:5]
        with torch.autocast(x.device.type, enabled=False):  # for a backward pass called where autocast is on
            return (
                *NONE,
                _input_gradient(ctx, grad, weight) if needs_x else None,
                _correlated(ctx, x, grad, list(weight.shape[2:])) if needs_weight else None,
                grad.sum((0, 2, 3)) if needs_bias else None,
                *NONE,
            )


class Correlate(torch.autograd.Function):
    """(convolve, correlate, x, grad, kernel, padding, dilation) -> the gradient of the weight."""

    @staticmethod
    def forward(convolve: Operator, correlate: Operator, *given: Any) -> Tensor:  # noqa: ARG004, D102
        return correlate(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004, D102
        *ctx.operators, x, grad, _, padding, dilation = inputs
        ctx.window = padding, dilation
        ctx.save_for_backward(x, grad)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:  # noqa: D102
        (x, grad), (upstream,) = ctx.saved_tensors, grads
        needs_x, needs_grad = ctx.needs_input_grad[2:4]
        with torch.autocast(x.device.type, enabled=False):
            return (
                *NONE,
                _input_gradient(ctx, grad, upstream) if needs_x else None,
                _convolved(ctx, x, upstream, *ctx.window) if needs_grad else None,
                None,
                *NONE,
            )


def _input_gradient(ctx: Any, grad: Tensor, weight: Tensor) -> Tensor:
    padding, dilation = ctx.window
    complement = [d * (k - 1) - p for k, p, d in zip(weight.shape[2:], padding, dilation, strict=True)]
    return _convolved(ctx, grad, weight.flip(2, 3), complement, dilation)


def _convolved(ctx: Any, x: Tensor, weight: Tensor, padding: list[int], dilation: list[int]) -> Tensor:
    convolve, correlate = ctx.operators
    given = x, weight, None, padding, dilation
    return Convolve.apply(convolve, correlate, *given) if torch.is_grad_enabled() else convolve(*given)  # type: ignore[no-any-return]


def _correlated(ctx: Any, x: Tensor, grad: Tensor, kernel: list[int]) -> Tensor:
    convolve, correlate = ctx.operators
    given = x, grad, kernel, *ctx.window
    return Correlate.apply(convolve, correlate, *given) if torch.is_grad_enabled() else correlate(*given)  # type: ignore[no-any-return]


def output_size(x: Tensor, weight: Tensor, padding: Sequence[int], dilation: Sequence[int]) -> Pair:
    """Height and width of the convolution's output."""
    sides = zip(x.shape[2:], weight.shape[2:], padding, dilation, strict=True)
    height, width = (n + 2 * p - d * (k - 1) for n, k, p, d in sides)
    return height, width
