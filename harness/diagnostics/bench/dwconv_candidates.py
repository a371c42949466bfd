"""The ways to compute a depth-wise layer that the bench compares."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from harness.diagnostics.bench.options import LAYOUTS
from harness.ops import depthwise_conv2d
from harness.ops.autotune import autotune
from harness.ops.dispatch import ALGORITHMS
from harness.ops.geometry import Window, crop_kernel

CONV2D = "conv2d"
"""What `nn.Conv2d` calls; the algorithm `stock` is the same."""
CHOSEN = "harness"
"""What our blocks call, with the algorithm that the default heuristic selects."""
TUNED = "tuned"
"""The same with `autotune` on: the fastest algorithm on this machine."""

Conv = Callable[[Tensor, Tensor], Tensor]
"""x (N, C, H, W), weight (C, 1, K, K) -> (N, C, H, W)"""


class DwconvCandidate(NamedTuple):
    """An algorithm, and the memory layout of its input."""

    algorithm: str
    layout: str


def dwconv_candidates(x: Tensor, weight: Tensor, folder: Path) -> dict[DwconvCandidate, Conv]:
    """All candidates that support these tensors, in both layouts; autotuning stores its results in `folder`."""
    convs: dict[str, Conv] = {CONV2D: _conv2d, CHOSEN: _chosen, TUNED: _tuned(folder)}
    convs |= {name: _by(name) for name in fitting(x, weight) if name != "stock"}
    return {DwconvCandidate(name, layout): conv for name, conv in convs.items() for layout in LAYOUTS}


def fitting(x: Tensor, weight: Tensor) -> list[str]:
    """The algorithms that support these tensors, with stride 1 and "same" padding."""
    weight, window = _cropped(x, weight)
    return [name for name, algorithm in ALGORITHMS.items() if algorithm.fits(x, weight, window)]


def _conv2d(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=weight.shape[0])


def _chosen(x: Tensor, weight: Tensor) -> Tensor:
    return depthwise_conv2d(x, weight, padding=weight.shape[-1] // 2)


def _tuned(folder: Path) -> Conv:
    def conv(x: Tensor, weight: Tensor) -> Tensor:
        with autotune(folder=folder):
            return _chosen(x, weight)

    return conv


def _by(name: str) -> Conv:
    def conv(x: Tensor, weight: Tensor) -> Tensor:
        weight, window = _cropped(x, weight)
        return ALGORITHMS[name].run(x, weight, None, window)

    return conv


def _cropped(x: Tensor, weight: Tensor) -> tuple[Tensor, Window]:
    return crop_kernel(weight, Window.of(1, weight.shape[-1] // 2, 1), (x.shape[2], x.shape[3]))
