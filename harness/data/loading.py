"""Loading of batches: images are read and transformed one by one, with timm's transforms, in data workers.

`BatchReader` runs these processes, which read ahead and live as long as a training does, for the items of any task.

Shapes: N images, R the recipe's resolution.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config.recipes.full_scale import ClassificationRecipe, FullScaleRecipe
from harness.data.batching import BatchPlan
from harness.data.image_file import UnreadableFile
from harness.data.image_sources import DATA_OPTION, ImageSource
from harness.data.preprocessing import Preprocessing
from harness.data.seeding import mix_seed, seeded_streams
from harness.errors import DataError
from harness.system.device_slot import computing, released_cpu_slot

T = TypeVar("T")
Collate = Callable[[list[Any]], Any]
"""Function that makes a batch of items."""


class BatchReader:
    """Reads the items of a data set by key in data workers, which start with the first batch and end with the reader.

    Between two calls of `read` they wait. With 0 loaders the calling process reads, when it requests a batch.

    A process that reads an item holds the processor's slot (`device_slot`), and the caller releases it while it waits
    for a batch. With `leads=False` no slot is used: of ranks that synchronize in every step, only one uses it.
    """

    def __init__(
        self, items: Dataset[Any], loaders: int, collate: Collate | None = None, *, leads: bool = True
    ) -> None:
        self._requested, self._rest = _RequestedBatches(), released_cpu_slot if loaders and leads else nullcontext
        self._loader: DataLoader[Any] = DataLoader(
            _Shared(items) if leads else items,
            batch_sampler=self._requested,
            num_workers=loaders,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=loaders > 0,
            generator=torch.Generator().manual_seed(0),  # not used, but without it the global generator would be
        )

    def read(self, parts: Iterable[Sequence[Any]]) -> Generator[Any]:
        """Yield a batch for each part, a list of keys, in order; the next ones are read ahead.

        The parts are consumed lazily, so there may be very many. A new call ends the previous one.
        """
        self._requested.parts = parts
        batches = iter(self._loader)
        while True:
            with self._rest():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


class _Shared(Dataset[Any]):
    """A data set each of whose items is read while the processor's slot is held shared."""

    def __init__(self, items: Dataset[Any]) -> None:
        self._items = items

    def __getitem__(self, key: Any) -> Any:
        with computing():
            return self._items[key]


class _RequestedBatches:
    """Batch sampler of the parts of the current call of `read`."""

    parts: Iterable[Sequence[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        return (list(part) for part in self.parts)


MAX_UNREADABLE_IN_A_ROW = 50
"""Number of unreadable images in a row after which a training ends."""
UNREADABLE_LABEL = -1
"""Label of a validation image that cannot be read."""

Item = tuple[Tensor, int, int]
"""The image, float32 (3, R, R); its label; and the number of unreadable images that were skipped."""
Batch = tuple[Tensor, Tensor, Tensor]
"""A batch of items: (N, 3, R, R), (N,), (N,)."""
Index = tuple[int, int]
"""The number of a pass over the training images, from 1, and the index of an image."""


def first_readable(read: Callable[[int], T | UnreadableFile | None], i: int, count: int) -> tuple[T | None, int, int]:
    """The first readable item from index `i` on, of `count` items in a circle; its index, and how many were skipped.

    `read` returns the item at an index, or no item if it cannot be read. None after `MAX_UNREADABLE_IN_A_ROW`.
    """
    for passed in range(MAX_UNREADABLE_IN_A_ROW):
        at = (i + passed) % count
        item = read(at)
        if item is not None and not isinstance(item, UnreadableFile):
            return item, at, passed
    return None, i, MAX_UNREADABLE_IN_A_ROW


class TrainingItems(Dataset[Item]):
    """The augmented training images; each depends only on the pass, its index and the seed."""

    def __init__(self, images: ImageSource, recipe: ClassificationRecipe) -> None:
        self.images, self.side, self.transform = images, recipe.resolution, training_transform(recipe)
        self.seed = recipe.seed

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, index: Index) -> Item:
        """One item; a file that cannot be read is replaced by the next readable one."""
        number, i = index
        picture, at, passed = first_readable(self.images.image_or_failure, i, len(self))
        if picture is None:
            return torch.zeros(3, self.side, self.side), UNREADABLE_LABEL, passed
        with seeded_streams(self.seed, number, i):
            return self.transform(picture), int(self.images.labels[at]), passed


class ValidationItems(Dataset[Item]):
    """The preprocessed validation images; an unreadable one has the label -1."""

    def __init__(self, images: ImageSource, preprocessing: Preprocessing) -> None:
        self.images, self.viewing, self.transform = images, preprocessing, preprocessing.transform()

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, i: int) -> Item:
        picture = self.images.image_or_failure(i)
        channels = len(self.viewing.mean)
        if isinstance(picture, UnreadableFile):
            return torch.zeros(channels, self.viewing.resolution, self.viewing.resolution), UNREADABLE_LABEL, 1
        return self.transform(picture.convert("L") if channels == 1 else picture), int(self.images.labels[i]), 0


def step_batches(
    items: Dataset[Any],
    recipe: FullScaleRecipe,
    batch_plan: BatchPlan,
    *,
    epoch: int,
    rank: int,
    first_step: int,
    loaders: int,
    collate: Collate | None = None,
) -> Iterator[Any]:
    """Yield a worker's micro-batches of all steps, from a step of an epoch to the end of the training.

    It is one generator, so that the first images of an epoch are read while the previous epoch is validated. The last
    element of a batch is the number of files skipped for each item. Raises `DataError` if too many in a row are
    unreadable.
    """
    parts = _index_batches(recipe, batch_plan, epoch, rank, first_step)
    for batch in BatchReader(items, loaders, collate, leads=rank == 0).read(parts):
        if int(batch[-1].max()) >= MAX_UNREADABLE_IN_A_ROW:
            raise DataError(
                f"of {MAX_UNREADABLE_IN_A_ROW} training images in a row, one must be readable", place=DATA_OPTION
            )
        yield batch


def _index_batches(
    recipe: FullScaleRecipe, batch_plan: BatchPlan, epoch: int, rank: int, first_step: int
) -> Iterator[list[Index]]:
    """Yield the indices of a worker's micro-batches.

    An epoch is a pass over the images; in an iteration-based training it continues where the previous one ended.
    """
    passes, count = _EpochOrders(recipe.seed, batch_plan.images), batch_plan.steps * batch_plan.batch_size
    for interval in range(epoch, recipe.intervals + 1):
        start = (interval - 1) * (count if recipe.is_iteration_based else batch_plan.images)
        skipped_steps = first_step if interval == epoch else 0
        for part in batch_plan.micro_batches(range(start, start + count), rank, skipped_steps):
            yield passes.at(part)


class _EpochOrders:
    """Successive passes over the images, each in its own random order."""

    def __init__(self, seed: int, images: int) -> None:
        self._seed, self._images = seed, images
        self._number, self._order = 0, np.empty(0, np.int64)

    def at(self, positions: Sequence[int]) -> list[Index]:
        """The indices at these positions, which are counted over all passes."""
        indices = []
        for position in positions:
            number, place = position // self._images + 1, position % self._images
            if number != self._number:
                generator = torch.Generator().manual_seed(mix_seed(self._seed, number))
                self._number, self._order = number, torch.randperm(self._images, generator=generator).numpy()
            indices.append((number, int(self._order[place])))
        return indices


def worker_indices(count: int, most: int, *, rank: int, size: int) -> list[list[int]]:
    """The indices of a worker's share of `count` items, in lists of at most `most`."""
    share = range(rank, count, size)
    return [list(share[start : start + most]) for start in range(0, len(share), most)]


def training_transform(recipe: ClassificationRecipe) -> Any:
    """The transform from an image to a tensor, with timm's augmentation."""
    chosen = recipe.augmentation
    least, largest = chosen.crop_scale
    return create_transform(
        recipe.resolution,
        is_training=True,
        scale=(least, largest),
        hflip=chosen.flip,
        color_jitter=chosen.color_jitter,
        auto_augment=chosen.randaugment,
        interpolation=chosen.interpolation,
        mean=tuple(recipe.data.mean),
        std=tuple(recipe.data.std),
        re_prob=chosen.erasing,
        re_mode=chosen.erasing_mode,
    )
