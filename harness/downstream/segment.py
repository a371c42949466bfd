"""The training loop of a segmentation, in the manner of `harness.training`, and what a segmentation gets right.

Everything random in an epoch follows from (seed, epoch).

Shapes: N images, C channels, H W height and width; images come as uint8 (N, C, H, W), masks as uint8 (N, H, W).
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data import Dataset, Split
from harness.data.augment import flip, normalize, shift
from harness.downstream.miou import IGNORED, confusion
from harness.errors import Diverged
from harness.recipe import Augmentation, Recipe
from harness.training import autocast, build_optimizer, descend, learning_rate, seed_epoch

EVAL_BATCH = 64


@dataclass(frozen=True, slots=True)
class SegmentationEpoch:
    """One epoch of training on masks."""

    epoch: int
    """From 1."""
    train_loss: float
    wall_s: float
    images_per_s: float


def segment(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> Iterator[SegmentationEpoch]:
    """Train `model`, images to logits per pixel, in place on the masks of the training images; yields after each epoch.

    The loss is the cross-entropy over classes and ground. `check` is called before every step and raises to end the
    training. Raises `Diverged` at the first loss that is not finite.
    """
    memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
    model.to(device).to(memory_format=memory_format)
    optimizer = build_optimizer(model, recipe.optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    images, masks = _resident(dataset.train, device)
    steps = max(1, len(masks) // recipe.batch_size)  # a last, smaller batch would disturb the batch norms

    for epoch in range(1, recipe.epochs + 1):
        start = time.perf_counter()
        generator = seed_epoch(seed, epoch)
        order = torch.randperm(len(masks), generator=generator).to(images.device)
        losses = torch.zeros((), device=device)
        model.train()

        for step, index in enumerate(torch.split(order, recipe.batch_size)[:steps]):
            check()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, (epoch - 1) * steps + step, steps)

            batch, targets = augment_pairs(images[index], masks[index], recipe.augmentation, dataset, generator)
            with autocast(recipe, device):
                logits = model(batch.contiguous(memory_format=memory_format))
                loss = pixel_loss(logits, targets)

            descend(loss, model, optimizer, scaler, clip_norm=recipe.optimizer.clip_norm)

            losses += loss.detach()
            if device.type == "cpu" and not math.isfinite(loss.item()):  # on a GPU this would wait for it: see below
                raise Diverged(f"the segmentation's loss is {loss.item()} in epoch {epoch}, step {step + 1}")

        train_loss = losses.item() / steps
        if not math.isfinite(train_loss):
            raise Diverged(f"the segmentation's loss is {train_loss} in epoch {epoch}")
        wall_s = time.perf_counter() - start
        yield SegmentationEpoch(epoch, train_loss, wall_s, images_per_s=steps * recipe.batch_size / wall_s)


@torch.no_grad()
def confusion_on(
    split: Split,
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    device: torch.device,
    *,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Counts (classes, classes) of all pixels of a split by true and predicted class, the ground first.

    Raises `Diverged` where a logit is not finite.
    """
    memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
    images, masks = _resident(split, device)
    classes = dataset.info.classes + 1
    counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    model.eval()
    for batch, truth in zip(torch.split(images, EVAL_BATCH), torch.split(masks, EVAL_BATCH), strict=True):
        check()
        with autocast(recipe, device):
            logits = model(normalize(batch, dataset).contiguous(memory_format=memory_format))
        if not logits.isfinite().all():
            raise Diverged("the segmentation's logits are not finite after its last step")
        counts += confusion(logits.argmax(1), truth, classes)
    return counts


def pixel_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that count, 0 where none does: (N, classes, H, W), int64 (N, H, W) -> ()."""
    total = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


def augment_pairs(
    images: Tensor, masks: Tensor, augmentation: Augmentation, dataset: Dataset, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The batch as it is trained on, images as float32 and masks as int64, flipped and shifted together."""
    batch, targets = normalize(images, dataset), masks[:, None]
    if augmentation.flip:
        chosen = torch.rand(len(batch), generator=generator) < 0.5
        batch, targets = flip(batch, chosen), flip(targets, chosen)
    if augmentation.shift:
        reach = augmentation.shift
        offsets = torch.randint(-reach, reach + 1, (len(batch), 2), generator=generator)
        batch, targets = shift(batch, offsets), shift(targets, offsets)
    return batch, targets[:, 0].long()


def _resident(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and masks as tensors: on a GPU in its memory, on a CPU the shared pages of the file."""
    assert split.masks is not None, "a recipe with `transfer` on data without masks is refused when it is checked"
    return torch.from_numpy(split.images).to(device), torch.from_numpy(split.masks).to(device)
