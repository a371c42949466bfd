"""How images and masks are shown to a segmentation in training: resized, cropped, mirrored, in other colours.

As MMSegmentation does it. All that is random is drawn from the generator that is passed.

Shapes: H W height and width.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.segmentation import SegmentationViews
from harness.data.detection_transforms import resized_sides
from harness.data.segmentation_files import IGNORED, Mask

CROPS = 10
"""How many crops are tried for one in which no class has nearly everything."""
LEVELS = np.arange(256.0)
BRIGHTNESS = 32
"""Most that is added to every pixel, of 255."""
FACTORS = (0.5, 1.5)
"""By what contrast and saturation are multiplied."""
HUE = 18 / 180
"""Largest turn of the hue, as a share of the circle."""

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def viewed(
    picture: Image.Image, mask: Mask, views: SegmentationViews, rng: np.random.Generator
) -> tuple[Image.Image, Mask]:
    """What is trained on, at most as large as the crop."""
    picture, mask = _resized(picture, mask, views, float(rng.uniform(views.scales[0], views.scales[1])))
    picture, mask = _cropped(picture, mask, views, rng)
    if rng.random() < views.flip:
        picture, mask = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask[:, ::-1]
    return (distorted(picture, rng) if views.distort else picture), mask


def _resized(picture: Image.Image, mask: Mask, views: SegmentationViews, scale: float) -> tuple[Image.Image, Mask]:
    sides = resized_sides(picture.size, views.short * scale, views.longest * scale)
    if sides == picture.size:
        return picture, mask
    nearest = Image.fromarray(mask).resize(sides, Image.Resampling.NEAREST)
    return picture.resize(sides, Image.Resampling.BILINEAR), np.asarray(nearest)


def _cropped(
    picture: Image.Image, mask: Mask, views: SegmentationViews, rng: np.random.Generator
) -> tuple[Image.Image, Mask]:
    """A crop in which no class has too much, if ten are enough to find one."""
    height, width = (min(side, most) for side, most in zip(mask.shape, views.crop, strict=True))
    for _ in range(CROPS):
        top, left = (int(rng.integers(side - own + 1)) for side, own in zip(mask.shape, (height, width), strict=True))
        part = mask[top : top + height, left : left + width]
        if is_mixed(part, views.most_of_one):
            break
    return picture.crop((left, top, left + width, top + height)), part


def is_mixed(mask: Mask, most: float) -> bool:
    """Whether there are several classes, and none has more than that share of the pixels that count; true for 1."""
    counts = np.bincount(mask[mask != IGNORED], minlength=1)
    return most >= 1 or (int(np.count_nonzero(counts)) > 1 and float(counts.max()) < most * float(counts.sum()))


def distorted(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast, saturation and hue, each changed with probability one half."""
    colours: list[Change] = [_saturated, _turned]
    middle: list[Change] = [_contrasted, *colours] if rng.random() < 0.5 else [*colours, _contrasted]
    for change in [_brightened, *middle]:
        if rng.random() < 0.5:
            picture = change(picture, rng)
    return picture


def _brightened(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.point(_table(LEVELS + rng.uniform(-BRIGHTNESS, BRIGHTNESS)) * 3)


def _contrasted(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.point(_table(LEVELS * rng.uniform(*FACTORS)) * 3)


def _saturated(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    saturation = saturation.point(_table(LEVELS * rng.uniform(*FACTORS)))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _turned(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point(_table((LEVELS + len(LEVELS) * rng.uniform(-HUE, HUE)) % len(LEVELS)))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _table(levels: NDArray[np.float64]) -> list[int]:
    """What becomes of each of 256 levels."""
    return [int(level) for level in np.clip(np.rint(levels), 0, len(LEVELS) - 1)]
