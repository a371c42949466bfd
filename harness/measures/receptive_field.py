"""The effective receptive field: which pixels the center of a network's last map depends on; the measure `erf`.

Source: RepLKNet (arXiv 2203.06717), section 5.1, equations 1 and 2; and its released code (`erf/`), which computes
something different. The last map is the output of the last stage, before the head (which includes RepLKNet's final
norm), as in the paper's code. The measure uses images of the network's own data, enlarged.

Shapes: N images, C channels, H W height and width of the images; a gradient map is (H, W).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.data.augment import normalize
from harness.measures.base import TrainedRun
from harness.models.build import merge
from harness.system.device_slot import yield_slot

SHARES = (20, 30, 50, 99)
"""Percentages t of the map's sum for r(t), as in the paper's table 10."""
PIXELS_AT_ONCE = 1 << 17
"""Pixels of the images in a batch, which limits the memory: 32 images of side 64, one of side 362 or more."""

ERF_IMAGES = 32
"""Number of validation images of the measure."""
ERF_SCALE = 4
"""At the training resolution, the fields of all proxies reach the border, and r does not depend on their kernels: see
`erf_resolution`. The paper uses images of side 1024 for networks trained at 224."""
MAX_ERF_PX = 1024

Map = NDArray[np.float64]


class FieldDefinition(NamedTuple):
    """One way to define the map of a field."""

    title: str
    about: str
    read: Callable[[Tensor], Tensor]
    """Applied to the center's features (N, C) before they are summed."""
    is_mean: bool
    """Whether the gradients of all images are averaged instead of summed."""


FIELD_DEFINITIONS: dict[str, FieldDefinition] = {
    "paper": FieldDefinition(
        "by the paper's equations", "features as they are, gradients summed", lambda features: features, False
    ),
    "code": FieldDefinition("by the paper's code", "ReLU on the features, gradients averaged", F.relu, True),
}
"""By the paper's equations, and by its released code. The logarithms of a sum and of an average differ."""


class ReceptiveField(NamedTuple):
    """The positive gradient of the last map's center with respect to the pixels of the images, summed over channels."""

    raw: Map
    images: int
    """Number of images with a finite gradient."""
    skipped: int
    """Images whose gradient has NaN or infinite values, left out as in the paper's code."""
    dead: int
    """Images with a finite gradient that is zero everywhere; they count."""

    @property
    def log(self) -> Map:
        """log10(raw + 1), equation 2: the paper's map; small gradients far from the center count more than in `raw`."""
        logarithm: Map = np.log1p(self.raw) / np.log(10)
        return logarithm

    @property
    def has_no_gradient(self) -> bool:
        """Whether no pixel of any image changes the center: then there is no field and no square."""
        return not self.raw.any()


class HasFeatures(Protocol):
    """Protocol: a model with `features(x)`."""

    def features(self, x: Tensor) -> list[Tensor]:
        """The output maps of all stages."""


def receptive_fields(
    model: nn.Module, images: Tensor, *, batch: int | None = None, tell: Callable[[int], None] = lambda _: None
) -> dict[str, ReceptiveField]:
    """The fields of a network in evaluation mode by each of `FIELD_DEFINITIONS`; the network is not changed.

    `images` are normalized, (N, C, H, W), and processed in batches of `batch`; the batch size does not change the
    result. `tell` is called after every batch with the number of images done.
    """
    still = merge(model).eval().requires_grad_(False)
    device = next(still.parameters()).device
    tallies = {name: _GradientAccumulator(images.shape[2:]) for name in FIELD_DEFINITIONS}
    at_once = batch or max(1, PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
    done = 0
    for part in torch.split(images, at_once):
        yield_slot()
        for name, maps in _gradients(cast(HasFeatures, still), part.to(device)).items():
            tallies[name].add(maps)
        done += len(part)
        tell(done)
    return {name: tally.field(is_mean=FIELD_DEFINITIONS[name].is_mean) for name, tally in tallies.items()}


def _gradients(model: HasFeatures, images: Tensor) -> dict[str, Tensor]:
    """The positive part of each image's gradient, channels summed: (N, H, W) in float64, by definition."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        last = model.features(x)[-1]
        center = last[:, :, last.shape[2] // 2, last.shape[3] // 2]
        maps = {}
        for name, definition in FIELD_DEFINITIONS.items():
            (gradient,) = torch.autograd.grad(definition.read(center).sum(), x, retain_graph=True)
            maps[name] = gradient.clamp(min=0).sum(1, dtype=torch.float64)
    return maps


class _GradientAccumulator:
    """Sums gradient maps and counts their images."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.total = torch.zeros(shape, dtype=torch.float64)
        self.images = self.skipped = self.dead = 0

    def add(self, maps: Tensor) -> None:
        """Add the maps (N, H, W) of a batch of images."""
        maps = maps.cpu()
        is_finite = maps.isfinite().all(dim=2).all(dim=1)
        finite = maps[is_finite]
        self.total += finite.sum(0)
        self.images += len(finite)
        self.skipped += len(maps) - len(finite)
        self.dead += int((finite == 0).all(dim=2).all(dim=1).sum())

    def field(self, *, is_mean: bool) -> ReceptiveField:
        """The field of all added maps."""
        total = self.total / max(1, self.images) if is_mean else self.total
        return ReceptiveField(total.numpy(), self.images, self.skipped, self.dead)


def area_shares(map: Map) -> dict[int, float]:
    """r(t) by t: the area share of the smallest square that contains more than t percent of the map's sum.

    NaN for a map that is zero everywhere.
    """
    radius_of = radii(map)
    return {t: area_fraction(radius_of[t], *map.shape) if t in radius_of else float("nan") for t in SHARES}


def radii(map: Map) -> dict[int, int]:
    """The radius by t: how many pixels that smallest square extends to each side of the center (H // 2, W // 2).

    It is clipped at the image's borders, so a large one holds the whole map. Empty for a map that is zero everywhere.
    """
    if not map.any():
        return {}
    high, wide = (np.abs(np.arange(side) - side // 2) for side in map.shape)
    rings = np.maximum.outer(high, wide)
    held = np.cumsum(np.bincount(rings.ravel(), weights=(map / map.max()).ravel()))
    return {t: int(np.argmax(held > t / 100 * held[-1])) for t in SHARES}


def area_fraction(radius: int, height: int, width: int) -> float:
    """The share of an image's area in the square that extends `radius` pixels to each side of the center."""
    rows, columns = (min(side, side // 2 + radius + 1) - max(0, side // 2 - radius) for side in (height, width))
    return rows * columns / (height * width)


def erf(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """r(t) in percent of the image's area, for the gradient map by the paper's equations and for its logarithm.

    Computed on 32 validation images, balanced over the classes and enlarged to 4 times their side (at most 1024
    pixels). NaN if no pixel changes the center of the last map.
    """
    val = trained.dataset.val
    images = torch.from_numpy(val.images[balanced_indices(val.labels, ERF_IMAGES)])
    images = resize_images(normalize(images, trained.dataset), erf_resolution(trained.recipe.resolution))
    field = receptive_fields(trained.model, images)["paper"]
    for name, map in (("raw", field.raw), ("log", field.log)):
        for t, share in area_shares(map).items():
            yield f"erf_{name}_r{t}_pct", 100 * share


def erf_resolution(side: int) -> int:
    """The side of the images for networks trained at side `side`.

    RepLKNet proxies trained at 48 pixels have r(50 %) on the log map at 32 to 42 % of that side with any kernel from 3
    to 31. At 192 pixels it is 6 % with K=3, 16 % with 7, 20 % with 13, 26 % with 25 and 25 % with 31 (3 seeds each).
    """
    return max(side, min(ERF_SCALE * side, MAX_ERF_PX))


def resize_images(images: Tensor, side: int) -> Tensor:
    """Resize images (N, C, H, W) to another side, bilinearly."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def balanced_indices(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Sorted indices of at most `count` images: the first of every class, then the second of every class, ..."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[np.lexsort((labels[by_class], turn))[:count]])
