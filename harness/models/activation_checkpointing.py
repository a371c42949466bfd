"""Gradient checkpointing: what lies inside a block is computed again in the backward pass instead of kept."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from harness.errors import UserError


class _FrozenRunningStats:
    """While entered, a block's batch norms compute as before and leave their running statistics where they are."""

    def __init__(self, block: nn.Module) -> None:
        self.norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def checkpoint_block(block: nn.Module, x: Tensor) -> Tensor:
    """block(x) to the bit, gradients, running statistics and random state included; only x is kept for backward."""
    y: Tensor
    if torch.compiler.is_compiling():  # the compiler moves the statistics once by itself, and takes no contexts
        y = checkpoint(block, x, use_reentrant=False)
    else:
        y = checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _FrozenRunningStats(block)))
    return y


def enable_checkpointing(model: nn.Module, family: str) -> None:
    """Have a whole network compute its activations again. Raises `UserError` for a family that cannot."""
    enable = getattr(model, "set_grad_checkpointing", None)
    if enable is None:
        rule = "`checkpointing` needs a network that can compute its activations again; RepLKNet can"
        raise UserError(rule, value=family)
    enable()
