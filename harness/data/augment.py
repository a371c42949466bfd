"""Augmentation of a batch of training images on the device, and the normalization that validation uses, too.

Shapes: images uint8 (N, C, H, W) in; float32 (N, C, H, W) out, with mean 0 and standard deviation 1 per channel over
the training split. All random numbers come from the generator that is passed, which is on the CPU: numpy's and Python's
global generators, which timm uses, are seeded from it and restored afterwards.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from harness.config.recipes.proxy import Augmentation
from harness.data.dataset import Dataset
from harness.data.seeding import seeded_numpy_and_python


def normalize(images: Tensor, dataset: Dataset) -> Tensor:
    """Convert uint8 images to float32 with mean 0 and standard deviation 1 per channel."""
    mean = torch.tensor(dataset.mean, device=images.device)[:, None, None]
    std = torch.tensor(dataset.std, device=images.device)[:, None, None]
    return (images.float() / 255 - mean) / std


def augment(
    images: Tensor, labels: Tensor, augmentation: Augmentation, dataset: Dataset, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The augmented batch: images, and int64 labels (N,), or targets (N, classes) if images are mixed.

    Targets have no label smoothing: the loss adds it to both forms.
    """
    if augmentation.randaugment is not None:
        images = rand_augment(images, augmentation.randaugment, dataset, generator)
    batch = FlipShift.draw(len(images), augmentation, generator).images(normalize(images, dataset))
    if augmentation.random_erasing:
        batch = erase(batch, augmentation.random_erasing, generator)
    if augmentation.mixup or augmentation.cutmix:
        return mix(batch, labels, augmentation, dataset.info.classes, generator)
    return batch, labels


@dataclass(frozen=True, slots=True)
class FlipShift:
    """Random horizontal flips and subsequent shifts of the images of a batch, and of their masks and boxes."""

    is_flipped: Tensor | None
    """bool (N,); None for none."""
    offsets: Tensor | None
    """int64 (N, 2), pixels down and right; None for none."""

    @classmethod
    def draw(cls, count: int, augmentation: Augmentation, generator: torch.Generator) -> Self:
        """Draw the flips and shifts of `count` images."""
        mirrored = torch.rand(count, generator=generator) < 0.5 if augmentation.flip else None
        reach = augmentation.shift
        offsets = torch.randint(-reach, reach + 1, (count, 2), generator=generator) if reach else None
        return cls(mirrored, offsets)

    def images(self, images: Tensor) -> Tensor:
        """Flip and shift images or masks (N, C, H, W)."""
        if self.is_flipped is not None:
            images = flip(images, self.is_flipped)
        return images if self.offsets is None else shift(images, self.offsets)

    def boxes(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """Flip and shift boxes (N, 4), x0 y0 x1 y1, clipped to the image; a box outside of it has no area."""
        far = boxes.new_tensor([width, height, width, height])
        if self.is_flipped is not None:
            mirrored = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
            boxes = torch.where(self.is_flipped.to(boxes.device)[:, None], mirrored, boxes)
        if self.offsets is not None:
            boxes = boxes + self.offsets.to(boxes.device)[:, [1, 0, 1, 0]]
        return torch.minimum(boxes.clamp(min=0), far)


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Flip the chosen images, bool (N,), horizontally."""
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Shift each image by its integer offsets (N, 2), down and right; new borders are reflections of the image."""
    rows = _reflected(images.shape[2], offsets[:, 0]).to(images.device)
    columns = _reflected(images.shape[3], offsets[:, 1]).to(images.device)
    tensor = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, 3)[tensor, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def _reflected(side: int, offsets: Tensor) -> Tensor:
    """Source index of each of `side` pixels, (N, side), with the borders reflected as often as needed."""
    period = max(1, 2 * side - 2)
    source = (torch.arange(side) - offsets[:, None]) % period
    return torch.minimum(source, period - source)


def erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Random erasing as in timm: 2-33 % of an image become the mean. The images are overwritten."""
    from timm.data.random_erasing import RandomErasing

    with _global_streams_from(generator):
        eraser = RandomErasing(probability, mode="const", device=images.device)  # type: ignore[no-untyped-call]
        erased: Tensor = eraser(images)
    return erased


def mix(
    images: Tensor, labels: Tensor, augmentation: Augmentation, classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """mixup and CutMix as in timm, one of the two per batch; image i is mixed with the i-th last one of the batch.

    The last image of an odd batch is not mixed. The images are overwritten.
    """
    from timm.data.mixup import Mixup

    targets = F.one_hot(labels, classes).to(images.dtype)
    even = len(images) // 2 * 2
    if even:
        alphas = (augmentation.mixup, augmentation.cutmix)
        mixup = Mixup(*alphas, label_smoothing=0.0, num_classes=classes)  # type: ignore[no-untyped-call]
        with _global_streams_from(generator):
            images[:even], targets[:even] = mixup(images[:even], labels[:even])
    return images, targets


def rand_augment(images: Tensor, policy: str, dataset: Dataset, generator: torch.Generator) -> Tensor:
    """RandAugment as in timm, image by image on the CPU; new borders are filled with the data set's mean."""
    transform = _policy(policy, _fill(dataset), images.shape[2])
    arrays = images.cpu().numpy().transpose(0, 2, 3, 1)
    with _global_streams_from(generator):
        augmented = [_through_image(transform, array) for array in arrays]
    return torch.from_numpy(np.stack(augmented).transpose(0, 3, 1, 2)).to(images.device)


def _fill(dataset: Dataset) -> tuple[int, ...]:
    levels = tuple(round(255 * mean) for mean in dataset.mean)
    return levels if len(levels) == 3 else levels * 3


@cache
def _policy(policy: str, fill: tuple[int, ...], side: int) -> Any:
    from timm.data.auto_augment import rand_augment_transform

    return rand_augment_transform(policy, {"translate_const": int(0.45 * side), "img_mean": fill})


def _through_image(transform: Any, array: Any) -> Any:
    """Apply a transform of PIL's color images to one image (H, W, C); a gray image stays gray."""
    if array.shape[2] == 3:
        return np.asarray(transform(Image.fromarray(np.ascontiguousarray(array))))
    gray = transform(Image.fromarray(array[:, :, 0]).convert("RGB")).convert("L")
    return np.asarray(gray)[:, :, None]


def _global_streams_from(generator: torch.Generator) -> AbstractContextManager[None]:
    """Seed Python's and numpy's global generators from this generator until the block ends."""
    return seeded_numpy_and_python(int(torch.randint(2**32, (), dtype=torch.int64, generator=generator)))
