"""Assignment of the classes of images to the classes of a network: by name if both have names, and always reported.

A network's classes are the rows of its classifier. A folder's classes are the names of its subfolders, in any order.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from harness.errors import DataError, first_of

IMAGENET = "imagenet-1k"
IMAGENET_CLASSES = 1000
MAX_NAMED = 3
BY_POSITION = "Use `--labels position` to assign the classes in their order, whatever their names are."


class LabelAssignment(NamedTuple):
    """The network's labels of the classes of some images."""

    labels: tuple[int, ...]
    """For each class of the images, the network's class."""
    about: str
    """How the labels were assigned, to be shown with every result."""


def label_order(names: Sequence[str]) -> list[str]:
    """The names in the order of their labels: sorted as numbers if all are whole numbers, else as text."""
    return sorted(names, key=int) if _are_numbers(names) else sorted(names)


def assign_labels(
    names: Sequence[str], network_classes: Sequence[str] | None, classes: int, place: str
) -> LabelAssignment:
    """Find the network's class for each of the images' classes `names`, in the order of the images' labels.

    `network_classes` are the names of the network's classes, None if they are not known; `classes` is their number.
    Raises `DataError` if both have names and these differ, and if the assignment cannot be determined.
    """
    if network_classes is not None:
        return _by_name(names, network_classes, place)
    synsets = imagenet_synsets() if classes == IMAGENET_CLASSES else ()
    if synsets and set(names) <= set(synsets):
        labels = tuple(synsets.index(name) for name in names)
        about = f"by name, as synsets of ImageNet-1K in their usual order: {_share(names, classes)}"
        return LabelAssignment(labels, f"{about}; the weights do not name their classes")
    return assign_by_position(names, classes, place, "the weights do not name their classes")


def assign_by_position(names: Sequence[str], classes: int, place: str, why: str) -> LabelAssignment:
    """Assign the n-th class of the images to the network's n-th. Raises `DataError` if their numbers differ."""
    if len(names) != classes:
        rule = f"the images must be of the {classes:,} classes that the network tells apart"
        remedy = "Use the data set that it was trained for, or a network for these classes."
        raise DataError(rule, value=len(names), place=place, remedy=remedy)
    first, last = (f"`{name[:40]}`" for name in (names[0], names[-1]))
    order = ", as numbers," if _are_numbers(names) else ""
    about = f"by position, in order{order} from {first} to {last}: {why}"
    return LabelAssignment(tuple(range(classes)), about)


def imagenet_synsets() -> tuple[str, ...]:
    """The synsets of ImageNet-1K's classes, as `n01440764`, in the order of the labels."""
    from timm.data import ImageNetInfo

    info: Any = ImageNetInfo(IMAGENET)
    return tuple(info.label_names())


def class_differences(names: Sequence[str], expected: Sequence[str]) -> str:
    """A text on which of the `names` are not among the `expected`, and which of these are missing."""
    extra = [name for name in names if name not in set(expected)]
    missing = [name for name in expected if name not in set(names)]
    parts = [f"{len(extra):,} unknown ({_first(extra)})"] if extra else []
    return "; ".join([*parts, *([f"{len(missing):,} missing ({_first(missing)})"] if missing else [])])


def _by_name(names: Sequence[str], network_classes: Sequence[str], place: str) -> LabelAssignment:
    if len(set(network_classes)) < len(network_classes):
        if tuple(names) == tuple(network_classes):
            return LabelAssignment(
                tuple(range(len(network_classes))),
                f"by position, where all names agree: {len(network_classes):,} classes",
            )
        raise DataError("the network's classes must have different names", value=_first(network_classes), place=place)
    index = {name: label for label, name in enumerate(network_classes)}
    if set(names) <= set(index):
        return LabelAssignment(tuple(index[name] for name in names), f"by name: {_share(names, len(network_classes))}")
    if _are_numbers(names) and _are_numbers(network_classes):
        numbers = {int(name): label for name, label in index.items()}
        if {int(name) for name in names} <= set(numbers):
            labels = tuple(numbers[int(name)] for name in names)
            return LabelAssignment(labels, f"by number: {_share(names, len(network_classes))}")
    rule = f"the classes of the images must be among those of the network: {_first(network_classes)}"
    remedy = f"Rename the folders of the images as the classes were called in the training. {BY_POSITION}"
    raise DataError(rule, value=class_differences(names, network_classes), place=place, remedy=remedy)


def _share(names: Sequence[str], classes: int) -> str:
    if len(names) == classes:
        return f"{len(names):,} of {classes:,} classes"
    return f"{len(names):,} of {classes:,} classes have images, and answers are among all {classes:,}"


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether all names are different whole numbers."""
    are_whole = all(name.isascii() and name.isdigit() for name in names)
    return are_whole and len({int(name) for name in names}) == len(names)


def _first(names: Sequence[str]) -> str:
    return first_of([f"`{name[:40]}`" for name in names], MAX_NAMED)
