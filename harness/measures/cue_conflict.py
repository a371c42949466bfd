"""The command `shape-bias`: the decisions of an ImageNet-1K network on images whose shape and texture disagree.

The probability of each of the 16 classes is the mean over its members among the 1000 classes, and the prediction is the
class with the largest, as in Geirhos et al. (2019, arXiv 1811.12231).

Shapes: N images, H W height and width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.cue_conflict import (
    SIXTEEN_CLASS_MEMBERS,
    SIXTEEN_CLASSES,
    Stimuli,
    Stimulus,
    find_stimuli,
)
from harness.data.image_file import CroppedImage, decode_square, read_sampled_value_range
from harness.data.labels import IMAGENET_CLASSES, class_differences, imagenet_synsets
from harness.data.preprocessing import Preprocessing, published_normalization
from harness.errors import DataError, UserError
from harness.measures.erf_comparison import progress_printer
from harness.measures.shape_bias import Decisions, count_decisions, decisions_by_class
from harness.models.finite import as_user_error
from harness.storage.load_network import LoadedNetwork, WeightsOrigin, class_names
from harness.system.device_slot import computing
from harness.training.device import find_device, process_environment
from harness.training.environment import Environment
from harness.training.fit import predict

STIMULI_BATCH = 32


@dataclass(frozen=True, slots=True)
class CueConflictResult:
    """The decisions of a network on a folder of stimuli."""

    subject: LoadedNetwork
    side: int
    """Side of the images, in pixels."""
    folder: Path
    stimuli: Stimuli
    unreadable: int
    """Stimuli that could not be read."""
    whole: Decisions
    classes: dict[str, Decisions]
    """Decisions by class of the shape."""
    labels: str
    """How the network's classes were matched with the synsets of ImageNet-1K."""
    notes: tuple[str, ...] = ()
    """Caveats for the reader of the metrics."""
    computed_by: Environment | None = None

    @property
    def class_mean_pct(self) -> float | None:
        """The mean of the classes' shape biases in percent, over the classes that have decisions."""
        shares = [share for decisions in self.classes.values() if (share := decisions.share_pct) is not None]
        return sum(shares) / len(shares) if shares else None


def classify_stimuli(network: LoadedNetwork, folder: Path, side: int) -> CueConflictResult:
    """Classify the stimuli of a folder, resized to `side` pixels.

    Raises `UserError` if the network is not for ImageNet-1K or has random weights, or the folder has no stimuli.
    """
    _check(network)
    stimuli = find_stimuli(folder)
    device = find_device()
    tell = progress_printer(network.name, len(stimuli.conflicts))
    order, labels = _class_order(network)
    with as_user_error(network.name), computing(device):
        answers, shown = _predict(network, stimuli.conflicts, side, device, order, tell)
    if not shown:
        raise DataError("the stimuli must be images that can be read", place=str(folder))
    shapes, textures = (np.array([getattr(stimulus, cue) for stimulus in shown]) for cue in ("shape", "texture"))
    return CueConflictResult(
        subject=network,
        side=side,
        folder=folder,
        stimuli=stimuli,
        unreadable=len(stimuli.conflicts) - len(shown),
        whole=count_decisions(answers, shapes, textures),
        classes=decisions_by_class(answers, shapes, textures, SIXTEEN_CLASSES),
        labels=labels,
        notes=tuple(_notes(answers)),
        computed_by=process_environment(device),
    )


def to_sixteen(probabilities: Tensor) -> Tensor:
    """The mean over the members of each class: (N, 1000) -> (N, 16)."""
    return torch.stack([probabilities[:, list(members)].mean(1) for members in SIXTEEN_CLASS_MEMBERS.values()], dim=1)


def _predict(
    network: LoadedNetwork,
    stimuli: Sequence[Stimulus],
    side: int,
    device: torch.device,
    order: list[int] | None,
    tell: Callable[[int], None],
) -> tuple[NDArray[np.int64], list[Stimulus]]:
    """The predicted classes (N,) by index, and their stimuli: those that can be read.

    `order` holds the index of the logit of each synset of ImageNet-1K; None if they are in their usual order.
    """
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in _statistics(network))
    stored = _batches(stimuli, side)
    batches = (((images.to(device).float() / 255 - mean) / std, readable) for images, readable in stored)
    how = Preprocessing(side, channels_last=False)
    answers, shown = [], []
    for logits, readable in predict(network.model.to(device), batches, how, device, "the logits of a stimulus"):
        if order is not None:
            logits = logits[:, order]
        answers.append(to_sixteen(logits.double().softmax(1)).argmax(1).cpu())
        shown += readable
        tell(len(shown))
    return (torch.cat(answers).numpy() if answers else np.empty(0, np.int64)), shown


def _batches(stimuli: Sequence[Stimulus], side: int) -> Iterator[tuple[Tensor, list[Stimulus]]]:
    """Batches of images (N, 3, H, W) with their stimuli, without those that cannot be read."""
    levels = read_sampled_value_range([stimulus.path for stimulus in stimuli])
    for start in range(0, len(stimuli), STIMULI_BATCH):
        images, readable = [], []
        for stimulus in stimuli[start : start + STIMULI_BATCH]:
            square = decode_square(stimulus.path, side, levels)
            if isinstance(square, CroppedImage):
                images.append(square.pixels)
                readable.append(stimulus)
        if readable:
            yield torch.from_numpy(np.stack(images)), readable


def _class_order(network: LoadedNetwork) -> tuple[list[int] | None, str]:
    """The index of the logit of each ImageNet-1K synset, None if in their usual order; and how they were matched.

    Raises `UserError` for a network whose class names are others.
    """
    names, synsets = class_names(network), imagenet_synsets()
    if names is None:
        return None, "by position, as synsets of ImageNet-1K in their usual order: the weights hold no class names"
    if set(names) != set(synsets):
        rule = "the network's classes must be the synsets of ImageNet-1K, as n01440764"
        raise UserError(rule, value=class_differences(names, synsets), place=network.name)
    return [names.index(name) for name in synsets], "by name: 1,000 of 1,000 synsets of ImageNet-1K"


def _notes(answers: NDArray[np.int64]) -> Iterator[str]:
    if len(answers) > 1 and (answers == answers[0]).all():
        yield (
            f"every stimulus is classified as {SIXTEEN_CLASSES[answers[0]]}: the network does not distinguish images"
        )


def _check(network: LoadedNetwork) -> None:
    spec = network.spec
    if network.origin == WeightsOrigin.RANDOM:
        raise UserError(
            "the network must be trained: the shape bias of random weights means nothing",
            value=network.name,
            remedy="Give a file of weights: `harness weights import FILE --network NETWORK --output OUT.safetensors`.",
        )
    if spec.classes != IMAGENET_CLASSES or spec.in_channels != 3:
        raise UserError(
            "the network must classify color images into the 1000 classes of ImageNet-1K",
            value=f"{spec.classes} classes, {spec.in_channels} channels",
            place=network.name,
            remedy="For proxies, put shape_bias under `proxy.measures`: they are evaluated on `shapes`.",
        )


def _statistics(network: LoadedNetwork) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of the network's training images: its own data's, its preset's, or ImageNet's."""
    if (dataset := network.load_images()) is not None:
        return dataset.mean, dataset.std
    if network.full_recipe is not None:
        return network.full_recipe.data.mean, network.full_recipe.data.std
    return published_normalization(network.spec)
