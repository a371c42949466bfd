"""Folding of batch norms: in evaluation mode each is a scale and a shift, which an adjacent layer can absorb."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@runtime_checkable
class Foldable(Protocol):
    """A module with batch norms that adjacent layers can absorb."""

    def fold(self) -> None:
        """Fold its own batch norms, permanently; the output in evaluation mode does not change. Idempotent."""


def bn_scale_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in evaluation mode, one per channel, in float64."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None and norm.running_var is not None, "a batch norm without running statistics"
    gamma, beta, mean, var = (to_float64(v) for v in (norm.weight, norm.bias, norm.running_mean, norm.running_var))
    scale = gamma / torch.sqrt(var + norm.eps)
    return scale, beta - mean * scale


def to_float64(values: Tensor) -> Tensor:
    """Detach and convert to float64, on the CPU because not every device supports it; meta tensors stay on meta."""
    return values.detach().to(values.device if values.is_meta else "cpu", torch.float64)


def fold_into_previous(layer: nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Change the layer to compute norm(layer(x)); returns the module that replaces the norm."""
    if not isinstance(norm, _BatchNorm):
        return norm
    scale, shift = bn_scale_shift(norm)
    weight = to_float64(layer.weight)
    bias = shift if layer.bias is None else to_float64(layer.bias) * scale + shift
    _assign(layer, weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), bias)
    return nn.Identity().train(norm.training)


def fold_into_next(norm: nn.Module, layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Change the layer (dense, without padding) to compute layer(norm(x)); returns the module that replaces the norm.

    It would be wrong for a padded layer: its padding is zero after the norm, not before it.
    """
    if not isinstance(norm, _BatchNorm):
        return norm
    if isinstance(layer, nn.Conv2d):
        assert layer.groups == 1 and layer.padding == (0, 0), "the layer must be dense and not padded"
    scale, shift = bn_scale_shift(norm)
    weight = to_float64(layer.weight)
    moved = weight.flatten(2).sum(2) @ shift if weight.dim() > 2 else weight @ shift
    bias = moved if layer.bias is None else to_float64(layer.bias) + moved
    _assign(layer, weight * scale.reshape(1, -1, *[1] * (weight.dim() - 2)), bias)
    return nn.Identity().train(norm.training)


def _assign(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Set weight and bias, in the layer's dtype, device and memory format; `requires_grad` does not change."""
    old = layer.weight
    layer.weight = nn.Parameter(torch.empty_like(old).copy_(weight), old.requires_grad)
    layer.bias = nn.Parameter(bias.to(old), old.requires_grad)
