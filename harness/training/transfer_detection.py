"""Training of a detector on boxes, and its detections.

Shapes: N images, C channels, H W height and width; images are uint8 (N, C, H, W), boxes int64 (N, 4), one for each
image: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from harness.config.recipes.proxy import Augmentation, ProxyRecipe
from harness.data import Dataset, Split
from harness.data.augment import FlipShift, normalize
from harness.system.device_slot import yield_slot
from harness.training.device import memory_format
from harness.training.fit import DENSE_EVAL_BATCH, TrainedEpoch, autocast, fit_loss

Boxes = list[dict[str, Tensor]]
"""For each image a dictionary of float32 `boxes` (B, 4), int64 `labels` (B,) and, for detections, `scores` (B,)."""


def train_detector(
    model: nn.Module,
    dataset: Dataset,
    recipe: ProxyRecipe,
    *,
    seed: int,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> Iterator[TrainedEpoch]:
    """Train `model`, an `FCOSDetector`, in place on the boxes of the training images; yields after each epoch.

    The loss is the sum of the detector's losses. `check` is called before every step and raises an error to end the
    training. Raises `Diverged` at the first loss that is not finite.
    """
    images, boxes, labels = _on_device(dataset.train, device)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        with autocast(recipe, device):
            batch, shifted = augment_boxes(images[index], boxes[index], recipe.augmentation, dataset, generator)
            losses = model(
                batch.contiguous(memory_format=memory_format(recipe)), detection_targets(shifted, labels[index])
            )
            return torch.stack(list(losses.values())).sum()

    return fit_loss(model, loss, recipe, count=len(boxes), seed=seed, device=device, check=check, task="detection")


@torch.no_grad()
def predict_split(
    split: Split,
    model: nn.Module,
    dataset: Dataset,
    recipe: ProxyRecipe,
    device: torch.device,
    *,
    check: Callable[[], None] = lambda: None,
) -> tuple[Boxes, Boxes]:
    """The detections of `model` in every image of a split, and the true boxes, both on the CPU.

    Raises `Diverged` if an output of the model is not finite.
    """
    images, boxes, labels = _on_device(split, device)
    detections: Boxes = []
    model.eval()
    for batch in torch.split(images, DENSE_EVAL_BATCH):
        check()
        yield_slot()
        with autocast(recipe, device):
            detections += model(normalize(batch, dataset).contiguous(memory_format=memory_format(recipe)))
    on_cpu = [{name: value.cpu() for name, value in target.items()} for target in detections]
    return on_cpu, detection_targets(boxes.cpu(), labels.cpu())


def detection_targets(boxes: Tensor, labels: Tensor) -> Boxes:
    """Boxes (N, 4) and labels (N,) as one target per image; a box without area is left out."""
    is_seen = (boxes[:, 2:] > boxes[:, :2]).all(dim=1).long().tolist()
    return [{"boxes": boxes[i : i + seen].float(), "labels": labels[i : i + seen]} for i, seen in enumerate(is_seen)]


def augment_boxes(
    images: Tensor, boxes: Tensor, augmentation: Augmentation, dataset: Dataset, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augment a batch: float32 images and their boxes, flipped and shifted together."""
    moves = FlipShift.draw(len(images), augmentation, generator)
    return moves.images(normalize(images, dataset)), moves.boxes(boxes, *images.shape[2:])


def _on_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Images, boxes and labels as tensors: on a GPU in its memory, on a CPU the shared pages of the file."""
    assert split.boxes is not None, "a recipe whose head learns boxes is refused on data without when it is checked"
    images, boxes, labels = (torch.from_numpy(data[:]).to(device) for data in (split.images, split.boxes, split.labels))
    return images, boxes, labels
