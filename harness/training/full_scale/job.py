"""What is asked of a training at full scale: plain values, to travel between processes."""

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
    """What decides the outcome: a network, a recipe, and the weights that it starts from."""

    spec: NetworkSpec
    """With the classes and channels of the images, and the recipe's drop path."""
    recipe: R_co
    weights: str | None = None
    """Digest of the file of weights; None for fresh ones."""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits."""
        return fingerprint([self.spec.fingerprint(), self.recipe.fingerprint(), self.weights])


@dataclass(frozen=True, slots=True)
class FullScaleJob(Generic[R_co]):
    """A run with its place and its means, none of which decides the outcome but the number of workers."""

    run: FullScaleRun[R_co]
    folder: Path
    """Keeps checkpoints, weights, the log of epochs, and TensorBoard's files."""
    cache: Path
    """Where prepared data sets are kept."""
    root: Path | None = None
    """The folder of the images; None for those that are generated."""
    weights: Path | None = None
    """The file whose digest the run has."""
    loaders: int = 0
    """Processes that read images for each worker; 0 for the worker itself."""
    threads: int = 1
    """Of a worker on a CPU."""

    @property
    def checkpoints(self) -> Path:
        """One file for each of the last states."""
        return self.folder / CHECKPOINTS

    @property
    def best(self) -> Path:
        """The weights of the best epoch; of the last one, where there is nothing to validate on."""
        return self.folder / WEIGHTS["best"]
