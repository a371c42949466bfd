"""Images on their way to the network: cut and distorted by timm's transforms, one by one, in processes of their own.

`BatchReader` runs these processes, which read ahead and live as long as a training does, for the items of any task.

Shapes: N images, R the recipe's resolution.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config.recipes.full_scale import ClassificationRecipe, FullScaleRecipe
from harness.data.batching import BatchPlan
from harness.data.image_sources import DATA_OPTION, ImageSource
from harness.data.preprocessing import Preprocessing
from harness.data.seeding import mix_seed, seeded_streams
from harness.errors import DataError
from harness.system.device_slot import computing, released_cpu_slot

Collate = Callable[[list[Any]], Any]
"""Makes a batch of items."""


class BatchReader:
    """Reads the items of a set by their keys; the processes are started for the first batch, and end with the reader.

    Between two readings they wait. With 0 loaders the caller's own process reads, when it asks for a batch.

    Whoever reads an item computes (`device_slot`), and the caller holds no slot of the processor while it waits for
    a batch. With `leads=False` nobody does: of workers that wait for each other in every step, only one takes part.
    """

    def __init__(
        self, items: Dataset[Any], loaders: int, collate: Collate | None = None, *, leads: bool = True
    ) -> None:
        self._asked, self._rest = _RequestedBatches(), released_cpu_slot if loaders and leads else nullcontext
        self._loader: DataLoader[Any] = DataLoader(
            _Shared(items) if leads else items,
            batch_sampler=self._asked,
            num_workers=loaders,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=loaders > 0,
            generator=torch.Generator().manual_seed(0),  # nothing uses it; it is kept off the global stream
        )

    def read(self, parts: Iterable[Sequence[Any]]) -> Generator[Any]:
        """A batch for each part, a list of keys, in order; what comes next is read meanwhile.

        The parts are asked for as they are needed, so there may be very many. A reading ends the one before it.
        """
        self._asked.parts = parts
        batches = iter(self._loader)
        while True:
            with self._rest():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


class _Shared(Dataset[Any]):
    """Items, each of which is read while the processor's slot is held shared."""

    def __init__(self, items: Dataset[Any]) -> None:
        self._items = items

    def __getitem__(self, key: Any) -> Any:
        with computing():
            return self._items[key]


class _RequestedBatches:
    """The parts that are to be read now."""

    parts: Iterable[Sequence[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        return (list(part) for part in self.parts)


MAX_UNREADABLE_IN_A_ROW = 50
"""Images in a row that may be damaged before a training ends."""
UNREADABLE_LABEL = -1
"""Label of a validation image that cannot be read."""

Item = tuple[Tensor, int, int]
"""The image, float32 (3, R, R); its label; and how many images had to be passed over."""
Batch = tuple[Tensor, Tensor, Tensor]
"""Many of them: (N, 3, R, R), (N,), (N,)."""
Index = tuple[int, int]
"""A pass over the training images, from 1, and the number of an image."""


class TrainingItems(Dataset[Item]):
    """The images as a pass sees them; each depends on the pass, its number and the seed alone."""

    def __init__(self, images: ImageSource, recipe: ClassificationRecipe) -> None:
        self.images, self.side, self.transform = images, recipe.resolution, training_transform(recipe)
        self.seed = recipe.seed

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, index: Index) -> Item:
        """A file that cannot be read is replaced by the next one that can."""
        number, i = index
        for passed in range(MAX_UNREADABLE_IN_A_ROW):
            at = (i + passed) % len(self)
            picture = self.images.image(at)
            if picture is not None:
                with seeded_streams(self.seed, number, i):
                    return self.transform(picture), int(self.images.labels[at]), passed
        return torch.zeros(3, self.side, self.side), UNREADABLE_LABEL, MAX_UNREADABLE_IN_A_ROW


class ValidationItems(Dataset[Item]):
    """The images as they are validated on; one that cannot be read has the label -1."""

    def __init__(self, images: ImageSource, preprocessing: Preprocessing) -> None:
        self.images, self.viewing, self.transform = images, preprocessing, preprocessing.transform()

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, i: int) -> Item:
        picture = self.images.image(i)
        channels = len(self.viewing.mean)
        if picture is None:
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
    """A worker's parts of all steps, from a step of an epoch to the last epoch, of items by `Index`.

    It is one stream, so that the first images of an epoch are read while the epoch before it is validated. The last of
    a batch says how many files were passed over for each item. Raises `DataError` where hardly one is readable.
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
    """What a worker sees, part by part.

    An epoch is a pass over the images; of endless passes it is what follows on that of the epoch before it.
    """
    passes, wanted = _EpochOrders(recipe.seed, batch_plan.images), batch_plan.steps * batch_plan.batch_size
    for each in range(epoch, recipe.intervals + 1):
        start = (each - 1) * (wanted if recipe.is_iteration_based else batch_plan.images)
        for part in batch_plan.micro_batches(range(start, start + wanted), rank, first_step if each == epoch else 0):
            yield passes.at(part)


class _EpochOrders:
    """Passes over so many images, one behind the other, each in an order of its own."""

    def __init__(self, seed: int, images: int) -> None:
        self._seed, self._images = seed, images
        self._number, self._order = 0, np.empty(0, np.int64)

    def at(self, positions: Sequence[int]) -> list[Index]:
        """What stands at these positions, counted over all passes."""
        found = []
        for position in positions:
            number, place = position // self._images + 1, position % self._images
            if number != self._number:
                generator = torch.Generator().manual_seed(mix_seed(self._seed, number))
                self._number, self._order = number, torch.randperm(self._images, generator=generator).numpy()
            found.append((number, int(self._order[place])))
        return found


def worker_indices(count: int, most: int, *, rank: int, size: int) -> list[list[int]]:
    """The numbers of a worker's share of so many items, `most` at once."""
    own = range(rank, count, size)
    return [list(own[start : start + most]) for start in range(0, len(own), most)]


def load_batches(
    items: Dataset[Any], parts: Sequence[list[Any]], loaders: int, collate: Collate | None = None
) -> Iterator[Any]:
    """The parts in order, read by processes that end with them."""
    yield from BatchReader(items, loaders, collate).read(parts)


def training_transform(recipe: ClassificationRecipe) -> Any:
    """From a picture to a tensor, with timm's augmentation."""
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
