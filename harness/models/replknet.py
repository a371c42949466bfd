"""RepLKNet (arXiv 2203.06717, section 4.1), leaf to root: stem, transition, large-kernel block, ConvFFN, the network.

Shapes: N batch, H W height and width of the image; stage s has C[s] channels on a map of height H / stem_stride / 2**s.
Names of modules as in the paper's released checkpoints.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.activation_checkpointing import checkpoint_block
from harness.models.batchnorm_folding import fold_into_next
from harness.models.cost import families
from harness.models.large_kernels import large_kernel
from harness.models.large_kernels.reparam import Mergeable
from harness.models.layers import ConvBN, ConvBNGELU, ConvBNReLU, DropPath, StagedNetwork, drop_path_by_stage
from harness.models.spec.kernel import Kernel
from harness.models.spec.network import NetworkSpec, inner_width
from harness.ops import batch_norm_act


class RepLKNetStem(nn.Sequential):
    """3x3 dense of stride 2, 3x3 depth-wise, 1x1, 3x3 depth-wise of stride 2; of stride 1 for a total stride of 2.

    (N, c_in, H, W) -> (N, c, H / stride, W / stride), rounded up.
    """

    def __init__(self, c_in: int, c: int, *, stride: int = 4) -> None:
        super().__init__(
            ConvBNReLU(c_in, c, 3, stride=2),
            ConvBNReLU(c, c, 3, groups=c),
            ConvBNReLU(c, c, 1),
            ConvBNReLU(c, c, 3, stride=stride // 2, groups=c),
        )

    cost = staticmethod(families.replknet_stem)


class Transition(nn.Sequential):
    """1x1 to the next stage's channels, then 3x3 depth-wise of stride 2.

    (N, c_in, H, W) -> (N, c, H / 2, W / 2), rounded up.
    """

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__(ConvBNReLU(c_in, c, 1), ConvBNReLU(c, c, 3, stride=2, groups=c))

    cost = staticmethod(families.transition)


class RepLKBlock(nn.Module):
    """x + pw2(relu(large_kernel(pw1(bn(x)))))

    shortcut=False drops the "x +" of this block only; the ConvFFN after it keeps its own.
    """

    def __init__(
        self,
        c: int,
        *,
        width: int,
        kernel: Kernel,
        shortcut: bool = True,
        drop_path: float = 0.0,
        merged: bool = False,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.prelkb_bn = nn.BatchNorm2d(c)
        self.pw1 = ConvBNReLU(c, width, 1)
        self.large_kernel = large_kernel(width, kernel, merged=merged)
        self.pw2 = ConvBN(width, c, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H, W)"""
        y = self.pw1(batch_norm_act(x, self.prelkb_bn, "none"))
        y = self.pw2(F.relu(self.large_kernel(y)))
        residual: Tensor = self.drop_path(y)
        return x + residual if self.shortcut else residual

    cost = staticmethod(families.rep_lk)

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the pre-norm into the first convolution."""
        self.add_module("prelkb_bn", fold_into_next(self.prelkb_bn, self.pw1.conv))


class ConvFFN(nn.Module):
    """x + pw2(gelu(pw1(bn(x))))"""

    def __init__(self, c: int, *, width: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.preffn_bn = nn.BatchNorm2d(c)
        self.pw1 = ConvBNGELU(c, width, 1)
        self.pw2 = ConvBN(width, c, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H, W)"""
        y: Tensor = self.drop_path(self.pw2(self.pw1(batch_norm_act(x, self.preffn_bn, "none"))))
        return x + y

    cost = staticmethod(families.conv_ffn)

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the pre-norm into the first convolution."""
        self.add_module("preffn_bn", fold_into_next(self.preffn_bn, self.pw1.conv))


class RepLKNetStage(nn.Module):
    """Large-kernel blocks, each followed by a ConvFFN; both of a pair have the same drop-path probability."""

    def __init__(self, spec: NetworkSpec, i: int, *, drop_paths: list[float], merged: bool) -> None:
        super().__init__()
        self.grad_checkpointing = False
        c = spec.C[i]
        width, ffn_width = (inner_width(c, spec.at(name, i)) for name in ("dw_ratio", "ffn_ratio"))
        self.blocks = nn.ModuleList()
        for p in drop_paths:
            self.blocks.append(
                RepLKBlock(
                    c,
                    width=width,
                    kernel=spec.kernel_of(i),
                    shortcut=spec.at("shortcut", i),
                    drop_path=p,
                    merged=merged,
                )
            )
            self.blocks.append(ConvFFN(c, width=ffn_width, drop_path=p))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)"""
        for block in self.blocks:
            x = checkpoint_block(block, x) if self.grad_checkpointing else block(x)
        return x

    def reparameterize(self) -> None:
        """Merge all blocks; timm's `reparameterize_model` calls methods of this name."""
        for module in list(self.modules()):
            if isinstance(module, Mergeable):
                module.merge()


class RepLKNet(StagedNetwork):
    """Stem, four stages with transitions between them, and a head: norm, pooling, classifier, in this order."""

    def __init__(self, spec: NetworkSpec, *, merged: bool = False) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.stem = RepLKNetStem(spec.in_channels, spec.C[0], stride=spec.stem_stride)
        drop_paths = drop_path_by_stage(spec)
        self.stages = nn.ModuleList(
            RepLKNetStage(spec, i, drop_paths=p, merged=merged) for i, p in enumerate(drop_paths)
        )
        self.transitions = nn.ModuleList(Transition(a, b) for a, b in zip(spec.C, spec.C[1:], strict=False))
        self.norm: nn.Module = nn.BatchNorm2d(spec.C[-1])
        self.head: nn.Module = nn.Linear(spec.C[-1], spec.classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: store the input of each layer and block, and recompute the rest."""
        for module in (self, *self.stages):
            module.grad_checkpointing = enable

    def features(self, x: Tensor, *, count: int | None = None) -> list[Tensor]:
        """The output maps of the first `count` stages or of all, before the head's norm: (N, C[s], H_s, W_s) each."""
        maps: list[Tensor] = []
        x = self._through(self.stem, x)
        for i, stage in enumerate(self.stages):
            if i == count:
                break
            x = stage(x if i == 0 else self._through(self.transitions[i - 1], x))
            maps.append(x)
        return maps

    def _through(self, layers: nn.Module, x: Tensor) -> Tensor:
        """Apply the stem or a transition, checkpointed if enabled."""
        if not self.grad_checkpointing:
            y: Tensor = layers(x)
            return y
        for layer in layers.children():
            x = checkpoint_block(layer, x)
        return x

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, C[-1], H', W'), normalized."""
        y: Tensor = self.norm(self.features(x)[-1])
        return y

    def forward_head(self, x: Tensor) -> Tensor:
        """(N, C[-1], H', W') -> logits (N, classes)."""
        y: Tensor = self.head(x.mean((2, 3)))
        return y

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the head's norm into the classifier; only the mean over the map is between them."""
        if isinstance(self.head, nn.Linear):
            self.norm = fold_into_next(self.norm, self.head)
