"""Base class of the dense-prediction tasks, segmentation and detection: a network with heads."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn
from torch.utils.data import Dataset

from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.data.batching import BatchPlan
from harness.data.data_record import DataRecord
from harness.data.image_sources import GENERATED_DATASETS
from harness.data.loading import BatchReader, Collate, step_batches
from harness.data.preflight import check_images
from harness.data.read_report import ReadableFiles, require_readable
from harness.data.seeding import mix_seed
from harness.models.build import build, merge
from harness.models.spec.network import NetworkSpec
from harness.training.full_scale.initial_weights import initialize_network
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import Message
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.tasks.weights_file import DenseWeights, save_dense

HEAD_SEED = 1
"""Separates the random numbers of the heads' initial weights from others of the recipe's seed."""

R = TypeVar("R", SegmentationRecipe, DetectionRecipe)


class DenseData(Protocol):
    """Protocol of the data set of a dense-prediction recipe."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...

    @property
    def train(self) -> ReadableFiles:
        """The training images."""
        ...

    @property
    def val(self) -> ReadableFiles:
        """The validation images."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about images and annotations that were left out."""
        ...


class DenseTask(ABC, Generic[R]):
    """Base class of the dense-prediction tasks; see `TrainingTask`."""

    backbone: str
    job: FullScaleJob[R]
    recipe: R

    def __init__(
        self,
        job: FullScaleJob[R],
        group: ProcessGroup,
        opened: DenseData,
        *,
        training: Dataset[Any],
        validation: Dataset[Any],
        collate: Collate,
    ) -> None:
        self.job, self.team, self.recipe, self.opened = job, group, job.run.recipe, opened
        self.training, self.collate = training, collate
        self.validation = BatchReader(validation, job.loaders, list, leads=group.is_main)

    @abstractmethod
    def build_model(self, network: nn.Module, spec: NetworkSpec, classes: int) -> nn.Module:
        """Build the model around `network`, which becomes part of it; torch's global generator initializes the rest."""

    @property
    def images(self) -> int:
        """See `TrainingTask`."""
        return len(self.training)  # type: ignore[arg-type]  # torch's `Dataset` leaves the length to its kinds

    @property
    def validation_images(self) -> int:
        """The number of validation images, readable or not."""
        return len(self.opened.val)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.opened.names

    @abstractmethod
    def data_record(self) -> DataRecord:
        """The record of the data, for the training's folder."""

    def check_images(self) -> tuple[str, ...]:
        """Check the images before anything is trained or written; returns messages. See `harness.data.preflight`.

        Raises `DataError` for images and masks that cannot be trained on.
        """
        if self.recipe.data.dataset in GENERATED_DATASETS:
            return ()
        place = None if self.job.root is None else str(self.job.root)
        return check_images({"training": self.opened.train, "validation": self.opened.val}, place)

    def build(self) -> tuple[nn.Module, Message | None]:
        """The model; its network has random weights or those of the job's file."""
        spec, seed = self.job.run.spec, self.recipe.seed
        network = initialize_network(spec, self.job.weights, seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix_seed(seed, HEAD_SEED))
            model = self.build_model(network, spec, len(self.class_names))
        return model, Message("; ".join(self.opened.notes)) if self.opened.notes else None

    def load(self, weights: DenseWeights) -> nn.Module:
        """The model of a weights file, in the file's form and with its weights, in evaluation mode."""
        model = self.build_model(build(weights.spec, seed=0), weights.spec, len(weights.names)).eval()
        if weights.is_merged:
            model = merge(model)
        model.load_state_dict(weights.entries)
        return model

    def save(self, path: Path, model: nn.Module, source: str, *, is_merged: bool = False) -> None:
        """See `TrainingTask`."""
        spec, names = self.job.run.spec, self.class_names
        save_dense(path, model, spec=spec, recipe=self.recipe, names=names, source=source, is_merged=is_merged)

    def require_training(self, total: int, unreadable: int) -> None:
        """See `TrainingTask`."""
        require_readable("training", total, unreadable, self.opened.train)

    def batches(self, batch_plan: BatchPlan, *, epoch: int, rank: int, first_step: int) -> Iterator[Any]:
        """See `TrainingTask`."""
        place = {"epoch": epoch, "rank": rank, "first_step": first_step}
        yield from step_batches(
            self.training, self.recipe, batch_plan, **place, loaders=self.job.loaders, collate=self.collate
        )
