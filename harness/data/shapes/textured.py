"""The rendering in which texture is a cue: a textured silhouette on a textured background with clutter.

A texture is an oriented grating, one per class. In training it agrees with the class of the shape as often as the
recipe sets; in validation it is independent of it; in the conflict split it is always that of another class.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.data.shapes.silhouettes import NAMES, SCENE

WAVELENGTHS = (4.0, 7.0)
"""Two per orientation, in units of the scene."""
ORIENTATIONS = len(NAMES) // len(WAVELENGTHS)
CONTRASTS = (0.40, 0.04)
"""Additional brightness of the object, at difficulty 0 and 1."""
MAX_DISCS = 28
"""Number of clutter discs at difficulty 1; proportional to the difficulty."""
DISC_RADII = (2.0, 5.0)
BACKGROUND = 0.35
"""Mean brightness of the background."""
GRATING = 0.13
"""Amplitude of the gratings, and of the clutter's brightness."""
NOISE = 0.05


def draw_cue(rng: np.random.Generator, label: int, agreement: float | None) -> int:
    """The class of the texture: the label with probability `agreement`, else any class; for None, another class."""
    if agreement is None:
        return int((label + 1 + rng.integers(len(NAMES) - 1)) % len(NAMES))
    return int(label) if rng.random() < agreement else int(rng.integers(len(NAMES)))


def render(
    streams: Sequence[np.random.Generator],
    cues: NDArray[np.int64],
    object_masks: Sequence[NDArray[np.bool_]],
    difficulty: float,
) -> NDArray[np.uint8]:
    """Render one image per random generator, (N, H, W)."""
    images = [
        _image(rng, int(cue), mask, difficulty) for rng, cue, mask in zip(streams, cues, object_masks, strict=True)
    ]
    return np.stack(images)


def _image(rng: np.random.Generator, cue: int, mask: NDArray[np.bool_], difficulty: float) -> NDArray[np.uint8]:
    side, everywhere = len(mask), slice(0, len(mask))
    contrast = CONTRASTS[0] + (CONTRASTS[1] - CONTRASTS[0]) * difficulty
    image = _grating(rng, int(rng.integers(len(NAMES))), side, everywhere, everywhere)
    for _ in range(round(MAX_DISCS * difficulty)):
        _add_disc(rng, image)
    np.copyto(image, contrast + _grating(rng, cue, side, everywhere, everywhere), where=mask)
    image += NOISE * rng.standard_normal(image.shape, np.float32)
    levels: NDArray[np.float32] = np.clip(np.rint(255 * (BACKGROUND + image)), 0, 255)
    return levels.astype(np.uint8)


def _grating(rng: np.random.Generator, texture: int, side: int, rows: slice, columns: slice) -> NDArray[np.float32]:
    """A window of a texture with a random phase, slightly rotated and stretched."""
    angle = math.pi * (texture % ORIENTATIONS + rng.uniform(-0.15, 0.15)) / ORIENTATIONS
    wave = 2 * math.pi / (WAVELENGTHS[texture // ORIENTATIONS] * rng.uniform(0.9, 1.1)) * SCENE / side
    along = np.arange(side, dtype=np.float32)
    across = math.cos(angle) * along[columns] + math.sin(angle) * along[rows, None]
    waves: NDArray[np.float32] = np.sin(wave * across + rng.uniform(0, 2 * math.pi), dtype=np.float32)
    return GRATING * waves


def _add_disc(rng: np.random.Generator, ground: NDArray[np.float32]) -> None:
    """Add a disc of another texture and brightness at a random place of the background."""
    side = len(ground)
    x, y = rng.uniform(0, side, size=2).tolist()
    radius = rng.uniform(*DISC_RADII) * side / SCENE
    brightness, texture = rng.uniform(-GRATING, 2 * GRATING), int(rng.integers(len(NAMES)))
    rows, columns = (slice(max(0, int(at - radius)), int(at + radius) + 1) for at in (y, x))
    along = np.arange(side) + 0.5
    inside = (along[columns] - x) ** 2 + (along[rows, None] - y) ** 2 < radius**2
    disc = brightness + _grating(rng, texture, side, rows, columns)
    np.copyto(ground[rows, columns], disc, where=inside)
