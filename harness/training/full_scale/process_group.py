"""The workers that train one network together: a single worker, or all of a torch process group."""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Process group as seen by one worker. Every worker must call the methods in the same order."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this worker writes files and reports."""
        return self.rank == 0

    def any_of(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any worker."""
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
        """Broadcast rank 0's buffers; batch norm statistics are local to each rank."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def all_gather(self, values: list[T]) -> list[T]:
        """Concatenate the lists of all workers, in the order of ranks; the values must be picklable."""
        if self.size == 1:
            return values
        parts: list[list[T] | None] = [None] * self.size
        dist.all_gather_object(parts, values)
        return [value for part in parts if part is not None for value in part]
