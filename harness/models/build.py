"""From a spec to a network, to its merged form, and to one without batch norms; a file per family."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from harness.models.batchnorm_folding import Foldable
from harness.models.convnext import ConvNeXt
from harness.models.large_kernels.reparam import Mergeable
from harness.models.mobilenet_v2 import MobileNetV2
from harness.models.replknet import RepLKNet
from harness.models.spec.network import NetworkSpec

__all__ = ["NETWORKS", "ConvNeXt", "MobileNetV2", "RepLKNet", "build", "fold", "merge"]

Network = TypeVar("Network", bound=nn.Module)

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "replknet": RepLKNet,
    "mobilenet_v2": MobileNetV2,
    "convnext": ConvNeXt,
}
"""Constructors (spec, *, merged) by the spec's `family`."""


def build(spec: NetworkSpec, *, merged: bool = False, seed: int | None = None) -> nn.Module:
    """The network of a spec with fresh weights, in its training or its merged form.

    A seed decides the weights and leaves the global random state alone; without one they come from that state.
    Specs of one fingerprint give one network, down to the names in its state dict.
    """
    make, spec = NETWORKS[spec.family], spec.identity()
    if seed is None:
        return make(spec, merged=merged)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make(spec, merged=merged)


def merge(model: Network) -> Network:
    """A copy of the network in its merged form, equal to `model` in evaluation mode; `model` is left alone."""
    merged = copy.deepcopy(model)
    for module in list(merged.modules()):
        if isinstance(module, Mergeable):
            module.merge()
    return merged


def fold(model: Network) -> Network:
    """A copy without batch norms, equal to `model` in evaluation mode: merged, then every batch norm folded.

    Each becomes part of the convolution or classifier beside it; layer norms stay. This is how the paper counts.
    `features` of RepLKNet are the same maps; `forward_features` gives the last of them without the head's norm.
    """
    folded = merge(model)
    for module in list(folded.modules()):
        if isinstance(module, Foldable):
            module.fold()
    return folded
