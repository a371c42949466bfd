"""Two ways to compute one thing held against each other, in float64, with batch norms as training leaves them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MERGE_TOLERANCE = 1e-10
"""Of the difference, relative to the largest value: what merging and folding may cost in float64."""


def randomize(network: nn.Module, seed: int) -> None:
    """Give every batch norm of the network other parameters and running statistics, in place: none at its start."""
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
    """The network itself, randomised, in float64 and in evaluation mode."""
    randomize(network, seed=1)
    return network.double().eval()


def noise_images(channels: int, size: tuple[int, int]) -> Tensor:
    """Two, of noise, in float64."""
    return torch.randn(2, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def relative_error(output: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest exact value."""
    difference, largest = (output.double() - exact).detach().abs().max(), exact.detach().abs().max()
    return (difference / (1e-30 + largest)).item()


def max_error(errors: Iterable[float]) -> float:
    """The largest of them; NaN where one is."""
    return max(errors, key=lambda error: (error != error, error))
