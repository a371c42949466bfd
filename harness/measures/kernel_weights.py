"""The distribution of a large kernel's weight, before and after its small kernel is added.

Source: RepLKNet (arXiv 2203.06717), figure 6. A magnitude map is |w| summed over the channels, tap by tap, (k, k).
Batch norms are folded in both forms, so they differ only by the small kernel.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.models.convnext import ConvNeXtBlock
from harness.models.large_kernels.reparam import LargeKernelBlock, Mergeable
from harness.models.mobilenet_v2 import InvertedResidual
from harness.models.replknet import RepLKBlock

BRANCHES = ("small_conv", "dilated")
"""Attributes of the small kernels that a merge adds to the large one."""
CENTRE = 3
"""Side of the central square whose share is reported: the small kernel's in the paper's figure."""

Map = NDArray[np.float64]


class LargeKernel(NamedTuple):
    """The magnitude maps of one layer."""

    stage: int
    """Index from 1, as `block`."""
    block: int
    after: Map
    """Map of the merged kernel."""
    before: Map | None
    """Map of the large kernel alone; None for a layer without a small kernel, or already merged."""
    outside: NDArray[np.bool_]
    """(k, k): the taps that the small kernel does not change."""

    @property
    def k(self) -> int:
        """The side of the map."""
        return len(self.after)

    @property
    def ratio(self) -> tuple[float, float] | None:
        """Smallest and largest ratio outside the small kernel, after to before, each map rescaled to a maximum of 1.

        They are equal up to rounding; None if there is no tap outside, or none with a weight.
        """
        if self.before is None:
            return None
        taps = self.outside & (self.before > 0)
        ratios = rescale_to_one(self.after)[taps] / rescale_to_one(self.before)[taps]
        return (float(ratios.min()), float(ratios.max())) if ratios.size else None


def rescale_to_one(map: Map) -> Map:
    """The map rescaled to a maximum of 1; a map of zeros is not changed."""
    return map / (map.max() or 1.0)


def central_share(map: Map) -> float:
    """The share of the sum in the central 3 x 3 taps, or in all of a smaller kernel; NaN for a map of zeros."""
    edge = max(0, (len(map) - CENTRE) // 2)
    inner = map[edge : len(map) - edge, edge : len(map) - edge]
    return float(inner.sum() / map.sum()) if map.any() else float("nan")


def large_kernels(model: nn.Module) -> Iterator[LargeKernel]:
    """The maps of every large-kernel layer of a network, in order; the network is not changed."""
    stages = model.stages
    assert isinstance(stages, nn.ModuleList), "every network has its stages under this name"
    for i, stage in enumerate(stages):
        blocks = [m for m in stage.modules() if isinstance(m, RepLKBlock | InvertedResidual | ConvNeXtBlock)]
        for j, block in enumerate(blocks):
            yield _large_kernel(block.conv_dw if isinstance(block, ConvNeXtBlock) else block.large_kernel, i + 1, j + 1)


@torch.no_grad()
def _large_kernel(layer: nn.Module, stage: int, block: int) -> LargeKernel:
    after = _merged_kernel(layer)
    if not _has_branches(layer):
        return LargeKernel(stage, block, _magnitude(after), None, np.ones(after.shape[2:], bool))
    alone = _merged_kernel(_without_branches(layer))
    outside = (after == alone).flatten(0, 1).all(dim=0).numpy()
    return LargeKernel(stage, block, _magnitude(after), _magnitude(alone), outside)


def _has_branches(layer: nn.Module) -> bool:
    return any(getattr(layer, name, None) is not None for name in BRANCHES)


def _without_branches(layer: nn.Module) -> nn.Module:
    alone = copy.deepcopy(layer)
    for name in BRANCHES:
        if hasattr(alone, name):
            setattr(alone, name, None)
    return alone


def _magnitude(kernel: Tensor) -> Map:
    """(c, c_in, k, k) -> (k, k)"""
    magnitude: Map = kernel.abs().sum((0, 1)).numpy()
    return magnitude


def _merged_kernel(layer: nn.Module) -> Tensor:
    """The equivalent kernel (c, c_in, k, k) of the layer in evaluation mode, in float64 on the CPU."""
    layer = copy.deepcopy(layer)
    if isinstance(layer, Mergeable):
        layer.merge()
    layer = layer.to("cpu", torch.float64)
    if isinstance(layer, nn.Conv2d):  # ConvNeXt's own
        return layer.weight
    assert isinstance(layer, LargeKernelBlock), "every kind of large kernel has an `equivalent_kernel`"
    return layer.equivalent_kernel()
