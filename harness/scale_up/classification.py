"""The task of a classifier: cross-entropy on whole images, perhaps mixed, and top-1.

Shapes: N images, R the recipe's resolution.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.augment import mix
from harness.full_recipe import FullRecipe
from harness.network import build
from harness.recipe import Augmentation
from harness.scale_up.images import Pictures, open_pictures
from harness.scale_up.loading import Batch, TrainingItems, ValidationItems, share_of, step_batches
from harness.scale_up.pace import Pace
from harness.scale_up.reader import Reader
from harness.scale_up.records import FullJob, Note, Scores
from harness.scale_up.start import trainable
from harness.scale_up.streams import mixed
from harness.scale_up.task import Place
from harness.scale_up.team import Team
from harness.scale_up.validate import scores
from harness.scale_up.viewing import Viewing
from harness.training import autocast
from harness.weights import save_weights


class Classification:
    """See `Task`."""

    backbone = ""

    def __init__(self, job: FullJob[FullRecipe], team: Team, pictures: Pictures | None = None) -> None:
        self.job, self.team, self.recipe = job, team, job.run.recipe
        self.pictures = pictures or open_pictures(self.recipe, job.root, job.cache)
        self.viewing, val = Viewing.of(self.recipe), self.pictures.val
        self.validation = None if val is None else Reader(ValidationItems(val, self.viewing), job.loaders)

    @property
    def images(self) -> int:
        """See `Task`."""
        return len(self.pictures.train.labels)

    def build(self) -> tuple[nn.Module, Note | None]:
        """The network, with fresh weights or those of the job's file."""
        spec = self.job.run.spec
        model = build(spec, seed=self.recipe.seed)
        if self.job.weights is None:
            return model, None
        found = trainable(self.job.weights, spec)
        own = model.state_dict()
        fitting = {name: value for name, value in found.entries.items() if value.shape == own[name].shape}
        model.load_state_dict(fitting, strict=False)
        if len(fitting) == len(own):
            return model, None
        return model, Note(f"a fresh classifier for {spec.classes} classes; the weights are for {found.spec.classes}")

    def batches(self, pace: Pace, *, epoch: int, rank: int, first_step: int) -> Iterator[Batch]:
        """See `Task`."""
        items, loaders = TrainingItems(self.pictures.train, self.recipe), self.job.loaders
        return step_batches(items, self.recipe, pace, epoch=epoch, rank=rank, first_step=first_step, loaders=loaders)

    def loss(self, network: nn.Module, batch: Batch, place: Place) -> Tensor:
        """Cross-entropy with the recipe's label smoothing."""
        images, targets = self._mixed(batch, place)
        with autocast(self.recipe, self.team.device):
            output = network(images)
            return F.cross_entropy(output.float(), targets, label_smoothing=self.recipe.label_smoothing)

    def _mixed(self, batch: Batch, place: Place) -> tuple[Tensor, Tensor]:
        """The images on the device, mixed as the recipe says: (N, 3, R, R), and labels (N,) or targets (N, classes)."""
        recipe, team = self.recipe, self.team
        images, labels = (tensor.to(team.device, non_blocking=True) for tensor in batch[:2])
        memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        images = images.contiguous(memory_format=memory_format)
        mixing = Augmentation(mixup=recipe.augmentation.mixup, cutmix=recipe.augmentation.cutmix)
        if not mixing.mixup and not mixing.cutmix:
            return images, labels
        generator = torch.Generator().manual_seed(mixed(recipe.seed, *place, team.rank))
        return mix(images, labels, mixing, self.pictures.classes, generator)

    def validate(self, model: nn.Module) -> Scores | None:
        """Top-1, top-5 and loss."""
        if self.pictures.val is None or self.validation is None:
            return None
        count, most = len(self.pictures.val.labels), self.viewing.batch_size
        parts = share_of(count, most, rank=self.team.rank, size=self.team.size)
        return scores(model, self.validation.read(parts), self.viewing, self.team)

    def save(self, path: Path, model: nn.Module, source: str) -> None:
        """See `Task`."""
        save_weights(path, self.job.run.spec, model, source)
