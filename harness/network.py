"""From a spec to a network: stages of blocks, features by stage, the merged form.

Shapes: N batch, H W height and width of the image; stage s has C[s] channels on a map of height H / stem_stride / 2**s.
Names of modules as in the paper's released checkpoints.
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from harness.blocks.conv_ffn import ConvFFN
from harness.blocks.rep_lk import RepLKBlock
from harness.blocks.reparam import Mergeable
from harness.blocks.stem import Stem
from harness.blocks.transition import Transition
from harness.spec import NetworkSpec, inner_width

Network = TypeVar("Network", bound=nn.Module)


class Stage(nn.Module):
    """Large-kernel blocks, each with a ConvFFN behind it; both of a pair have one drop-path probability."""

    def __init__(self, spec: NetworkSpec, i: int, *, drop_paths: list[float], merged: bool) -> None:
        super().__init__()
        c = spec.C[i]
        width, ffn_width = inner_width(c, spec.dw_ratio), inner_width(c, spec.ffn_ratio)
        self.blocks = nn.ModuleList()
        for p in drop_paths:
            self.blocks.append(
                RepLKBlock(
                    c,
                    width=width,
                    k=spec.K[i],
                    s=spec.reparam[i],
                    depthwise=spec.depthwise,
                    shortcut=spec.shortcut,
                    drop_path=p,
                    merged=merged,
                )
            )
            self.blocks.append(ConvFFN(c, width=ffn_width, drop_path=p))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)"""
        for block in self.blocks:
            x = block(x)
        return x


class RepLKNet(nn.Module):
    """Stem, four stages with transitions between them; the head normalises, pools and classifies, in this order."""

    def __init__(self, spec: NetworkSpec, *, merged: bool = False) -> None:
        super().__init__()
        self.stem = Stem(spec.in_channels, spec.C[0], stride=spec.stem_stride)
        drop_paths = drop_path_by_stage(spec)
        self.stages = nn.ModuleList(Stage(spec, i, drop_paths=p, merged=merged) for i, p in enumerate(drop_paths))
        self.transitions = nn.ModuleList(Transition(a, b) for a, b in zip(spec.C, spec.C[1:], strict=False))
        self.norm = nn.BatchNorm2d(spec.C[-1])
        self.head = nn.Linear(spec.C[-1], spec.classes)

    def features(self, x: Tensor) -> list[Tensor]:
        """The output maps of all stages, before the head's norm: (N, C[s], H_s, W_s) each."""
        maps: list[Tensor] = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.transitions[i - 1](x))
            maps.append(x)
        return maps

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


FAMILIES: dict[str, Callable[..., nn.Module]] = {"replknet": RepLKNet}
"""Constructors (spec, *, merged) by the spec's `family`."""


def build(spec: NetworkSpec, *, merged: bool = False, seed: int | None = None) -> nn.Module:
    """The network of a spec with fresh weights, in its training or its merged form.

    A seed decides the weights and leaves the global random state alone; without one they come from that state.
    """
    make = FAMILIES[spec.family]
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


def drop_path_by_stage(spec: NetworkSpec) -> list[list[float]]:
    """Drop probabilities, one per block and stage: linear from 0 at the first block to `drop_path` at the last."""
    last = max(1, sum(spec.B) - 1)
    starts = [sum(spec.B[:i]) for i in range(len(spec.B))]
    return [
        [spec.drop_path * j / last for j in range(start, start + b)] for start, b in zip(starts, spec.B, strict=True)
    ]
