"""Noise in place of images that are not there, to measure how long a training would take."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.full_scale import FullRecipe
from harness.data.image_sources import Pictures
from harness.training.full_scale.job import FullJob
from harness.training.full_scale.process_group import Team
from harness.training.tasks.classification import Classification


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Images of one size, all of the first class."""

    labels: NDArray[np.int64]
    """(N,)."""
    side: int

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, i: int) -> Image.Image:
        """See `Images`."""
        return self.look(i)

    def look(self, i: int) -> Image.Image:
        """See `Images`."""
        pixels = np.random.default_rng(i).integers(256, size=(self.side, self.side, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def classification_of_noise(job: FullJob[FullRecipe], team: Team, images: int) -> Classification:
    """The task of a classifier on that many images, with nothing to validate on."""
    noise = Noise(np.zeros(images, np.int64), job.run.recipe.resolution)
    return Classification(job, team, Pictures(job.run.spec.classes, noise, None))
