"""Classification task: cross-entropy on whole images, optionally mixed, and top-1.

Shapes: N images, R the recipe's resolution.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config.recipes.full_scale import ClassificationRecipe
from harness.config.recipes.proxy import Augmentation
from harness.data.augment import mix
from harness.data.batching import BatchPlan
from harness.data.image_sources import ClassificationData, class_names, open_classification
from harness.data.labels import class_differences
from harness.data.loading import Batch, BatchReader, TrainingItems, ValidationItems, step_batches, worker_indices
from harness.data.preprocessing import Preprocessing
from harness.data.read_report import require_readable
from harness.data.seeding import mix_seed
from harness.models.build import build
from harness.models.weights import save_weights
from harness.models.weights.matching import classifier_of
from harness.training.device import autocast, place_images
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import Message, Scores
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.metrics.classification import validate_classifier
from harness.training.tasks import BatchPosition
from harness.training.tasks.weights_file import load_training_weights


class ClassificationTask:
    """Classification; see `TrainingTask`."""

    backbone = ""

    def __init__(
        self, job: FullScaleJob[ClassificationRecipe], group: ProcessGroup, pictures: ClassificationData | None = None
    ) -> None:
        self.job, self.team, self.recipe = job, group, job.run.recipe
        self.pictures = pictures or open_classification(self.recipe, job.root, job.cache)
        self.names = class_names(self.recipe, job.root) if pictures is None else _numbered(pictures.classes)
        self.viewing, val = Preprocessing.of(self.recipe), self.pictures.val
        shown = None if val is None else ValidationItems(val, self.viewing)
        self.validation = None if shown is None else BatchReader(shown, job.loaders, leads=group.is_main)

    @property
    def images(self) -> int:
        """See `TrainingTask`."""
        return len(self.pictures.train.labels)

    def build(self) -> tuple[nn.Module, Message | None]:
        """The network, with random weights or those of the job's file."""
        spec = self.job.run.spec
        model = build(spec, seed=self.recipe.seed)
        if self.job.weights is None:
            return model, _note(self.pictures.notes)
        weights = load_training_weights(self.job.weights, spec)
        state, classifier = model.state_dict(), f"{classifier_of(spec)}."
        fitting = {name: value for name, value in weights.entries.items() if value.shape == state[name].shape}
        notes = list(weights.notes)
        order, about = _rows(weights.classes, self.names)
        if about and weights.spec.classes == spec.classes:
            notes.append(about)
            head = {name: value for name, value in fitting.items() if name.startswith(classifier)}
            fitting = {name: value for name, value in fitting.items() if name not in head}
            fitting |= {name: value[order] for name, value in head.items() if order is not None}
        model.load_state_dict(fitting, strict=False)
        if weights.spec.classes != spec.classes:
            notes = [*weights.notes[:-1]] if weights.notes and "classifier is for" in weights.notes[-1] else notes
            notes.append(f"a fresh classifier for {spec.classes} classes; the weights are for {weights.spec.classes}")
        return model, _note((*notes, *self.pictures.notes))

    def batches(self, batch_plan: BatchPlan, *, epoch: int, rank: int, first_step: int) -> Iterator[Batch]:
        """See `TrainingTask`."""
        items, loaders = TrainingItems(self.pictures.train, self.recipe), self.job.loaders
        return step_batches(
            items, self.recipe, batch_plan, epoch=epoch, rank=rank, first_step=first_step, loaders=loaders
        )

    def loss(self, network: nn.Module, batch: Batch, position: BatchPosition) -> Tensor:
        """Cross-entropy with the recipe's label smoothing."""
        images, targets = self._mixed(batch, position)
        with autocast(self.recipe, self.team.device):
            output = network(images)
            return F.cross_entropy(output.float(), targets, label_smoothing=self.recipe.label_smoothing)

    def _mixed(self, batch: Batch, position: BatchPosition) -> tuple[Tensor, Tensor]:
        """The images on the device, mixed by the recipe: (N, 3, R, R), and labels (N,) or targets (N, classes)."""
        recipe, group = self.recipe, self.team
        images = place_images(batch[0], recipe, group.device)
        labels = batch[1].to(group.device, non_blocking=True)
        mixing = Augmentation(mixup=recipe.augmentation.mixup, cutmix=recipe.augmentation.cutmix)
        if not mixing.mixup and not mixing.cutmix:
            return images, labels
        generator = torch.Generator().manual_seed(mix_seed(recipe.seed, *position, group.rank))
        return mix(images, labels, mixing, self.pictures.classes, generator)

    def validate(self, model: nn.Module) -> Scores | None:
        """Top-1, top-5 and loss."""
        if self.pictures.val is None or self.validation is None:
            return None
        count, most = len(self.pictures.val.labels), self.viewing.batch_size
        parts = worker_indices(count, most, rank=self.team.rank, size=self.team.size)
        scores = validate_classifier(model, self.validation.read(parts), self.viewing, self.team)
        require_readable("validation", count, scores.unreadable, self.pictures.val)
        return scores

    def require_training(self, total: int, unreadable: int) -> None:
        """See `TrainingTask`."""
        require_readable("training", total, unreadable, self.pictures.train)

    def save(self, path: Path, model: nn.Module, source: str) -> None:
        """See `TrainingTask`."""
        save_weights(path, self.job.run.spec, model, source, classes=self.names)


def _rows(stored: Sequence[str] | None, names: Sequence[str]) -> tuple[list[int] | None, str]:
    """The rows of a classifier for `stored` classes in the order of `names`, and a message about them.

    The rows are None if the classes differ; the message is empty if they are equal or unknown.
    """
    if stored is None or tuple(stored) == tuple(names):
        return None, ""
    if sorted(stored) == sorted(names) and len(set(stored)) == len(stored):
        rows = [stored.index(name) for name in names]
        return rows, "the classifier's rows were put in the order of the images' classes"
    return None, f"a fresh classifier, for the weights are of other classes: {class_differences(names, stored)}"


def _note(texts: tuple[str, ...]) -> Message | None:
    return Message("; ".join(texts)) if texts else None


def _numbered(classes: int) -> tuple[str, ...]:
    """Numbers as names of classes that have none."""
    return tuple(map(str, range(classes)))
