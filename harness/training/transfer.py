"""Transfer of a trained classifier to dense prediction (RepLKNet, guideline 4): add a head, train, measure mIoU or AP.

The network stays in training form: un-merged weights are the better start for downstream training, as RepLKNet's author
advises. Merging comes last, and changes no prediction.

Shapes: N images, C channels, H W height and width; images are uint8 (N, C, H, W), masks uint8 (N, H, W), boxes int64
(N, 4), one for each image: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.config.recipes.proxy import Augmentation, Optimizer, ProxyRecipe, Schedule, Transfer
from harness.data import Dataset, Split
from harness.data.augment import FlipShift, normalize
from harness.models.heads.detection import FCOSDetector
from harness.models.heads.encoder import Encoder
from harness.models.heads.feature_pyramid import FeaturePyramid
from harness.models.heads.segmentation import Segmenter
from harness.models.spec.network import NetworkSpec
from harness.system.device_slot import yield_slot
from harness.training.device import autocast, place_images
from harness.training.fit import ProxyContext, TrainedEpoch, epoch_generator, on_device, predict, prepare, train_epochs
from harness.training.metrics.detection import Boxes, average_precision
from harness.training.metrics.segmentation import ConfusionAccumulator, intersection_over_union, pixel_loss

CPU = torch.device("cpu")
DENSE_EVAL_BATCH = 64
"""Batch size for the evaluation of a transfer, which has larger maps and outputs."""


def transfer(
    network: nn.Module,
    spec: NetworkSpec,
    dataset: Dataset,
    recipe: ProxyRecipe,
    *,
    seed: int,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, float]]:
    """Train a copy of `network` with a head on masks or boxes; yields its metrics, in percent, and `transfer_s`.

    `network` is not changed. `check` is called before every step and raises an error to end the transfer; there is no
    checkpoint, so an interrupted transfer starts again.
    """
    plan = recipe.transfer
    assert plan is not None
    start = time.perf_counter()
    epoch_generator(seed, 0)  # seeds the head's initial weights; the network's own training began with epoch 1
    context = ProxyContext(dataset, transfer_recipe(recipe, plan), seed, device, check)
    yield from TRANSFER_TASKS[plan.learns](copy.deepcopy(network), spec, plan, context)
    yield "transfer_s", time.perf_counter() - start


def transfer_recipe(recipe: ProxyRecipe, transfer: Transfer) -> ProxyRecipe:
    """The recipe of the downstream training: data, precision and augmentation are those of `recipe`."""
    return recipe.model_copy(
        update={
            "epochs": transfer.epochs,
            "batch_size": transfer.batch_size,
            "optimizer": Optimizer(
                name="adamw", lr=transfer.lr, weight_decay=transfer.weight_decay, clip_norm=transfer.clip_norm
            ),
            "schedule": Schedule(warmup_epochs=transfer.warmup * transfer.epochs),
        }
    )


# Segmentation


def _masks(network: nn.Module, spec: NetworkSpec, plan: Transfer, context: ProxyContext) -> Iterator[tuple[str, float]]:
    """Train a segmentation; yields `miou`, `iou_<class>`, and `chance_miou`, the mIoU of one class everywhere.

    All pixels of all validation images have equal weight, and the background is a class; a class that is neither in the
    masks nor in the predictions is left out.
    """
    classes = ("ground", *context.dataset.info.names)
    encoder = Encoder(network, spec, finest=plan.finest, frozen=plan.frozen)
    model = Segmenter(encoder, plan.head, plan.channels, classes=len(classes), side=context.recipe.resolution)
    for _ in train_segmenter(model, context):
        pass
    counts = confusion_matrix_on(context.dataset.val, model, context)
    shares = intersection_over_union(counts)
    yield "miou", 100 * shares.nanmean().item()
    truth = counts.sum(dim=1).double()
    yield "chance_miou", 100 * (truth.max() / truth.sum() / (truth > 0).sum()).item()
    for name, share in zip(classes, shares.tolist(), strict=True):
        if not math.isnan(share):
            yield f"iou_{name}", 100 * share


def train_segmenter(model: nn.Module, context: ProxyContext) -> Iterator[TrainedEpoch]:
    """Train `model`, images to logits per pixel, in place on the masks of the training images; yields after each epoch.

    The loss is the cross-entropy over classes and background. Raises `Diverged` at the first loss that is not finite.
    """
    recipe, device, train = context.recipe, context.device, context.dataset.train
    (images, _), masks = on_device(train, device), _annotations(train.masks, device)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        with autocast(recipe, device):
            batch, targets = augment_masks(images[index], masks[index], recipe.augmentation, context.dataset, generator)
            return pixel_loss(model(place_images(batch, recipe, device)), targets)

    name = "the segmentation's loss"
    return train_epochs(model, *prepare(model, context), loss, context, len(masks), name)


def confusion_matrix_on(split: Split, model: nn.Module, context: ProxyContext) -> Tensor:
    """Counts (classes, classes) of all pixels of a split by true and predicted class, the background first.

    Raises `Diverged` if a logit is not finite.
    """
    masks = _annotations(split.masks, context.device)
    accumulator = ConfusionAccumulator.empty(context.dataset.info.classes + 1, context.device)
    subject = "the segmentation's logits after its last step"
    for logits, part in predict(model, _batches(split, context), context.recipe, context.device, subject):
        accumulator.add(logits.argmax(1), masks[part])
    return accumulator.counts


def augment_masks(
    images: Tensor, masks: Tensor, augmentation: Augmentation, dataset: Dataset, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augment a batch: float32 images and int64 masks, flipped and shifted together."""
    moves = FlipShift.draw(len(images), augmentation, generator)
    return moves.images(normalize(images, dataset)), moves.images(masks[:, None])[:, 0].long()


# Detection


def _boxes(network: nn.Module, spec: NetworkSpec, plan: Transfer, context: ProxyContext) -> Iterator[tuple[str, float]]:
    """Train a detector; yields `ap`, `ap50`, `ap75` and `ap_<class>`."""
    encoder = Encoder(network, spec, finest=plan.finest, frozen=plan.frozen)
    model = FCOSDetector(FeaturePyramid(encoder, plan.channels), classes=context.dataset.info.classes)
    for _ in train_detector(model, context):
        pass
    detections, truth = predict_split(context.dataset.val, model, context)
    yield from average_precision(detections, truth, context.dataset.info.names)


def train_detector(model: nn.Module, context: ProxyContext) -> Iterator[TrainedEpoch]:
    """Train `model`, an `FCOSDetector`, in place on the boxes of the training images; yields after each epoch.

    The loss is the sum of the detector's losses. Raises `Diverged` at the first loss that is not finite.
    """
    recipe, device, train = context.recipe, context.device, context.dataset.train
    (images, labels), boxes = on_device(train, device), _annotations(train.boxes, device)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        with autocast(recipe, device):
            batch, shifted = augment_boxes(images[index], boxes[index], recipe.augmentation, context.dataset, generator)
            losses = model(place_images(batch, recipe, device), detection_targets(shifted, labels[index]))
            return torch.stack(list(losses.values())).sum()

    return train_epochs(model, *prepare(model, context), loss, context, len(boxes), "the detection's loss")


@torch.no_grad()
def predict_split(split: Split, model: nn.Module, context: ProxyContext) -> tuple[Boxes, Boxes]:
    """The detections of `model` in every image of a split, and the true boxes, both on the CPU.

    Raises `Diverged` if an output of the model is not finite.
    """
    recipe, device = context.recipe, context.device
    detections: Boxes = []
    model.eval()
    for images, _ in _batches(split, context):
        yield_slot()
        with autocast(recipe, device):
            detections += model(place_images(images, recipe, device))
    on_cpu = [{name: value.cpu() for name, value in target.items()} for target in detections]
    return on_cpu, detection_targets(_annotations(split.boxes, CPU), torch.from_numpy(split.labels))


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


# Both


def _batches(split: Split, context: ProxyContext) -> Iterator[tuple[Tensor, slice]]:
    """The normalized images of a split, batch by batch, with their positions in it."""
    images, labels = on_device(split, context.device)
    for start in range(0, len(labels), DENSE_EVAL_BATCH):
        context.check()
        part = slice(start, start + DENSE_EVAL_BATCH)
        yield normalize(images[part], context.dataset), part


def _annotations(stored: NDArray[Any] | None, device: torch.device) -> Tensor:
    """Masks or boxes as tensors: on a GPU in its memory, on a CPU the shared pages of the file."""
    assert stored is not None, "a recipe whose head learns them is refused on data without when it is checked"
    return torch.from_numpy(stored).to(device)


TRANSFER_TASKS: dict[str, Callable[..., Iterator[tuple[str, float]]]] = {"masks": _masks, "boxes": _boxes}
"""Functions that train and evaluate a transfer, by `Transfer.learns`."""
