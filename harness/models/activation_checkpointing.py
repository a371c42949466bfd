"""Gradient checkpointing: activations inside a block are recomputed in the backward pass instead of stored."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from harness.errors import UserError


class _FrozenRunningStats:
    """Context in which a block's batch norms compute as before, but do not update their running statistics."""

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
    """Bitwise equal to block(x), with gradients, running statistics and random state; stores only x for backward."""
    y: Tensor
    if torch.compiler.is_compiling():  # the compiler updates the statistics only once, and does not support contexts
        y = checkpoint(block, x, use_reentrant=False)
    else:
        y = checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _FrozenRunningStats(block)))
    return y


def enable_checkpointing(model: nn.Module, family: str) -> None:
    """Enable gradient checkpointing in a whole network. Raises `UserError` for a family that does not support it."""
    enable = getattr(model, "set_grad_checkpointing", None)
    if enable is None:
        rule = "`checkpointing` needs a network that can recompute its activations; RepLKNet can"
        raise UserError(rule, value=family)
    enable()
