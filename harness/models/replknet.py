"""RepLKNet: stages of large-kernel blocks and ConvFFNs (arXiv 2203.06717, section 4.1).

Shapes: N batch, H W height and width of the image; stage s has C[s] channels on a map of height H / stem_stride / 2**s.
Names of modules as in the paper's released checkpoints.
"""

import torch
from torch import Tensor, nn

from harness.models.activation_checkpointing import checkpointed
from harness.models.batchnorm_folding import fold_ahead
from harness.models.drop_path import drop_path_by_stage
from harness.models.large_kernels.reparam import Mergeable
from harness.models.replknet_block import RepLKBlock
from harness.models.replknet_conv_ffn import ConvFFN
from harness.models.replknet_stem import Stem
from harness.models.replknet_transition import Transition
from harness.models.spec.network import NetworkSpec, inner_width


class Stage(nn.Module):
    """Large-kernel blocks, each with a ConvFFN behind it; both of a pair have one drop-path probability."""

    def __init__(self, spec: NetworkSpec, i: int, *, drop_paths: list[float], merged: bool) -> None:
        super().__init__()
        self.grad_checkpointing = False
        c = spec.C[i]
        width, ffn_width = inner_width(c, spec.dw_ratio), inner_width(c, spec.ffn_ratio)
        self.blocks = nn.ModuleList()
        for p in drop_paths:
            self.blocks.append(
                RepLKBlock(
                    c,
                    width=width,
                    kernel=spec.kernel_of(i),
                    shortcut=spec.shortcut,
                    drop_path=p,
                    merged=merged,
                )
            )
            self.blocks.append(ConvFFN(c, width=ffn_width, drop_path=p))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)"""
        for block in self.blocks:
            x = checkpointed(block, x) if self.grad_checkpointing else block(x)
        return x

    def reparameterize(self) -> None:
        """Take the merged form; by this name timm's `reparameterize_model` finds what there is to merge."""
        for module in list(self.modules()):
            if isinstance(module, Mergeable):
                module.merge()


class RepLKNet(nn.Module):
    """Stem, four stages with transitions between them; the head normalises, pools and classifies, in this order."""

    def __init__(self, spec: NetworkSpec, *, merged: bool = False) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.stem = Stem(spec.in_channels, spec.C[0], stride=spec.stem_stride)
        drop_paths = drop_path_by_stage(spec)
        self.stages = nn.ModuleList(Stage(spec, i, drop_paths=p, merged=merged) for i, p in enumerate(drop_paths))
        self.transitions = nn.ModuleList(Transition(a, b) for a, b in zip(spec.C, spec.C[1:], strict=False))
        self.norm: nn.Module = nn.BatchNorm2d(spec.C[-1])
        self.head: nn.Module = nn.Linear(spec.C[-1], spec.classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: keep the input of each layer and block, compute the rest again."""
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
        """Through the stem or a transition."""
        if not self.grad_checkpointing:
            y: Tensor = layers(x)
            return y
        for layer in layers.children():
            x = checkpointed(layer, x)
        return x

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, C[-1], H', W'), normalised."""
        y: Tensor = self.norm(self.features(x)[-1])
        return y

    def forward_head(self, x: Tensor) -> Tensor:
        """(N, C[-1], H', W') -> logits (N, classes)."""
        y: Tensor = self.head(x.mean((2, 3)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, classes)."""
        return self.forward_head(self.forward_features(x))

    @torch.no_grad()
    def fold(self) -> None:
        """Let the classifier take over the head's norm, from which only the mean over the map parts it."""
        if isinstance(self.head, nn.Linear):
            self.norm = fold_ahead(self.norm, self.head)
