"""The step from classification to dense prediction (RepLKNet, guideline 4): a trained network, a head, masks, mIoU.

The network goes in as its training left it, in training form: un-merged weights are the better start downstream, as
RepLKNet's author advises. Merging comes last, and changes no prediction.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from harness.data import Dataset
from harness.downstream.heads import Segmenter
from harness.downstream.miou import intersection_over_union
from harness.downstream.segment import confusion_on, segment
from harness.recipe import Optimizer, Recipe, Schedule, Transfer
from harness.spec import NetworkSpec
from harness.training import seed_epoch


def transfer(
    network: nn.Module,
    spec: NetworkSpec,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, float]]:
    """Train a copy of `network` with a head on the masks; yields `miou` in percent, `iou_<class>` and `transfer_s`.

    Pixels of all validation images count alike, and the ground is a class; a class that neither the masks nor the
    predictions have is left out. `network` is left alone. `check` is called before every step and raises to end it
    all; there is no checkpoint, so what was ended begins anew.
    """
    assert recipe.transfer is not None
    start = time.perf_counter()
    seed_epoch(seed, 0)  # decides the head's first weights; the network's own training began with 1
    classes = ("ground", *dataset.info.names)
    own = copy.deepcopy(network)
    model = Segmenter(own, spec, recipe.transfer, classes=len(classes), side=recipe.resolution)
    plan = segmentation_recipe(recipe, recipe.transfer)
    for _ in segment(model, dataset, plan, seed=seed, device=device, check=check):
        pass
    shares = intersection_over_union(confusion_on(dataset.val, model, dataset, plan, device, check=check))
    yield "miou", 100 * shares.nanmean().item()
    for name, share in zip(classes, shares.tolist(), strict=True):
        if not math.isnan(share):
            yield f"iou_{name}", 100 * share
    yield "transfer_s", time.perf_counter() - start


def segmentation_recipe(recipe: Recipe, transfer: Transfer) -> Recipe:
    """The recipe of the segmentation's own training: the data, precision and augmentation are those of `recipe`."""
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
