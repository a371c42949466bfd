"""The verb `erf`: the effective receptive fields of networks, side by side."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from harness.errors import UserError
from harness.measures.erf_images import Images, images_for
from harness.measures.receptive_field import DEFINITIONS, Field, larger, receptive_fields
from harness.models.cost import network_parts
from harness.models.finite import describe_fault
from harness.models.spec.family import FAMILIES
from harness.models.spec.published import FIELDS_PX, RANDOM_FIELDS, has_published_field, resolutions
from harness.storage.load_network import Origin, Subject
from harness.system.device_slot import computing
from harness.training.device import process_environment
from harness.training.environment import Environment

SMALLEST, LARGEST = 8, 4096
"""Sides of images, as in a recipe."""
TOLD_EVERY_S = 10.0
ASKEW = 0.02
"""Share of an image's side by which a centre may look beside the middle without a word."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A network and its fields."""

    subject: Subject
    side: int
    """Of the images, in pixels."""
    about: str
    """The images, in words."""
    fields: dict[str, Field]
    """By definition."""
    notes: tuple[str, ...]
    """What must be known to read them."""
    computed_by: Environment | None = None


def see(
    subjects: Sequence[Subject], *, images: int, resolution: int | None = None, data: str | None = None
) -> Iterator[Seen]:
    """Each network's fields. One that no run trained is shown what the first run's network is shown."""
    lender = next((subject for subject in subjects if subject.recipe), None)
    plans = [(subject, subject if subject.recipe else lender) for subject in subjects]
    sides = [_side(subject, shown, resolution) for subject, shown in plans]
    for (subject, shown), side in zip(plans, sides, strict=True):
        found = images_for(subject.spec, data, shown, count=images, side=side)
        fields = _fields(subject, found, teller(subject.name, len(found.pixels)))
        _require_images(subject, found, fields)
        notes = (*found.notes, *_notes(subject, side, fields))
        device = next(subject.model.parameters()).device
        yield Seen(subject, side, found.about, fields, notes, process_environment(device))


def _side(subject: Subject, shown: Subject | None, resolution: int | None) -> int:
    """The side of its images: as given, or as the measure has it for a side of training or of published figures."""
    learned = shown.recipe.resolution if shown and shown.recipe else resolutions(subject.spec)[0]
    side = larger(learned) if resolution is None else resolution
    if not SMALLEST <= side <= LARGEST:
        raise UserError(
            f"`--resolution` must be from {SMALLEST} to {LARGEST}", value=side, remedy=f"The paper's is {FIELDS_PX}."
        )
    network_parts(subject.spec, side)  # raises for images of which the last map has nothing
    return side


def _fields(subject: Subject, images: Images, tell: Callable[[int], None]) -> dict[str, Field]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with computing(device):
            return receptive_fields(subject.model.to(device), images.pixels, tell=tell)
    except torch.OutOfMemoryError as error:
        side = images.pixels.shape[-1]
        raise UserError(
            "the device must have room for the gradient of one image",
            value=f"{subject.name} at {side} px",
            remedy="Give a smaller `--resolution`.",
        ) from error


def _require_images(subject: Subject, images: Images, fields: dict[str, Field]) -> None:
    """Raise `UserError` where no image has a finite gradient, which is no field that is zero."""
    if any(field.images == 0 and field.skipped for field in fields.values()):
        device = next(subject.model.parameters()).device
        what = "the gradients of all images are NaN or infinite, and so there is no field: they"
        with torch.no_grad():
            fault = describe_fault(subject.model, images.pixels[:1].to(device), what)
        raise UserError(fault, place=subject.name, remedy="Take the weights of an earlier epoch, or train again.")


def teller(name: str, images: int) -> Callable[[int], None]:
    """Says on standard error how far it is, now and then."""
    start = last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > TOLD_EVERY_S and done < images:
            left = (now - start) / done * (images - done)
            print(f"{name}: {done} of {images} images, {left:.0f} s left", file=sys.stderr, flush=True)
            last = now

    return tell


def _notes(subject: Subject, side: int, fields: dict[str, Field]) -> Iterator[str]:
    if subject.origin == Origin.RANDOM:
        yield f"{RANDOM_FIELDS}. Train the network, or give a checkpoint."
    if side < FIELDS_PX and has_published_field(subject.spec):
        yield (
            f"the paper's figures are at {FIELDS_PX} px. On small images every field reaches the border, and networks "
            "no longer differ as they do there."
        )
    off = beside(subject, side)
    if abs(off) > ASKEW * side:
        yield (
            f"the centre of the last map looks {abs(off):g} px {'past' if off > 0 else 'short of'} the image's middle, "
            "around which the squares lie: r is too large."
        )
    for name, field in fields.items():
        yield from (f"{DEFINITIONS[name].title}, {said}" for said in _faults(field))


def _faults(field: Field) -> Iterator[str]:
    images = field.images + field.skipped
    if field.skipped:
        yield f"{field.skipped} of {images} images left out: their gradient is not finite."
    if field.is_dead:
        yield f"no pixel of {images} images moves the centre, so that there is no field and no r (-)."
    elif field.dead:
        yield f"the centre is dead on {field.dead} of {images} images: none of their pixels moves it."


def beside(subject: Subject, side: int) -> float:
    """Pixels, down and right, from the middle pixel of an image to where the middle of the last map looks.

    A padded convolution of odd side stands on every stride-th pixel from the first on; one that cuts the image into
    patches looks at the middle of each.
    """
    family = FAMILIES[subject.spec.family]
    stride = subject.spec.stem_stride
    for each in family.strides:
        stride *= each
    last = -(-side // stride) if family.is_padded else side // stride
    return last // 2 * stride + (0 if family.is_padded else (stride - 1) / 2) - side // 2
