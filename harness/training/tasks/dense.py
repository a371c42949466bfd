"""What segmentation and detection have in common: a network with heads on it, and images that say more than a class."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn
from torch.utils.data import Dataset

from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.data.batching import Pace
from harness.data.data_record import DataRecord
from harness.data.image_sources import GENERATED
from harness.data.loading import Collate, Reader, step_batches
from harness.data.preflight import check_images
from harness.data.read_report import Files, require_readable
from harness.data.seeding import mixed
from harness.models.build import build, merge
from harness.models.spec.network import NetworkSpec
from harness.training.full_scale.initial_weights import first_network
from harness.training.full_scale.job import FullJob
from harness.training.full_scale.messages import Note
from harness.training.full_scale.process_group import Team
from harness.training.tasks.weights_file import DenseWeights, save_dense

HEADS = 1
"""Tells the stream of the heads' first weights from others of the recipe's seed."""

R = TypeVar("R", SegmentationRecipe, DetectionRecipe)


class Opened(Protocol):
    """The images of a recipe."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        ...

    @property
    def train(self) -> Files:
        """The training images."""
        ...

    @property
    def val(self) -> Files:
        """The validation images."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and is to be said."""
        ...


class Dense(ABC, Generic[R]):
    """A `Task`, but for what is learnt."""

    backbone: str
    job: FullJob[R]
    recipe: R

    def __init__(
        self,
        job: FullJob[R],
        team: Team,
        opened: Opened,
        *,
        training: Dataset[Any],
        validation: Dataset[Any],
        collate: Collate,
    ) -> None:
        self.job, self.team, self.recipe, self.opened = job, team, job.run.recipe, opened
        self.training, self.collate = training, collate
        self.validation = Reader(validation, job.loaders, list, leads=team.leads)

    @abstractmethod
    def around(self, network: nn.Module, spec: NetworkSpec, classes: int) -> nn.Module:
        """The model around a network, which becomes a part of it; other weights come from torch's global stream."""

    @property
    def images(self) -> int:
        """See `Task`."""
        return len(self.training)  # type: ignore[arg-type]  # torch's `Dataset` leaves the length to its kinds

    @property
    def validation_images(self) -> int:
        """How many there are, readable or not."""
        return len(self.opened.val)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return self.opened.names

    @abstractmethod
    def data_record(self) -> DataRecord:
        """What it is trained on, as it is recorded in its folder."""

    def check_images(self) -> tuple[str, ...]:
        """Notes on the images, found before anything is trained or written; see `harness.data.preflight`.

        Raises `DataError` for images and masks that no training could go on with.
        """
        if self.recipe.data.dataset in GENERATED:
            return ()
        place = None if self.job.root is None else str(self.job.root)
        return check_images({"training": self.opened.train, "validation": self.opened.val}, place)

    def build(self) -> tuple[nn.Module, Note | None]:
        """The model, its network with fresh weights or those of the job's file."""
        spec, seed = self.job.run.spec, self.recipe.seed
        network = first_network(spec, self.job.weights, seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mixed(seed, HEADS))
            model = self.around(network, spec, len(self.names))
        return model, Note("; ".join(self.opened.notes)) if self.opened.notes else None

    def load(self, found: DenseWeights) -> nn.Module:
        """The model of a file, in the form and with the weights that the file has, in evaluation mode."""
        model = self.around(build(found.spec, seed=0), found.spec, len(found.names)).eval()
        if found.is_merged:
            model = merge(model)
        model.load_state_dict(found.entries)
        return model

    def save(self, path: Path, model: nn.Module, source: str, *, is_merged: bool = False) -> None:
        """See `Task`."""
        spec, names = self.job.run.spec, self.names
        save_dense(path, model, spec=spec, recipe=self.recipe, names=names, source=source, is_merged=is_merged)

    def require_training(self, total: int, unreadable: int) -> None:
        """See `Task`."""
        require_readable("training", total, unreadable, self.opened.train)

    def batches(self, pace: Pace, *, epoch: int, rank: int, first_step: int) -> Iterator[Any]:
        """See `Task`."""
        place = {"epoch": epoch, "rank": rank, "first_step": first_step}
        yield from step_batches(
            self.training, self.recipe, pace, **place, loaders=self.job.loaders, collate=self.collate
        )
