"""The verb `erf`: the effective receptive fields of networks, side by side, and the images that they are shown.

Shapes: n images, C channels of the network, H W height and width.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import Dataset
from harness.data.augment import normalize
from harness.data.cache import statistics
from harness.data.image_folder import sample_images
from harness.data.shapes.dataset import describe, make
from harness.errors import UserError
from harness.measures.receptive_field import (
    FIELD_DEFINITIONS,
    ReceptiveField,
    balanced_indices,
    erf_resolution,
    receptive_fields,
    resize_images,
)
from harness.models.cost import network_parts
from harness.models.finite import describe_fault
from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec
from harness.models.spec.published import FIELDS_PX, RANDOM_FIELDS_NOTE, has_published_field, resolutions
from harness.storage.load_network import LoadedNetwork, WeightsOrigin
from harness.system.device_slot import computing
from harness.training.device import process_environment
from harness.training.environment import Environment

SHAPES_OPTION = "shapes"
STATISTICS = 64
"""Training images of `shapes` that tell mean and standard deviation where no run did."""
SMALLEST, LARGEST = 8, 4096
"""Sides of images, as in a recipe."""
PRINT_EVERY_S = 10.0
MAX_CENTER_OFFSET = 0.02
"""Share of an image's side by which a centre may look beside the middle without a word."""


@dataclass(frozen=True, slots=True, eq=False)
class ErfImages:
    """What a network is shown."""

    pixels: Tensor
    """(n, C, H, W)."""
    about: str
    """Which they are, in words."""
    notes: tuple[str, ...]


@computing()
def erf_images(spec: NetworkSpec, data: str | None, shown: LoadedNetwork | None, *, count: int, side: int) -> ErfImages:
    """So many images brought to that side, or as many as there are, taken in turns from all classes.

    `data` is `shapes`, a folder, or None: then they are what the run behind `shown` was validated on, or else `shapes`.
    Raises `UserError` where they are not there, or are no images for the network.
    """
    recipe = None if shown is None else shown.recipe
    if data is not None and data != SHAPES_OPTION:
        dataset, about = sample_images(Path(data).expanduser(), count, side), f"images of {data}"
    elif recipe is None or data not in (None, recipe.dataset):
        recipe = ProxyRecipe(resolution=side)
        dataset, about = _shapes(recipe, count), _recipe_text(recipe)
    else:
        loaded = None if shown is None else shown.load_images()
        assert loaded is not None, "a run has a recipe, a seed and a folder"
        dataset, about = loaded, _recipe_text(recipe)
    chosen = balanced_indices(dataset.val.labels, count)
    pixels = normalize(torch.from_numpy(dataset.val.images[chosen]), dataset)
    return ErfImages(_to_network_channels(resize_images(pixels, side), spec, about), about, dataset.notes)


def _shapes(recipe: ProxyRecipe, count: int) -> Dataset:
    """So many validation images, made now; whatever their number, the first are the same."""
    train, val = make(recipe, "train", STATISTICS), make(recipe, "val", count)
    mean, std = statistics(train.images)
    return Dataset(describe(recipe), train, val, mean, std)


def _recipe_text(recipe: ProxyRecipe) -> str:
    if recipe.dataset != SHAPES_OPTION:
        return f"validation images of {recipe.dataset}"
    return f"validation images of shapes, {recipe.rendering}, difficulty {recipe.difficulty:g}"


def _to_network_channels(pixels: Tensor, spec: NetworkSpec, about: str) -> Tensor:
    """Grey images on all channels of the network; others must have as many as it has."""
    channels = pixels.shape[1]
    if channels not in (1, spec.in_channels):
        raise UserError(
            f"the images must have the {spec.in_channels} channel{'s' * (spec.in_channels > 1)} of the network",
            value=f"{channels} channels",
            place=about,
            remedy="Give `--data shapes`, or leave it out for what a run was trained on.",
        )
    return pixels.expand(-1, spec.in_channels, -1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class FieldResult:
    """A network and its fields."""

    subject: LoadedNetwork
    side: int
    """Of the images, in pixels."""
    about: str
    """The images, in words."""
    fields: dict[str, ReceptiveField]
    """By definition."""
    notes: tuple[str, ...]
    """What must be known to read them."""
    computed_by: Environment | None = None


def compare_fields(
    subjects: Sequence[LoadedNetwork], *, images: int, resolution: int | None = None, data: str | None = None
) -> Iterator[FieldResult]:
    """Each network's fields. One that no run trained is shown what the first run's network is shown."""
    lender = next((network for network in subjects if network.recipe), None)
    plans = [(network, network if network.recipe else lender) for network in subjects]
    sides = [_side(network, shown, resolution) for network, shown in plans]
    for (network, shown), side in zip(plans, sides, strict=True):
        found = erf_images(network.spec, data, shown, count=images, side=side)
        fields = _fields(network, found, progress_printer(network.name, len(found.pixels)))
        _require_images(network, found, fields)
        notes = (*found.notes, *_notes(network, side, fields))
        device = next(network.model.parameters()).device
        yield FieldResult(network, side, found.about, fields, notes, process_environment(device))


def _side(network: LoadedNetwork, shown: LoadedNetwork | None, resolution: int | None) -> int:
    """The side of its images: as given, or as the measure has it for a side of training or of published figures."""
    learned = shown.recipe.resolution if shown and shown.recipe else resolutions(network.spec)[0]
    side = erf_resolution(learned) if resolution is None else resolution
    if not SMALLEST <= side <= LARGEST:
        raise UserError(
            f"`--resolution` must be from {SMALLEST} to {LARGEST}", value=side, remedy=f"The paper's is {FIELDS_PX}."
        )
    network_parts(network.spec, side)  # raises for images of which the last map has nothing
    return side


def _fields(network: LoadedNetwork, images: ErfImages, tell: Callable[[int], None]) -> dict[str, ReceptiveField]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with computing(device):
            return receptive_fields(network.model.to(device), images.pixels, tell=tell)
    except torch.OutOfMemoryError as error:
        side = images.pixels.shape[-1]
        raise UserError(
            "the device must have room for the gradient of one image",
            value=f"{network.name} at {side} px",
            remedy="Give a smaller `--resolution`.",
        ) from error


def _require_images(network: LoadedNetwork, images: ErfImages, fields: dict[str, ReceptiveField]) -> None:
    """Raise `UserError` where no image has a finite gradient, which is no field that is zero."""
    if any(field.images == 0 and field.skipped for field in fields.values()):
        device = next(network.model.parameters()).device
        what = "the gradients of all images are NaN or infinite, and so there is no field: they"
        with torch.no_grad():
            fault = describe_fault(network.model, images.pixels[:1].to(device), what)
        raise UserError(fault, place=network.name, remedy="Take the weights of an earlier epoch, or train again.")


def progress_printer(name: str, images: int) -> Callable[[int], None]:
    """Says on standard error how far it is, now and then."""
    start = last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > PRINT_EVERY_S and done < images:
            left = (now - start) / done * (images - done)
            print(f"{name}: {done} of {images} images, {left:.0f} s left", file=sys.stderr, flush=True)
            last = now

    return tell


def _notes(network: LoadedNetwork, side: int, fields: dict[str, ReceptiveField]) -> Iterator[str]:
    if network.origin == WeightsOrigin.RANDOM:
        yield f"{RANDOM_FIELDS_NOTE}. Train the network, or give a checkpoint."
    if side < FIELDS_PX and has_published_field(network.spec):
        yield (
            f"the paper's figures are at {FIELDS_PX} px. On small images every field reaches the border, and networks "
            "no longer differ as they do there."
        )
    off = center_offset(network, side)
    if abs(off) > MAX_CENTER_OFFSET * side:
        yield (
            f"the centre of the last map looks {abs(off):g} px {'past' if off > 0 else 'short of'} the image's middle, "
            "around which the squares lie: r is too large."
        )
    for name, field in fields.items():
        yield from (f"{FIELD_DEFINITIONS[name].title}, {output}" for output in _faults(field))


def _faults(field: ReceptiveField) -> Iterator[str]:
    images = field.images + field.skipped
    if field.skipped:
        yield f"{field.skipped} of {images} images left out: their gradient is not finite."
    if field.has_no_gradient:
        yield f"no pixel of {images} images moves the centre, so that there is no field and no r (-)."
    elif field.dead:
        yield f"the centre is dead on {field.dead} of {images} images: none of their pixels moves it."


def center_offset(network: LoadedNetwork, side: int) -> float:
    """Pixels, down and right, from the middle pixel of an image to where the middle of the last map looks.

    A padded convolution of odd side stands on every stride-th pixel from the first on; one that cuts the image into
    patches looks at the middle of each.
    """
    family = FAMILIES[network.spec.family]
    stride = network.spec.stem_stride
    for each in family.strides:
        stride *= each
    last = -(-side // stride) if family.is_padded else side // stride
    return last // 2 * stride + (0 if family.is_padded else (stride - 1) / 2) - side // 2
