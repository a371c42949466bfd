"""Division of an epoch into optimizer steps, of a step among workers, and of a worker's share into micro-batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from harness.config.recipes.full_scale import FullScaleRecipe
from harness.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The division of an epoch. A step uses the same images with any number of workers."""

    images: int
    batch_size: int
    """Images per step."""
    workers: int
    micro_batch: int
    """Images at once in a worker."""
    steps: int
    """Steps per epoch."""

    @classmethod
    def of(cls, recipe: FullScaleRecipe, images: int, workers: int) -> Self:
        """Plan with the largest micro-batches up to `micro_batch` that divide a worker's share. Raises `UserError`s."""
        batch = recipe.batch_size
        if images < batch and not recipe.is_iteration_based:
            raise UserError(f"`batch_size` must be at most the {images:,} training images", value=batch)
        if batch % workers:
            fit = ", ".join(str(n) for n in range(1, 2 * workers) if batch % n == 0)
            raise UserError(
                f"`--workers` must divide `batch_size` ({batch})", value=workers, remedy=f"Near it: {fit} workers."
            )
        share = batch // workers
        sizes = [n for n in range(2, min(recipe.micro_batch, share) + 1) if share % n == 0]
        if not sizes:
            raise UserError(
                f"`batch_size` must give each of {workers} workers equal parts of 2 to {recipe.micro_batch} images "
                "(`micro_batch`)",
                value=batch,
                remedy="Take fewer workers, or another `--micro-batch`.",
            )
        return cls(images, batch, workers, sizes[-1], recipe.steps_per_interval(images))

    @property
    def per_worker(self) -> int:
        """Images per step in each worker."""
        return self.batch_size // self.workers

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per step in a worker, whose gradients are accumulated."""
        return self.per_worker // self.micro_batch

    def micro_batches(self, order: Sequence[T], rank: int, first_step: int) -> Iterator[list[T]]:
        """Yield the micro-batches of a worker from a step on, of an epoch with this order of items."""
        for step in range(first_step, self.steps):
            start = step * self.batch_size + rank * self.per_worker
            for part in range(start, start + self.per_worker, self.micro_batch):
                yield list(order[part : part + self.micro_batch])


def split_cpus(cpus: int, loaders: int | None, *, has_gpu: bool) -> tuple[int, int]:
    """Numbers of data workers and of compute threads among a worker's processors.

    By default there is one data worker if the processors also compute, and all but one if a GPU does.
    """
    most = cpus - 1 if has_gpu else min(1, cpus - 1)
    chosen = most if loaders is None else loaders
    return chosen, max(1, cpus - chosen)
