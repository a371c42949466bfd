"""Base class of the dense-prediction tasks, segmentation and detection: a network with heads.

At the end of a training, the model is merged, evaluated, and compared with its training form (`evaluate_merged`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.utils.data import Dataset

from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.data.batching import BatchPlan
from harness.data.data_record import DataRecord, record_data
from harness.data.detection_transforms import DenseData
from harness.data.image_sources import GENERATED_DATASETS, folder_of
from harness.data.loading import BatchReader, Collate, step_batches
from harness.data.read_report import check_images, require_readable
from harness.data.seeding import mix_seed
from harness.models.build import build, merge
from harness.models.spec.network import NetworkSpec
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import Message
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.tasks.weights_file import DenseWeights, load_training_weights, save_dense

SIDE = 64
"""Side, in pixels, of the noise images on which both forms are compared; it covers every merge."""
HEAD_SEED = 1
"""Separates the random numbers of the heads' initial weights from others of the recipe's seed."""

R = TypeVar("R", SegmentationRecipe, DetectionRecipe)


class DenseTask(ABC, Generic[R]):
    """Base class of the dense-prediction tasks; see `TrainingTask`."""

    backbone: str
    job: FullScaleJob[R]
    recipe: R

    def __init__(
        self,
        job: FullScaleJob[R],
        group: ProcessGroup,
        opened: DenseData[Any],
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

    def data_record(self) -> DataRecord:
        """The record of the data, for the training's folder."""
        dataset, opened = self.recipe.data.dataset, self.opened
        folder = None if dataset in GENERATED_DATASETS else folder_of(dataset, self.job.root)
        splits = {"train": opened.train, "val": opened.val}
        return record_data(dataset, opened.names, splits, root=folder, annotations=opened.annotations)

    @abstractmethod
    def evaluate(self, model: nn.Module) -> tuple[Mapping[str, float], int]:
        """All metrics by name, in percent, and the number of validation images that could not be read.

        The same in every worker.
        """

    def check_images(self) -> tuple[str, ...]:
        """Check the images before anything is trained or written; returns messages. See `harness.data.read_report`.

        Raises `DataError` for images and masks that cannot be trained on.
        """
        if self.recipe.data.dataset in GENERATED_DATASETS:
            return ()
        place = None if self.job.root is None else str(self.job.root)
        return check_images({"training": self.opened.train, "validation": self.opened.val}, place)

    def build(self) -> tuple[nn.Module, Message | None]:
        """The model; its network has random weights, or those of the job's file including its classifier."""
        spec, seed = self.job.run.spec, self.recipe.seed
        loaded = None if self.job.weights is None else load_training_weights(self.job.weights, spec)
        network = build(spec if loaded is None else loaded.spec, seed=seed)
        if loaded is not None:
            network.load_state_dict(loaded.entries)
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


@dataclass(frozen=True, slots=True)
class MergedEvaluation:
    """Metrics of a merged model, and its differences from the training form."""

    metrics: Mapping[str, float]
    """Metrics of the merged model, in percent."""
    metric_differences: Mapping[str, float]
    """Metrics of the merged model minus those of the training form, in percentage points."""
    feature_difference: float
    """The largest difference between the feature maps of both forms, relative to the largest value."""
    unreadable: int
    """Number of validation images that could not be read."""
    images: int
    """Number of validation images that were evaluated."""


def evaluate_merged(model: nn.Module, task: DenseTask[Any]) -> tuple[nn.Module, MergedEvaluation]:
    """Merge a copy of a trained model, and evaluate both forms; returns the merged model and its evaluation."""
    merged = merge(model.eval())
    before, _ = task.evaluate(model)
    after, unreadable = task.evaluate(merged)
    differences = {name: value - before[name] for name, value in after.items() if name in before}
    images = task.validation_images - unreadable
    return merged, MergedEvaluation(
        after, differences, feature_difference(model, merged, task.backbone), unreadable, images
    )


@torch.no_grad()
def feature_difference(model: nn.Module, merged: nn.Module, backbone: str) -> float:
    """The largest relative difference of the network's feature maps after merging, on noise, in the model's dtype."""
    original, folded = (module.get_submodule(backbone) for module in (model, merged))
    first = next(original.parameters())
    noise = torch.randn(2, first.shape[1], SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(first)
    maps, folded_maps = (module.features(noise) for module in (original, folded))  # type: ignore[operator]
    largest = torch.stack([values.abs().max() for values in maps]).max().item()
    # NaN stays NaN
    error = torch.stack([(a - b).abs().max() for a, b in zip(maps, folded_maps, strict=True)]).max().item()
    return float(error / max(largest, 1e-30))
