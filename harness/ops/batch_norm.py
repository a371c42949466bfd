"""Batch norm and the activation after it in one pass forward and one backward, for training on CPUs.

`batch_norm_act` computes what `activation(norm(x))` computes, with PyTorch's own operators wherever its compiled loops
(`batch_norm_kernel`) do not fit. They read and write every map half as often, and keep one map for the backward pass
instead of two. Equal calls with an equal number of threads return bitwise equal results.

Shapes: x (N, C, H, W) in channels-last layout; parameters and statistics (C,).
"""

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from harness.ops.batch_norm_kernel import WIDTHS, BatchNormArguments, compiled_backward, compiled_forward
from harness.ops.depthwise import needs_native
from harness.ops.direct import in_parallel, ranges
from harness.ops.llvm_loops import CompiledFunction

ActivationName = Literal["none", "relu", "relu6", "gelu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "gelu": F.gelu,
}

Buffers = Mapping[str, Any]
"""Running mean, running variance and number of batches of a norm, by their names."""

_UNCOUNTED = torch.zeros((), dtype=torch.int64)
"""Counts the batches of norms that do not count them."""

LEAST_NUMBERS = 30_000
"""Numbers of a map from which the loops are used. Below, they save 10 to 80 us a step, and each process would compile
them for 50 to 85 ms for every width and activation, which small networks do not earn back."""

THREAD_NUMBERS = 100_000
"""Numbers of a map (about a tenth of a millisecond) from which another thread is worth its overhead."""


def batch_norm_act(x: Tensor, norm: nn.Module, activation: ActivationName) -> Tensor:
    """activation(norm(x)), for any module `norm`; fused where it is a batch norm in training on a CPU.

    The fused result equals PyTorch's up to rounding, and so do the gradients of any order and the running statistics.
    """
    if type(norm) is nn.BatchNorm2d and norm.training and x.dtype is torch.float32 and x.is_cpu and _is_eager(x):
        plan = _plan(x.shape, activation, norm.eps, norm.momentum, torch.get_num_threads())
        if plan is not None and _is_channels_last(x) and _is_plain(norm, x.shape[1]):
            parameters, buffers = norm._parameters, norm._buffers
            y: Tensor = _BatchNormAct.apply(x, parameters["weight"], parameters["bias"], buffers, plan)
            return y
    return ACTIVATIONS[activation](norm(x))


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _is_eager(x: Tensor) -> bool:
    """Whether the call is computed as it is: not traced, compiled, transformed, or under autocast."""
    if type(x) is not Tensor or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    is_transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return not is_transformed and not needs_native(x)


def _is_plain(norm: nn.BatchNorm2d, channels: int) -> bool:
    """Whether the module is as `nn.BatchNorm2d(channels)` makes it, in float32 and without hooks.

    Reads the module's dictionaries, because its attributes are slow, and this is called before each step's every norm.
    """
    parameters, buffers = norm._parameters, norm._buffers
    for tensor in (parameters["weight"], parameters["bias"], buffers["running_mean"], buffers["running_var"]):
        if tensor is None or tensor.dtype is not torch.float32 or not tensor.is_cpu:
            return False
        if tensor.numel() != channels or not tensor.is_contiguous():
            return False
    return not (norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks)


def lane_width(channels: int) -> int:
    """The largest number of channels in a vector that divides them, or 0."""
    return next((width for width in WIDTHS if channels % width == 0), 0)


class _BatchNormAct(torch.autograd.Function):
    """(x, weight, bias, buffers of the norm, plan) -> activation(norm(x)); updates the buffers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, buffers: Buffers, plan: "_Plan") -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)"""
        y, statistics = torch.empty_like(x), weight.new_empty(2, len(weight))
        batches = buffers["num_batches_tracked"]
        running = buffers["running_mean"], buffers["running_var"], _UNCOUNTED if batches is None else batches
        plan.run(plan.forward, x, weight, bias, *running, statistics, y)
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.plan = plan
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias."""
        x, weight, bias, statistics = ctx.saved_tensors
        plan: _Plan = ctx.plan
        if torch.is_grad_enabled():  # for derivatives of higher order
            return (*_native_gradients(plan, (x, weight, bias), grads[0], ctx.needs_input_grad), None, None)
        dy = grads[0].contiguous(memory_format=torch.channels_last)
        dx, gradients = torch.empty_like(x), weight.new_empty(2, len(weight))
        plan.run(plan.backward, x, dy, weight, bias, statistics, dx, gradients)
        return dx, gradients[0], gradients[1], None, None


def _native_gradients(
    plan: "_Plan", inputs: Sequence[Tensor], dy: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The same gradients by PyTorch's operators, which can be differentiated again."""
    x, weight, bias = inputs
    y = ACTIVATIONS[plan.activation](F.batch_norm(x, None, None, weight, bias, training=True, eps=plan.eps))
    wanted = [tensor for tensor, needs in zip(inputs, needed, strict=False) if needs]
    gradients = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    return tuple(next(gradients) if needs else None for needs in needed[:3])


class _Plan(NamedTuple):
    """What depends on the shape and the settings alone."""

    activation: ActivationName
    eps: float
    forward: CompiledFunction
    backward: CompiledFunction
    scalars: int
    """Address of the numbers that all threads read."""
    parts: list[int]
    """Addresses of the arguments of each thread."""
    memory: tuple[Any, ...]
    """What is at these addresses."""

    def run(self, function: CompiledFunction, *tensors: Tensor) -> None:
        """Call the function with these tensors, in one thread for each part."""
        addresses = [tensor.data_ptr() for tensor in tensors]
        if len(self.parts) == 1:
            function(*addresses, self.scalars, self.parts[0])
        else:
            in_parallel([functools.partial(function, *addresses, self.scalars, part) for part in self.parts])


@functools.lru_cache(maxsize=4096)
def _plan(
    shape: torch.Size, activation: ActivationName, eps: float, momentum: float | None, threads: int
) -> _Plan | None:
    """The plan for maps of this shape, or None if the loops do not fit."""
    if len(shape) != 4 or momentum is None or (lane := lane_width(shape[1])) == 0:
        return None
    channels, rows = shape[1], shape[0] * shape[2] * shape[3]
    if rows < 2 or rows * channels < LEAST_NUMBERS:
        return None
    scalars = (ctypes.c_float * 4)(eps, momentum, 1 / rows, rows / (rows - 1))
    threads = max(1, min(threads, rows * channels // THREAD_NUMBERS))
    arguments = [BatchNormArguments(rows, channels, first, end) for first, end in ranges(channels // lane, threads)]
    parts = [(ctypes.c_int64 * len(part))(*part) for part in arguments]
    functions = compiled_forward(lane, activation), compiled_backward(lane, activation)
    addresses = ctypes.addressof(scalars), [ctypes.addressof(part) for part in parts]
    return _Plan(activation, eps, *functions, *addresses, (scalars, *parts))
