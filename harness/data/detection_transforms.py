"""Joint transforms of an image and its instances for a detector: resize, crop, flip, and conversion to tensors.

Shapes: B instances, H W height and width of the image; boxes are x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.data.detection_annotations import Instances, decode_rle
from harness.data.read_report import ReadableFiles

RGB_CHANNELS = 3
"""Channels of a color image."""

Source = TypeVar("Source", bound=ReadableFiles)
Recipe = TypeVar("Recipe", DetectionRecipe, SegmentationRecipe)
Item = TypeVar("Item")
Split = TypeVar("Split")


@dataclass(frozen=True, slots=True, eq=False)
class DetectionSample:
    """An image in color with its instances."""

    image: Image.Image
    boxes: NDArray[np.float32]
    """(B, 4)."""
    labels: NDArray[np.int64]
    masks: NDArray[np.uint8] | None
    """(B, H, W), 0 or 1; None if masks are not learned."""
    has_mask: NDArray[np.bool_]
    """(B,): whether the mask is known."""

    @classmethod
    def of(cls, picture: Image.Image, instances: Instances) -> Self:
        """The sample of a stored image, without crowds."""
        chosen = np.flatnonzero(~instances.is_crowd)
        masks = None
        if instances.masks is not None:
            masks = decode_rle(tuple(instances.masks[i] for i in chosen), picture.height, picture.width)
        return cls(picture, instances.boxes[chosen], instances.labels[chosen], masks, instances.has_mask[chosen])

    def flip(self) -> Self:
        """Flip horizontally."""
        boxes = self.boxes.copy()
        boxes[:, [0, 2]] = self.image.width - self.boxes[:, [2, 0]]
        masks = None if self.masks is None else self.masks[:, :, ::-1]
        return replace(self, image=self.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), boxes=boxes, masks=masks)

    def resize(self, short: int, longest: int) -> Self:
        """Resize to that shorter side, or to a smaller one if the other side would be longer than `longest`."""
        width, height = resized_sides(self.image.size, short, longest)
        scale = np.array([width / self.image.width, height / self.image.height] * 2, np.float32)
        masks = None if self.masks is None else _resized(self.masks, height, width)
        picture = self.image.resize((width, height), Image.Resampling.BILINEAR)
        return replace(self, image=picture, boxes=self.boxes * scale, masks=masks)

    def crop(self, x: int, y: int, width: int, height: int) -> Self:
        """Crop to that part; instances outside of it are left out."""
        far = np.array([width, height] * 2, np.float32)
        boxes = np.minimum((self.boxes - np.array([x, y] * 2, np.float32)).clip(min=0), far)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        masks = None if self.masks is None else self.masks[inside, y : y + height, x : x + width]
        picture = self.image.crop((x, y, x + width, y + height))
        labels, has_mask = self.labels[inside], self.has_mask[inside]
        return replace(self, image=picture, boxes=boxes[inside], labels=labels, masks=masks, has_mask=has_mask)

    def target(self) -> dict[str, Tensor]:
        """The target for a detector; without instances whose area is zero after rounding."""
        has_area = (self.boxes[:, 2:] > self.boxes[:, :2]).all(axis=1)
        target = {"boxes": torch.from_numpy(self.boxes[has_area]), "labels": torch.from_numpy(self.labels[has_area])}
        if self.masks is not None:
            target["masks"] = torch.from_numpy(np.ascontiguousarray(self.masks[has_area]))
            target["has_mask"] = torch.from_numpy(self.has_mask[has_area])
        return target


@dataclass(frozen=True, slots=True, eq=False)
class DenseData(Generic[Split]):
    """The training and validation images of a dense-prediction recipe."""

    names: tuple[str, ...]
    """Names of the classes."""
    train: Split
    val: Split
    notes: tuple[str, ...] = ()
    """Messages for the user about the data."""
    annotations: tuple[Path, ...] = ()
    """Files of annotations in addition to those of the splits; their content is part of the data's record."""


class DenseItems(Dataset[Item], Generic[Source, Recipe, Item]):
    """Base class of the images of a dense-prediction recipe, as the inputs and targets of a network."""

    def __init__(self, source: Source, recipe: Recipe, channels: int) -> None:
        """`channels` are the network's input channels."""
        self.source, self.channels = source, channels
        self.recipe: Recipe = recipe

    def __len__(self) -> int:
        return len(self.source)

    def to_tensor(self, picture: Image.Image) -> Tensor:
        """See `to_normalized_tensor`."""
        return to_normalized_tensor(picture, self.recipe.data.mean, self.recipe.data.std, self.channels)


def resized_sides(sides: tuple[int, int], short: float, longest: float) -> tuple[int, int]:
    """Width and height of an image resized to that shorter side, or to the longer side `longest` if that is smaller."""
    scale = min(short / min(sides), longest / max(sides))
    width, height = (max(1, int(side * scale + 0.5)) for side in sides)
    return width, height


def to_normalized_tensor(
    picture: Image.Image, mean: list[float], std: list[float], channels: int = RGB_CHANNELS
) -> Tensor:
    """Float32 (channels, H, W), normalized with this mean and standard deviation per channel.

    Three channels, or their mean for a network with one input channel.
    """
    pixels = torch.from_numpy(np.array(picture, np.float32)).permute(2, 0, 1) / 255
    colors = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return colors if channels == RGB_CHANNELS else colors.mean(0, keepdim=True)


def _resized(masks: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize masks by nearest neighbor: (B, H, W) -> (B, height, width)."""
    if not len(masks):
        return np.zeros((0, height, width), np.uint8)
    tensor = torch.from_numpy(np.ascontiguousarray(masks))[:, None]
    resized: NDArray[np.uint8] = F.interpolate(tensor, size=(height, width), mode="nearest-exact")[:, 0].numpy()
    return resized
