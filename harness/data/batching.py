"""How an epoch is divided: into steps of the optimiser, these among workers, and each worker's share into parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from harness.config.recipes.full_scale import FullScaleRecipe
from harness.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The division of an epoch of so many images. A step sees the same images, however many workers share them."""

    images: int
    batch_size: int
    """Images of a step."""
    workers: int
    micro_batch: int
    """Images at once in a worker."""
    steps: int
    """Steps of an epoch."""

    @classmethod
    def of(cls, recipe: FullScaleRecipe, images: int, workers: int) -> Self:
        """The largest parts within `micro_batch` that give the recipe's `batch_size`. Raises `UserError`s."""
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
        """Images of a step in each worker."""
        return self.batch_size // self.workers

    @property
    def accumulation_steps(self) -> int:
        """Parts of a worker's share, whose gradients are gathered."""
        return self.per_worker // self.micro_batch

    def micro_batches(self, order: Sequence[T], rank: int, first_step: int) -> Iterator[list[T]]:
        """The parts of a worker from a step on, for an order of all that an epoch sees."""
        for step in range(first_step, self.steps):
            start = step * self.batch_size + rank * self.per_worker
            for part in range(start, start + self.per_worker, self.micro_batch):
                yield list(order[part : part + self.micro_batch])


def split_cpus(cpus: int, loaders: int | None, *, has_gpu: bool) -> tuple[int, int]:
    """How a worker shares its processors among processes that read images, and threads of its own.

    By default one processor reads where processors also compute, and all but one where a GPU does.
    """
    most = cpus - 1 if has_gpu else min(1, cpus - 1)
    chosen = most if loaders is None else loaders
    return chosen, max(1, cpus - chosen)
