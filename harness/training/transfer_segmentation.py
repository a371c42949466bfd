"""Training of a segmentation on masks, and its confusion matrix.

Shapes: N images, C channels, H W height and width; images are uint8 (N, C, H, W), masks uint8 (N, H, W).
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config.recipes.proxy import Augmentation, ProxyRecipe
from harness.data import Dataset, Split
from harness.data.augment import FlipShift, normalize
from harness.data.segmentation_files import IGNORED
from harness.models.finite import require_finite
from harness.system.device_slot import yield_slot
from harness.training.device import memory_format
from harness.training.fit import DENSE_EVAL_BATCH, TrainedEpoch, autocast, fit_loss
from harness.training.metrics.segmentation import confusion_matrix


def train_segmenter(
    model: nn.Module,
    dataset: Dataset,
    recipe: ProxyRecipe,
    *,
    seed: int,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> Iterator[TrainedEpoch]:
    """Train `model`, images to logits per pixel, in place on the masks of the training images; yields after each epoch.

    The loss is the cross-entropy over classes and background. `check` is called before every step and raises an error
    to end the training. Raises `Diverged` at the first loss that is not finite.
    """
    images, masks = _on_device(dataset.train, device)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        with autocast(recipe, device):
            batch, targets = augment_masks(images[index], masks[index], recipe.augmentation, dataset, generator)
            return pixel_loss(model(batch.contiguous(memory_format=memory_format(recipe))), targets)

    return fit_loss(model, loss, recipe, count=len(masks), seed=seed, device=device, check=check, task="segmentation")


@torch.no_grad()
def confusion_matrix_on(
    split: Split,
    model: nn.Module,
    dataset: Dataset,
    recipe: ProxyRecipe,
    device: torch.device,
    *,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Counts (classes, classes) of all pixels of a split by true and predicted class, the background first.

    Raises `Diverged` if a logit is not finite.
    """
    images, masks = _on_device(split, device)
    classes = dataset.info.classes + 1
    counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    model.eval()
    for batch, truth in zip(torch.split(images, DENSE_EVAL_BATCH), torch.split(masks, DENSE_EVAL_BATCH), strict=True):
        check()
        yield_slot()
        with autocast(recipe, device):
            inputs = normalize(batch, dataset).contiguous(memory_format=memory_format(recipe))
            logits = model(inputs)
            require_finite(logits, model, inputs, "the segmentation's logits after its last step")
        counts += confusion_matrix(logits.argmax(1), truth, classes)
    return counts


def pixel_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over pixels that are not ignored, 0 if all are: (N, classes, H, W), int64 (N, H, W) -> ()."""
    total = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


def augment_masks(
    images: Tensor, masks: Tensor, augmentation: Augmentation, dataset: Dataset, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augment a batch: float32 images and int64 masks, flipped and shifted together."""
    moves = FlipShift.draw(len(images), augmentation, generator)
    return moves.images(normalize(images, dataset)), moves.images(masks[:, None])[:, 0].long()


def _on_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and masks as tensors: on a GPU in its memory, on a CPU the shared pages of the file."""
    assert split.masks is not None, "a recipe whose head learns masks is refused on data without when it is checked"
    return torch.from_numpy(split.images[:]).to(device), torch.from_numpy(split.masks).to(device)
