"""Batch norms as training leaves them: no statistic, scale or shift at its initial value."""

import torch
from torch import nn


def randomise(network: nn.Module, seed: int) -> None:
    """Give every batch norm of the network other parameters and running statistics, in place."""
    g = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            with torch.no_grad():
                module.running_mean.normal_(0, 0.5, generator=g)
                module.running_var.uniform_(0.5, 2, generator=g)
                module.weight.uniform_(0.5, 1.5, generator=g)
                module.bias.normal_(0, 0.5, generator=g)
