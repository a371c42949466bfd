"""The share of a network's time that is spent in its large depth-wise convolutions, forward and backward.

The time is recorded before and after each such layer, in both directions: on a GPU with CUDA events, which do not
synchronize, and on a CPU with the clock.
Source: RepLKNet (arXiv 2203.06717), guideline 1: 49.5 % of the latency with PyTorch's operator, 12.3 % with theirs.
"""

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

SMALL = 5
"""Kernels up to this side are not counted; for these the paper keeps PyTorch's operator."""


def depthwise_share(step: Callable[[], object], network: nn.Module, device: torch.device, *, passes: int) -> float:
    """The median share over `passes` calls of `step`, which runs the warm `network`; 0 without such layers."""
    return statistics.median(_share(step, network, device) for _ in range(passes))


def is_large_depthwise(module: nn.Module) -> bool:
    """Whether the module is a depth-wise convolution with a kernel larger than 5x5."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels and max(module.kernel_size) > SMALL


def _share(step: Callable[[], object], network: nn.Module, device: torch.device) -> float:
    marks = LayerTimer(device)
    hooks = [hook for module in network.modules() if is_large_depthwise(module) for hook in marks.watch(module)]
    try:
        marks.leave()
        step()
        marks.leave()
    finally:
        for hook in hooks:
            hook.remove()
    return marks.share_inside()


class LayerTimer:
    """Records the times at which large depth-wise layers are entered and left."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[bool, Any]] = []

    def watch(self, module: nn.Module) -> list[Any]:
        """Record when the module's forward and backward pass begin and end; returns the hooks, to be removed."""
        return [
            module.register_forward_pre_hook(lambda *_: self._set(True)),
            module.register_forward_hook(lambda *_: self._set(False)),
            module.register_full_backward_pre_hook(lambda *_: self._set(True)),
            module.register_full_backward_hook(lambda *_: self._set(False)),
        ]

    def leave(self) -> None:
        """Record that no large layer is computed from now on: at the start of the whole, and at its end."""
        self._set(False)

    def _set(self, is_inside: bool) -> None:
        if self._device.type == "cuda":
            moment: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            moment.record()
        else:
            moment = time.perf_counter()
        self._marks.append((is_inside, moment))

    def share_inside(self) -> float:
        """The share of the time between the first and the last mark that was spent inside large layers."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        is_gpu = self._device.type == "cuda"
        inside = whole = 0.0
        for (is_inside, start), (_, end) in pairwise(self._marks):
            span = start.elapsed_time(end) if is_gpu else end - start
            whole += span
            inside += span if is_inside else 0.0
        return inside / whole
