"""The layers of the blocks: convolution, normalization, stochastic depth.

Names inside blocks: c channels, k kernel side, s side of the small parallel kernel.
Shapes: N batch, H W height and width of the map.
"""

import torch
from torch import Tensor, nn

from harness.models.batchnorm_folding import fold_into_previous
from harness.models.spec.network import NetworkSpec
from harness.ops import DepthwiseConv2d, batch_norm_act
from harness.ops.batch_norm import ActivationName

LAYER_NORM_EPS = 1e-6
"""As in ConvNeXt's networks."""


def conv2d(
    c_in: int,
    c_out: int,
    k: int | tuple[int, int],
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution of odd sides k (or height and width), padded so that it is centered on every stride-th pixel.

    If it is depth-wise, it is the harness's own operator.
    """
    kh, kw = k if isinstance(k, tuple) else (k, k)
    padding = (kh // 2 * dilation, kw // 2 * dilation)
    if c_in == c_out == groups:
        return DepthwiseConv2d(c_in, (kh, kw), stride=stride, padding=padding, dilation=dilation, bias=bias)
    return nn.Conv2d(c_in, c_out, (kh, kw), stride, padding, dilation, groups, bias)


class ConvBN(nn.Module):
    """activation(bn(conv(x))), without an activation unless a subclass sets one."""

    activation: ActivationName = "none"

    def __init__(
        self,
        c_in: int,
        c_out: int,
        k: int | tuple[int, int],
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = conv2d(c_in, c_out, k, stride=stride, dilation=dilation, groups=groups)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, H / stride, W / stride), rounded up."""
        return batch_norm_act(self.conv(x), self.bn, self.activation)

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the batch norm into the convolution's weight and bias; an identity replaces it."""
        self.add_module("bn", fold_into_previous(self.conv, self.bn))


class ConvBNReLU(ConvBN):
    """relu(bn(conv(x)))"""

    activation = "relu"


class ConvBNReLU6(ConvBN):
    """relu6(bn(conv(x)))"""

    activation = "relu6"


class ConvBNGELU(ConvBN):
    """gelu(bn(conv(x)))"""

    activation = "gelu"


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of every pixel."""

    def __init__(self, c: int) -> None:
        super().__init__(c, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H, W)"""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Stochastic depth: in training, an image's residual is 0 with probability p, and scaled by 1 / (1 - p) otherwise.

    Implemented here because libraries that have it take seconds to import in every worker.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(N, ...) -> (N, ...)"""
        if not self.training or self.p == 0:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.p)
        return x * (keep / (1 - self.p))

    def extra_repr(self) -> str:
        """The probability, for the printed network."""
        return f"p={self.p:.3g}"


class StagedNetwork(nn.Module):
    """A stem, stages in sequence, and a head: the interface that all families share."""

    stem: nn.Module
    stages: nn.ModuleList

    def features(self, x: Tensor) -> list[Tensor]:
        """The output maps of all stages: (N, C[s], H_s, W_s) each."""
        maps: list[Tensor] = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, classes)."""
        logits: Tensor = self.forward_head(self.forward_features(x))  # type: ignore[operator]
        return logits


def drop_path_by_stage(spec: NetworkSpec) -> list[list[float]]:
    """Drop probabilities, one per block and stage: linear from 0 at the first block to `drop_path` at the last."""
    last = max(1, sum(spec.B) - 1)
    starts = [sum(spec.B[:i]) for i in range(len(spec.B))]
    return [
        [spec.drop_path * j / last for j in range(start, start + b)] for start, b in zip(starts, spec.B, strict=True)
    ]
