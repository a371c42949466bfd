"""Transfer of a trained classifier to dense prediction (RepLKNet, guideline 4): add a head, train, measure mIoU or AP.

The network stays in training form: un-merged weights are the better start for downstream training, as RepLKNet's author
advises. Merging comes last, and changes no prediction.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from harness.config.recipes.proxy import Optimizer, ProxyRecipe, Schedule, Transfer
from harness.data import Dataset
from harness.models.heads.detection import FCOSDetector
from harness.models.heads.encoder import Encoder
from harness.models.heads.feature_pyramid import FeaturePyramid
from harness.models.heads.segmentation import Segmenter
from harness.models.spec.network import NetworkSpec
from harness.training.fit import epoch_generator
from harness.training.metrics.detection import average_precision
from harness.training.metrics.segmentation import intersection_over_union
from harness.training.transfer_detection import predict_split, train_detector
from harness.training.transfer_segmentation import confusion_matrix_on, train_segmenter


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
    assert recipe.transfer is not None
    start = time.perf_counter()
    epoch_generator(seed, 0)  # seeds the head's initial weights; the network's own training began with epoch 1
    run_task = TRANSFER_TASKS[recipe.transfer.learns]
    plan = transfer_recipe(recipe, recipe.transfer)
    yield from run_task(copy.deepcopy(network), spec, dataset, plan, seed=seed, device=device, check=check)
    yield "transfer_s", time.perf_counter() - start


def _masks(
    network: nn.Module,
    spec: NetworkSpec,
    dataset: Dataset,
    recipe: ProxyRecipe,
    *,
    seed: int,
    device: torch.device,
    check: Callable[[], None],
) -> Iterator[tuple[str, float]]:
    """Train a segmentation; yields `miou`, `iou_<class>`, and `chance_miou`, the mIoU of one class everywhere.

    All pixels of all validation images have equal weight, and the background is a class; a class that is neither in the
    masks nor in the predictions is left out.
    """
    plan = recipe.transfer
    assert plan is not None
    classes = ("ground", *dataset.info.names)
    encoder = Encoder(network, spec, finest=plan.finest, frozen=plan.frozen)
    model = Segmenter(encoder, plan.head, plan.channels, classes=len(classes), side=recipe.resolution)
    for _ in train_segmenter(model, dataset, recipe, seed=seed, device=device, check=check):
        pass
    counts = confusion_matrix_on(dataset.val, model, dataset, recipe, device, check=check)
    shares = intersection_over_union(counts)
    yield "miou", 100 * shares.nanmean().item()
    truth = counts.sum(dim=1).double()
    yield "chance_miou", 100 * (truth.max() / truth.sum() / (truth > 0).sum()).item()
    for name, share in zip(classes, shares.tolist(), strict=True):
        if not math.isnan(share):
            yield f"iou_{name}", 100 * share


def _boxes(
    network: nn.Module,
    spec: NetworkSpec,
    dataset: Dataset,
    recipe: ProxyRecipe,
    *,
    seed: int,
    device: torch.device,
    check: Callable[[], None],
) -> Iterator[tuple[str, float]]:
    """Train a detector; yields `ap`, `ap50`, `ap75` and `ap_<class>`."""
    assert recipe.transfer is not None
    plan = recipe.transfer
    encoder = Encoder(network, spec, finest=plan.finest, frozen=plan.frozen)
    model = FCOSDetector(FeaturePyramid(encoder, plan.channels), classes=dataset.info.classes)
    for _ in train_detector(model, dataset, recipe, seed=seed, device=device, check=check):
        pass
    detections, truth = predict_split(dataset.val, model, dataset, recipe, device, check=check)
    yield from average_precision(detections, truth, dataset.info.names)


TRANSFER_TASKS: dict[str, Callable[..., Iterator[tuple[str, float]]]] = {"masks": _masks, "boxes": _boxes}
"""Functions that train and evaluate a transfer, by `Transfer.learns`."""


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
