"""The effective receptive field, how far the centre of a network's last map looks into the image; the measure `erf`.

Source: RepLKNet (arXiv 2203.06717), section 5.1, equations 1 and 2; and its released code (`erf/`), which computes
something else. The last map is the output of the last stage, before what the head does with it, the final norm of
RepLKNet included: there the paper's code taps it. The measure shows a trained network images of its own data, enlarged.

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
"""Percent of the whole map that a square must hold more than, as in the paper's table 10."""
PIXELS_AT_ONCE = 1 << 17
"""Of the images in a batch, which bounds the memory: 32 images of 64 pixels a side, one of 362 or more."""

ERF_IMAGES = 32
"""Validation images that the measure shows a network."""
ERF_SCALE = 4
"""At the side of training, the fields of all proxies reach the border, and r says nothing of their kernels: see
`erf_resolution`. The paper shows 1024 pixels a side to networks that learned at 224."""
MAX_ERF_PX = 1024

Map = NDArray[np.float64]


class FieldDefinition(NamedTuple):
    """One way to define the map of a field."""

    title: str
    about: str
    read: Callable[[Tensor], Tensor]
    """What is summed of the centre's features (N, C)."""
    is_mean: bool
    """Whether the gradients of all images are averaged, and not summed."""


FIELD_DEFINITIONS: dict[str, FieldDefinition] = {
    "paper": FieldDefinition(
        "by the paper's equations", "features as they are, gradients summed", lambda centre: centre, False
    ),
    "code": FieldDefinition("by the paper's code", "ReLU on the features, gradients averaged", F.relu, True),
}
"""As the paper's equations have it, and as its released code computes it. Logarithms tell a sum from an average."""


class ReceptiveField(NamedTuple):
    """The positive gradient of the last map's centre by the pixels of the images, its channels summed."""

    raw: Map
    images: int
    """Those that count: with a finite gradient."""
    skipped: int
    """Images whose gradient has NaN or infinite values, left out as in the paper's code."""
    dead: int
    """Images that count, though their gradient is zero all over."""

    @property
    def log(self) -> Map:
        """log10(raw + 1), equation 2: what the paper measures; small gradients far out weigh more in it than in raw."""
        logarithm: Map = np.log1p(self.raw) / np.log(10)
        return logarithm

    @property
    def has_no_gradient(self) -> bool:
        """Whether no pixel of any image moves the centre: then there is no field, and none of its squares."""
        return not self.raw.any()


class HasFeatures(Protocol):
    """What of a network is looked at."""

    def features(self, x: Tensor) -> list[Tensor]:
        """The output maps of all stages."""


def receptive_fields(
    model: nn.Module, images: Tensor, *, batch: int | None = None, tell: Callable[[int], None] = lambda _: None
) -> dict[str, ReceptiveField]:
    """The fields of a network in evaluation mode by each of `FIELD_DEFINITIONS`; the network is left alone.

    Images are normalised, (N, C, H, W), and go through the network so many at a time; their number changes nothing.
    `tell` is called behind every batch with the number of images that are done.
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
        centre = last[:, :, last.shape[2] // 2, last.shape[3] // 2]
        found = {}
        for name, definition in FIELD_DEFINITIONS.items():
            (gradient,) = torch.autograd.grad(definition.read(centre).sum(), x, retain_graph=True)
            found[name] = gradient.clamp(min=0).sum(1, dtype=torch.float64)
    return found


class _GradientAccumulator:
    """Adds maps up."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.total = torch.zeros(shape, dtype=torch.float64)
        self.images = self.skipped = self.dead = 0

    def add(self, maps: Tensor) -> None:
        """Take in the maps (N, H, W) of some images."""
        maps = maps.cpu()
        is_finite = maps.isfinite().all(dim=2).all(dim=1)
        finite = maps[is_finite]
        self.total += finite.sum(0)
        self.images += len(finite)
        self.skipped += len(maps) - len(finite)
        self.dead += int((finite == 0).all(dim=2).all(dim=1).sum())

    def field(self, *, is_mean: bool) -> ReceptiveField:
        """What has come together."""
        total = self.total / max(1, self.images) if is_mean else self.total
        return ReceptiveField(total.numpy(), self.images, self.skipped, self.dead)


def area_shares(map: Map) -> dict[int, float]:
    """r(t) by t: the share of the area in the smallest square that holds more than t percent of the map's sum.

    NaN on a map that is zero everywhere.
    """
    found = radii(map)
    return {t: area_fraction(found[t], *map.shape) if t in found else float("nan") for t in SHARES}


def radii(map: Map) -> dict[int, int]:
    """By t, how many pixels that smallest square reaches to each side of the centre (H // 2, W // 2).

    It is cut at the image's borders, and so holds all of the map in the end. Empty for a map that is zero everywhere.
    """
    if not map.any():
        return {}
    high, wide = (np.abs(np.arange(side) - side // 2) for side in map.shape)
    rings = np.maximum.outer(high, wide)
    held = np.cumsum(np.bincount(rings.ravel(), weights=(map / map.max()).ravel()))
    return {t: int(np.argmax(held > t / 100 * held[-1])) for t in SHARES}


def area_fraction(radius: int, height: int, width: int) -> float:
    """The share of an image's area in the square that reaches so far to each side of the centre."""
    rows, columns = (min(side, side // 2 + radius + 1) - max(0, side // 2 - radius) for side in (height, width))
    return rows * columns / (height * width)


def erf(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """r(t) in percent of the image's area, on the gradient map of the paper's definition as it is and on its logarithm.

    Of the first 32 validation images, taken in turns from all classes and enlarged to 4 times their side (1024 pixels
    at most). NaN where no pixel moves the centre of the last map.
    """
    val = trained.dataset.val
    images = torch.from_numpy(val.images[balanced_indices(val.labels, ERF_IMAGES)])
    images = resize_images(normalize(images, trained.dataset), erf_resolution(trained.recipe.resolution))
    field = receptive_fields(trained.model, images)["paper"]
    for name, map in (("raw", field.raw), ("log", field.log)):
        for t, share in area_shares(map).items():
            yield f"erf_{name}_r{t}_pct", 100 * share


def erf_resolution(side: int) -> int:
    """The side of the images for networks that learned at this one.

    RepLKNet proxies trained at 48 pixels have r(50 %) on the log map at 32 to 42 % of that side with any kernel from 3
    to 31. At 192 pixels it is 6 % with K=3, 16 % with 7, 20 % with 13, 26 % with 25 and 25 % with 31 (3 seeds each).
    """
    return max(side, min(ERF_SCALE * side, MAX_ERF_PX))


def resize_images(images: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) at another side, interpolated."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def balanced_indices(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Ascending indices of so many images, or of all: the first of every class, then the second of every class, ..."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[np.lexsort((labels[by_class], turn))[:count]])
