"""Noise images in place of a data set that is not available, to measure how long a training would take."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.config.recipes.full_scale import ClassificationRecipe
from harness.data.image_sources import ClassificationData
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.tasks.classification import ClassificationTask


@dataclass(frozen=True, slots=True, eq=False)
class NoiseImages:
    """Noise images of one size, all of the first class."""

    labels: NDArray[np.int64]
    """(N,)."""
    side: int

    def __len__(self) -> int:
        return len(self.labels)

    def image_or_failure(self, i: int) -> Image.Image:
        """See `ReadableFiles`."""
        pixels = np.random.default_rng(i).integers(256, size=(self.side, self.side, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def noise_classification(
    job: FullScaleJob[ClassificationRecipe], group: ProcessGroup, images: int
) -> ClassificationTask:
    """A classification task on `images` noise images, without validation images."""
    noise = NoiseImages(np.zeros(images, np.int64), job.run.recipe.resolution)
    return ClassificationTask(job, group, ClassificationData(job.run.spec.classes, noise, None))
