"""Run and job of a training at full scale, as plain values that can be sent between processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from harness.config.recipes.full_scale import FullScaleRecipe
from harness.models.spec.network import NetworkSpec
from harness.system.fingerprint import fingerprint
from harness.training.full_scale.folder import CHECKPOINTS, WEIGHTS

R_co = TypeVar("R_co", bound=FullScaleRecipe, covariant=True)


@dataclass(frozen=True, slots=True)
class FullScaleRun(Generic[R_co]):
    """All that determines the result: a network, a recipe, and initial weights."""

    spec: NetworkSpec
    """The network, with the classes and channels of the images, and the recipe's drop path."""
    recipe: R_co
    weights: str | None = None
    """Digest of the file of initial weights; None for random ones."""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits, a function of spec, recipe and initial weights."""
        return fingerprint([self.spec.fingerprint(), self.recipe.fingerprint(), self.weights])


@dataclass(frozen=True, slots=True)
class FullScaleJob(Generic[R_co]):
    """A run with its folders and resources, which do not affect the result; the number of workers does."""

    run: FullScaleRun[R_co]
    folder: Path
    """Folder of checkpoints, weights, the log of epochs, and TensorBoard's files."""
    cache: Path
    """Folder of prepared data sets."""
    root: Path | None = None
    """Folder of the images; None for generated ones."""
    weights: Path | None = None
    """The file of initial weights; `run.weights` is its digest."""
    loaders: int = 0
    """Number of processes that read images for each worker; with 0, the worker reads them itself."""
    threads: int = 1
    """Number of threads of a worker on a CPU."""

    @property
    def checkpoints(self) -> Path:
        """Folder with one file for each of the last states."""
        return self.folder / CHECKPOINTS

    @property
    def best(self) -> Path:
        """File of the weights of the best epoch; of the last one, if there are no validation images."""
        return self.folder / WEIGHTS["best"]
