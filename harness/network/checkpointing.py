"""Gradient checkpointing: what lies inside a block is computed again in the backward pass instead of kept."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class _StillStatistics:
    """While entered, a block's batch norms compute as before and leave their running statistics alone."""

    def __init__(self, block: nn.Module) -> None:
        self.norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.track_running_stats = False

    def __exit__(self, *_: object) -> None:
        for norm in self.norms:
            norm.track_running_stats = True


def checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    """block(x) to the bit, gradients, running statistics and random state included; only x is kept for backward."""
    y: Tensor
    if torch.compiler.is_compiling():  # the compiler moves the statistics once by itself, and takes no contexts
        y = checkpoint(block, x, use_reentrant=False)
    else:
        y = checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _StillStatistics(block)))
    return y
