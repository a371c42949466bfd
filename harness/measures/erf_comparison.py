"""The command `erf`: the effective receptive fields of several networks, and the images they are computed on.

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
from harness.training.device import find_device, process_environment
from harness.training.environment import Environment

SHAPES_OPTION = "shapes"
STATISTICS = 64
"""Number of training images of `shapes` for mean and standard deviation where there is no run."""
SMALLEST, LARGEST = 8, 4096
"""Sides of images, as in a recipe."""
PRINT_EVERY_S = 10.0
MAX_CENTER_OFFSET = 0.02
"""Fraction of an image's side by which the center of the field may be off without a note."""


@dataclass(frozen=True, slots=True, eq=False)
class ErfImages:
    """The images on which a network's fields are computed."""

    pixels: Tensor
    """(n, C, H, W)."""
    about: str
    """A description of the images."""
    notes: tuple[str, ...]


@computing()
def erf_images(spec: NetworkSpec, data: str | None, shown: LoadedNetwork | None, *, count: int, side: int) -> ErfImages:
    """At most `count` images, resized to `side`, balanced over the classes.

    `data` is `shapes`, a folder, or None: the validation images of the run of `shown`, or `shapes` if there is none.
    Raises `UserError` if the images are missing or do not suit the network.
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
    """Generate `count` validation images; for a larger count, the first ones are the same."""
    train, val = make(recipe, "train", STATISTICS), make(recipe, "val", count)
    mean, std = statistics(train.images)
    return Dataset(describe(recipe), train, val, mean, std)


def _recipe_text(recipe: ProxyRecipe) -> str:
    if recipe.dataset != SHAPES_OPTION:
        return f"validation images of {recipe.dataset}"
    return f"validation images of shapes, {recipe.rendering}, difficulty {recipe.difficulty:g}"


def _to_network_channels(pixels: Tensor, spec: NetworkSpec, about: str) -> Tensor:
    """Repeat gray images on all channels of the network; other images must have its number of channels."""
    channels = pixels.shape[1]
    if channels not in (1, spec.in_channels):
        raise UserError(
            f"the images must have the {spec.in_channels} channel{'s' * (spec.in_channels > 1)} of the network",
            value=f"{channels} channels",
            place=about,
            remedy="Give `--data shapes`, or leave it out for the data set of a run.",
        )
    return pixels.expand(-1, spec.in_channels, -1, -1)


@dataclass(frozen=True, slots=True, eq=False)
class FieldResult:
    """A network and its fields."""

    subject: LoadedNetwork
    side: int
    """Side of the images, in pixels."""
    about: str
    """A description of the images."""
    fields: dict[str, ReceptiveField]
    """Fields by name of their definition (`FIELD_DEFINITIONS`)."""
    notes: tuple[str, ...]
    """Caveats for the reader of the fields."""
    computed_by: Environment | None = None


def compare_fields(
    subjects: Sequence[LoadedNetwork], *, images: int, resolution: int | None = None, data: str | None = None
) -> Iterator[FieldResult]:
    """Each network's fields. Networks without a run use the images of the first network that has one."""
    lender = next((network for network in subjects if network.recipe), None)
    plans = [(network, network if network.recipe else lender) for network in subjects]
    sides = [_side(network, shown, resolution) for network, shown in plans]
    for (network, shown), side in zip(plans, sides, strict=True):
        inputs = erf_images(network.spec, data, shown, count=images, side=side)
        fields = _fields(network, inputs, progress_printer(network.name, len(inputs.pixels)))
        _require_images(network, inputs, fields)
        notes = (*inputs.notes, *_notes(network, side, fields))
        device = next(network.model.parameters()).device
        yield FieldResult(network, side, inputs.about, fields, notes, process_environment(device))


def _side(network: LoadedNetwork, shown: LoadedNetwork | None, resolution: int | None) -> int:
    """The side of its images: as given, else `erf_resolution` of the training or the published resolution."""
    learned = shown.recipe.resolution if shown and shown.recipe else resolutions(network.spec)[0]
    side = erf_resolution(learned) if resolution is None else resolution
    if not SMALLEST <= side <= LARGEST:
        raise UserError(
            f"`--resolution` must be from {SMALLEST} to {LARGEST}", value=side, remedy=f"The paper's is {FIELDS_PX}."
        )
    network_parts(network.spec, side)  # raises for images that leave no pixel on the last map
    return side


def _fields(network: LoadedNetwork, images: ErfImages, tell: Callable[[int], None]) -> dict[str, ReceptiveField]:
    device = find_device()
    try:
        with computing(device):
            return receptive_fields(network.model.to(device), images.pixels, tell=tell)
    except torch.OutOfMemoryError as error:
        side = images.pixels.shape[-1]
        rule = "the device must have memory for the gradient of one image"
        remedy = "Give a smaller `--resolution`."
        raise UserError(rule, value=f"{network.name} at {side} px", remedy=remedy) from error


def _require_images(network: LoadedNetwork, images: ErfImages, fields: dict[str, ReceptiveField]) -> None:
    """Raise `UserError` if no image has a finite gradient; that is not the same as a field of zeros."""
    if any(field.images == 0 and field.skipped for field in fields.values()):
        device = next(network.model.parameters()).device
        subject = "the gradients of all images are NaN or infinite, and so there is no field: they"
        with torch.no_grad():
            fault = describe_fault(network.model, images.pixels[:1].to(device), subject)
        raise UserError(fault, place=network.name, remedy="Take the weights of an earlier epoch, or train again.")


def progress_printer(name: str, images: int) -> Callable[[int], None]:
    """A callback that prints the progress to standard error, at most every PRINT_EVERY_S seconds."""
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
            f"the paper's values are at {FIELDS_PX} px. On smaller images every field reaches the border, and networks "
            "differ less."
        )
    off = center_offset(network, side)
    if abs(off) > MAX_CENTER_OFFSET * side:
        yield (
            f"the center of the last map is {abs(off):g} px {'past' if off > 0 else 'before'} the image's center, "
            "on which the squares are centered: r is too large."
        )
    for name, field in fields.items():
        yield from (f"{FIELD_DEFINITIONS[name].title}, {output}" for output in _faults(field))


def _faults(field: ReceptiveField) -> Iterator[str]:
    images = field.images + field.skipped
    if field.skipped:
        yield f"{field.skipped} of {images} images left out: their gradient is not finite."
    if field.has_no_gradient:
        yield f"no pixel of {images} images changes the center, so there is no field and no r (-)."
    elif field.dead:
        yield f"the center is dead on {field.dead} of {images} images: none of their pixels changes it."


def center_offset(network: LoadedNetwork, side: int) -> float:
    """Offset in pixels (down and right) of the last map's center in the image from the image's center pixel.

    A padded convolution of odd side is centered on every stride-th pixel, beginning with the first; one that divides
    the image into patches is centered on each patch.
    """
    family = FAMILIES[network.spec.family]
    stride = network.spec.stem_stride
    for stage_stride in family.strides:
        stride *= stage_stride
    last = -(-side // stride) if family.is_padded else side // stride
    return last // 2 * stride + (0 if family.is_padded else (stride - 1) / 2) - side // 2
