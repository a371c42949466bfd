"""The referee of `harness.models.cost`: counts what a network does on one image, module by module, on the meta
device."""

import copy
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.batchnorm_folding import Foldable
from harness.models.cost import Cost
from harness.models.large_kernels.peripheral import SharedConv2d


def count(network: nn.Module, channels: int, size: tuple[int, int]) -> Cost:
    """Parameters as registered, and as left by folding; the rest summed by hooks on convolutions and linear layers.

    Uses the network up: batch norms, whose MACs don't count and which are slow on the meta device, make way.
    """
    seen: list[Cost] = []
    params, saved = params_of(network), params_of(network) - params_of(_folded(network))

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(_layer(module, inputs[0], output))

    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d | nn.Linear):
                child.register_forward_hook(hook)
    with torch.no_grad():
        network(torch.empty(1, channels, *size, device="meta"))
    return sum(seen, Cost(params=params, params_saved=saved))


def params_of(network: nn.Module) -> int:
    """All parameters, as registered."""
    return sum(p.numel() for p in network.parameters())


def _folded(network: nn.Module) -> nn.Module:
    """A copy without batch norms, in the form that the network has; `harness.models.build.fold` merges it as well."""
    folded = copy.deepcopy(network)
    for module in list(folded.modules()):
        if isinstance(module, Foldable):
            module.fold()
    return folded


def _layer(module: nn.Module, x: Tensor, output: Tensor) -> Cost:
    if isinstance(module, nn.Linear):
        macs = module.weight.numel() * output[..., 0].numel()
        return Cost(0, macs, macs, output.numel())
    assert isinstance(module, nn.Conv2d)
    weight = module.kernel() if isinstance(module, SharedConv2d) else module.weight
    kernel = weight.shape[2:]
    per_tap = weight.shape[0] * weight.shape[1]
    taps = _taps_on_the_map(x.shape[2:], kernel, module.stride, module.padding, module.dilation)
    return Cost(0, per_tap * kernel.numel() * output[0, 0].numel(), per_tap * taps, output.numel())


@lru_cache(maxsize=512)
def _taps_on_the_map(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> int:
    """A kernel of ones over a map of ones adds up the taps that fall on the map."""
    ones = torch.ones(1, 1, *size, dtype=torch.float64), torch.ones(1, 1, *kernel, dtype=torch.float64)
    return int(F.conv2d(*ones, stride=stride, padding=padding, dilation=dilation).sum())
