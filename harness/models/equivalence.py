"""Equivalence checks of two computations, in float64, with batch-norm statistics like those after training."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MERGE_TOLERANCE = 1e-10
"""Tolerance of the difference relative to the largest value, for merging and folding in float64."""


def randomize(network: nn.Module, seed: int) -> None:
    """Randomize parameters and running statistics of all batch norms in place, so none has its initial values."""
    g = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            with torch.no_grad():
                module.running_mean.normal_(0, 0.5, generator=g)
                module.running_var.uniform_(0.5, 2, generator=g)
                module.weight.uniform_(0.5, 1.5, generator=g)
                module.bias.normal_(0, 0.5, generator=g)


def randomized_float64(network: nn.Module) -> nn.Module:
    """Randomize the network in place and convert it to float64 and evaluation mode."""
    randomize(network, seed=1)
    return network.double().eval()


def noise_images(channels: int, size: tuple[int, int]) -> Tensor:
    """Two images of noise (2, channels, *size), in float64."""
    return torch.randn(2, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def relative_error(output: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest exact value."""
    difference, largest = (output.double() - exact).detach().abs().max(), exact.detach().abs().max()
    return (difference / (1e-30 + largest)).item()


def max_error(errors: Iterable[float]) -> float:
    """The largest error; NaN if one of them is NaN."""
    return max(errors, key=lambda error: (error != error, error))
