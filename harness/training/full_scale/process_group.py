"""The workers that train one network together: a single one, or all of a torch process group."""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """One worker's view of it. Every worker calls the methods in the same order."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this worker writes files and reports."""
        return self.rank == 0

    def any_of(self, *flags: bool) -> list[bool]:
        """Each flag, raised if any worker raises it."""
        if self.size == 1:
            return list(flags)
        raised = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised.tolist()]

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over all workers."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Give every worker the leader's buffers: statistics of batch norms are gathered by each worker alone."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def all_gather(self, values: list[T]) -> list[T]:
        """What all workers have, in the order of the workers; of plain values, which travel between processes."""
        if self.size == 1:
            return values
        parts: list[list[T] | None] = [None] * self.size
        dist.all_gather_object(parts, values)
        return [value for part in parts if part is not None for value in part]
