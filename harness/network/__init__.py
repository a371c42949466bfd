"""From a spec to a network, and to its merged form; a file per family."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from harness.blocks.reparam import Mergeable
from harness.network.replknet import RepLKNet
from harness.spec import NetworkSpec

__all__ = ["NETWORKS", "RepLKNet", "build", "merge"]

Network = TypeVar("Network", bound=nn.Module)

NETWORKS: dict[str, Callable[..., nn.Module]] = {"replknet": RepLKNet}
"""Constructors (spec, *, merged) by the spec's `family`."""


def build(spec: NetworkSpec, *, merged: bool = False, seed: int | None = None) -> nn.Module:
    """The network of a spec with fresh weights, in its training or its merged form.

    A seed decides the weights and leaves the global random state alone; without one they come from that state.
    """
    make = NETWORKS[spec.family]
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
