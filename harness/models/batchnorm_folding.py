"""Batch norms folded away: in evaluation mode each is a scale and a shift, which the layer beside it can take over."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@runtime_checkable
class Foldable(Protocol):
    """A module with batch norms that the layers beside them can take over."""

    def fold(self) -> None:
        """Give up its own batch norms for good, without a change in evaluation mode; done before, nothing happens."""


def bn_scale_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in evaluation mode, one per channel, in float64."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None and norm.running_var is not None, "a batch norm without running statistics"
    gamma, beta, mean, var = (to_float64(v) for v in (norm.weight, norm.bias, norm.running_mean, norm.running_var))
    scale = gamma / torch.sqrt(var + norm.eps)
    return scale, beta - mean * scale


def to_float64(values: Tensor) -> Tensor:
    """In float64, which not every device has: on the CPU; without values (on the meta device) where it is."""
    return values.detach().to(values.device if values.is_meta else "cpu", torch.float64)


def fold_into_previous(layer: nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Let the layer compute norm(layer(x)); gives what is left of the norm."""
    if not isinstance(norm, _BatchNorm):
        return norm
    scale, shift = bn_scale_shift(norm)
    weight = to_float64(layer.weight)
    bias = shift if layer.bias is None else to_float64(layer.bias) * scale + shift
    _assign(layer, weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), bias)
    return nn.Identity().train(norm.training)


def fold_into_next(norm: nn.Module, layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Let the layer, which mixes all channels and pads nothing, compute layer(norm(x)); gives what is left of the norm.

    Behind a padded layer it would be wrong: the padding is zero behind the norm.
    """
    if not isinstance(norm, _BatchNorm):
        return norm
    if isinstance(layer, nn.Conv2d):
        assert layer.groups == 1 and layer.padding == (0, 0), "a layer that takes over the norm ahead of it"
    scale, shift = bn_scale_shift(norm)
    weight = to_float64(layer.weight)
    moved = weight.flatten(2).sum(2) @ shift if weight.dim() > 2 else weight @ shift
    bias = moved if layer.bias is None else to_float64(layer.bias) + moved
    _assign(layer, weight * scale.reshape(1, -1, *[1] * (weight.dim() - 2)), bias)
    return nn.Identity().train(norm.training)


def _assign(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """New values of the layer's type, on its device and in its memory format; `requires_grad` stays."""
    old = layer.weight
    layer.weight = nn.Parameter(torch.empty_like(old).copy_(weight), old.requires_grad)
    layer.bias = nn.Parameter(bias.to(old), old.requires_grad)
