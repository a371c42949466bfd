"""The step from classification to dense prediction (RepLKNet, guideline 4): a trained network, a head, mIoU or AP.

The network goes in as its training left it, in training form: un-merged weights are the better start downstream, as
RepLKNet's author advises. Merging comes last, and changes no prediction.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from harness.config.recipes.proxy import Optimizer, ProxyRecipe, Schedule, Transfer
from harness.data import Dataset
from harness.models.heads.encoder import Encoder
from harness.models.heads.fcos import FCOSDetector
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
    """Train a copy of `network` with a head on masks or boxes; yields what it gets right, in percent, and `transfer_s`.

    `network` is left alone. `check` is called before every step and raises to end it all; there is no checkpoint, so
    what was ended begins anew.
    """
    assert recipe.transfer is not None
    start = time.perf_counter()
    epoch_generator(seed, 0)  # decides the head's first weights; the network's own training began with 1
    learnt = TRANSFER_TASKS[recipe.transfer.learns]
    plan = transfer_recipe(recipe, recipe.transfer)
    yield from learnt(copy.deepcopy(network), spec, dataset, plan, seed=seed, device=device, check=check)
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
    """`miou` and `iou_<class>` of a segmentation that is trained now; `chance_miou` is that of one class everywhere.

    Pixels of all validation images count alike, and the ground is a class; a class that neither the masks nor the
    predictions have is left out.
    """
    assert recipe.transfer is not None
    classes = ("ground", *dataset.info.names)
    model = Segmenter(network, spec, recipe.transfer, classes=len(classes), side=recipe.resolution)
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
    """`ap`, `ap50`, `ap75` and `ap_<class>` of a detector that is trained now."""
    assert recipe.transfer is not None
    plan = recipe.transfer
    encoder = Encoder(network, spec, finest=plan.finest, frozen=plan.frozen)
    model = FCOSDetector(FeaturePyramid(encoder, plan.channels), classes=dataset.info.classes)
    for _ in train_detector(model, dataset, recipe, seed=seed, device=device, check=check):
        pass
    detections, truth = predict_split(dataset.val, model, dataset, recipe, device, check=check)
    yield from average_precision(detections, truth, dataset.info.names)


TRANSFER_TASKS: dict[str, Callable[..., Iterator[tuple[str, float]]]] = {"masks": _masks, "boxes": _boxes}
"""What is learnt, and then measured, by `Transfer.learns`."""


def transfer_recipe(recipe: ProxyRecipe, transfer: Transfer) -> ProxyRecipe:
    """The recipe of the training downstream: the data, precision and augmentation are those of `recipe`."""
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
