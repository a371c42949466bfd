"""Images on their way to the network: cut and distorted by timm's transforms, one by one, in processes of their own.

Shapes: N images, R the recipe's resolution.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.errors import DataError
from harness.full_recipe import FullRecipe
from harness.scale_up.images import OPTION, Images
from harness.scale_up.pace import Pace
from harness.scale_up.streams import mixed, streams_of

MOST_UNREADABLE = 50
"""Images in a row that may be damaged before a training ends."""
LEFT_OUT = -1
"""Label of a validation image that cannot be read."""

Item = tuple[Tensor, int, int]
"""The image, float32 (3, R, R); its label; and how many images had to be passed over."""
Batch = tuple[Tensor, Tensor, Tensor]
"""Many of them: (N, 3, R, R), (N,), (N,)."""


class TrainingItems(Dataset[Item]):
    """The images as one epoch sees them; each depends on its number, the epoch and the seed alone."""

    def __init__(self, images: Images, recipe: FullRecipe, epoch: int) -> None:
        self.images, self.side, self.transform = images, recipe.resolution, training_transform(recipe)
        self.key = (recipe.seed, epoch)

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, i: int) -> Item:
        """A file that cannot be read is replaced by the next one that can."""
        for passed in range(MOST_UNREADABLE):
            at = (i + passed) % len(self)
            picture = self.images.picture(at)
            if picture is not None:
                with streams_of(*self.key, i):
                    return self.transform(picture), int(self.images.labels[at]), passed
        return torch.zeros(3, self.side, self.side), LEFT_OUT, MOST_UNREADABLE


class ValidationItems(Dataset[Item]):
    """The images as they are validated on; one that cannot be read has the label -1."""

    def __init__(self, images: Images, recipe: FullRecipe) -> None:
        self.images, self.side, self.transform = images, recipe.resolution, validation_transform(recipe)

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, i: int) -> Item:
        picture = self.images.picture(i)
        if picture is None:
            return torch.zeros(3, self.side, self.side), LEFT_OUT, 1
        return self.transform(picture), int(self.images.labels[i]), 0


def training_batches(
    images: Images, recipe: FullRecipe, pace: Pace, *, epoch: int, rank: int, first_step: int, loaders: int
) -> Iterator[Batch]:
    """A worker's parts of the steps of an epoch, from a step on. Raises `DataError` where hardly one is readable."""
    order = torch.randperm(pace.images, generator=torch.Generator().manual_seed(mixed(recipe.seed, epoch)))
    parts = list(pace.index_lists(order.tolist(), rank, first_step))
    for batch in _loader(TrainingItems(images, recipe, epoch), parts, loaders):
        if int(batch[2].max()) >= MOST_UNREADABLE:
            raise DataError(f"of {MOST_UNREADABLE} training images in a row, one must be readable", place=OPTION)
        yield batch


def validation_batches(images: Images, recipe: FullRecipe, *, rank: int, size: int, loaders: int) -> Iterator[Batch]:
    """A worker's share of the validation images."""
    own, most = range(rank, len(images.labels), size), recipe.evaluation.batch_size
    parts = [list(own[start : start + most]) for start in range(0, len(own), most)]
    yield from _loader(ValidationItems(images, recipe), parts, loaders)


def _loader(items: Dataset[Item], parts: Sequence[list[int]], loaders: int) -> Iterator[Batch]:
    """The parts in order. The loader's own randomness, which nothing uses, is kept off the global stream."""
    loader: DataLoader[Any] = DataLoader(
        items,
        batch_sampler=parts,
        num_workers=loaders,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),
    )
    yield from loader


def training_transform(recipe: FullRecipe) -> Any:
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


def validation_transform(recipe: FullRecipe) -> Any:
    """From a picture to a tensor, resized and cut as timm does it."""
    how = recipe.augmentation.interpolation
    return create_transform(
        recipe.resolution,
        interpolation="bicubic" if how == "random" else how,
        mean=tuple(recipe.data.mean),
        std=tuple(recipe.data.std),
        crop_pct=recipe.evaluation.crop,
        crop_mode=recipe.evaluation.mode,
    )
