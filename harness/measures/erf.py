"""The effective receptive field of a trained network on its own data, shown larger than it learned them."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.data.augment import normalize
from harness.measures.base import Trained
from harness.measures.receptive_field import area_shares, receptive_fields

IMAGES = 32
LARGER = 4
"""At the side of training, the fields of all proxies reach the border, and r says nothing of their kernels: see
`larger`. The paper shows 1024 pixels a side to networks that learned at 224."""
MOST_PX = 1024


def erf(trained: Trained) -> Iterator[tuple[str, float]]:
    """r(t) in percent of the image's area, on the gradient map of the paper's definition as it is and on its logarithm.

    Of the first 32 validation images, taken in turns from all classes and enlarged to 4 times their side (1024 pixels
    at most). NaN where no pixel moves the centre of the last map.
    """
    val = trained.dataset.val
    images = torch.from_numpy(val.images[across_classes(val.labels, IMAGES)])
    images = resized(normalize(images, trained.dataset), larger(trained.recipe.resolution))
    field = receptive_fields(trained.model, images)["paper"]
    for name, map in (("raw", field.raw), ("log", field.log)):
        for t, share in area_shares(map).items():
            yield f"erf_{name}_r{t}_pct", 100 * share


def larger(side: int) -> int:
    """The side of the images for networks that learned at this one.

    RepLKNet proxies trained at 48 pixels have r(50 %) on the log map at 32 to 42 % of that side with any kernel from 3
    to 31. At 192 pixels it is 6 % with K=3, 16 % with 7, 20 % with 13, 26 % with 25 and 25 % with 31 (3 seeds each).
    """
    return max(side, min(LARGER * side, MOST_PX))


def resized(images: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) at another side, interpolated."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def across_classes(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Ascending indices of so many images, or of all: the first of every class, then the second of every class, ..."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[np.lexsort((labels[by_class], turn))[:count]])
