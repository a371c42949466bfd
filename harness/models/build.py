"""Build a network from a spec, merge it, and fold its batch norms; each family has its own file."""

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

    With a seed, the weights depend on it and the global random state does not change; without, they use that state.
    Specs with equal fingerprints build equal networks, including the names in the state dict.
    """
    make, spec = NETWORKS[spec.family], spec.identity()
    if seed is None:
        return make(spec, merged=merged)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make(spec, merged=merged)


def merge(model: Network) -> Network:
    """A copy of the network in its merged form, equal to `model` in evaluation mode; `model` is not changed."""
    merged = copy.deepcopy(model)
    for module in list(merged.modules()):
        if isinstance(module, Mergeable):
            module.merge()
    return merged


def fold(model: Network) -> Network:
    """A copy without batch norms, equal to `model` in evaluation mode: merged, then every batch norm folded.

    Each becomes part of the adjacent convolution or classifier; layer norms stay. The paper counts parameters this way.
    `features` of RepLKNet returns the same maps; `forward_features` returns the last map without the head's norm.
    """
    folded = merge(model)
    for module in list(folded.modules()):
        if isinstance(module, Foldable):
            module.fold()
    return folded
