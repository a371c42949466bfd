"""What is known of a recipe's images before they are there: how they must lie in a folder, and how many there are.

The numbers of images are those of the data sets as they are distributed.
"""

from pathlib import Path
from typing import NamedTuple

from harness.config.recipes.full_scale import FullData, ImageData
from harness.data.ade20k import CLASSES as ADE20K_CLASSES
from harness.data.ade20k import LAYOUT as ADE20K_LAYOUT
from harness.data.cifar import LAYOUTS as CIFAR_LAYOUTS
from harness.data.cityscapes import LAYOUT as CITYSCAPES_LAYOUT
from harness.data.cityscapes import NAMES as CITYSCAPES_NAMES
from harness.data.coco import LAYOUT as COCO_LAYOUT
from harness.data.image_folder import LAYOUT as FOLDER_LAYOUT
from harness.data.image_sources import GENERATED


class Expected(NamedTuple):
    """Images that are not there yet."""

    layout: str
    """Of their folder."""
    name: str | None
    """What the data set is called; None for a folder of any images."""
    images: int | None
    """For training; None where neither the recipe nor the name tells."""
    classes: int | None


IMAGENET = {1000: ("ImageNet-1K", 1_281_167), 21_841: ("ImageNet-22K", 14_197_122)}
"""Name and training images, by the number of classes."""
DISTRIBUTED = {
    "cifar10": Expected(f"a folder `{CIFAR_LAYOUTS['cifar10'].folder}` as it is distributed", "CIFAR-10", 50_000, 10),
    "cifar100": Expected(
        f"a folder `{CIFAR_LAYOUTS['cifar100'].folder}` as it is distributed", "CIFAR-100", 50_000, 100
    ),
    "ade20k": Expected(ADE20K_LAYOUT, "ADE20K", 20_210, ADE20K_CLASSES),
    "cityscapes": Expected(CITYSCAPES_LAYOUT, "Cityscapes", 2_975, len(CITYSCAPES_NAMES)),
    "coco": Expected(COCO_LAYOUT, "COCO 2017 without its empty images", 117_266, 80),
}


def is_here(dataset: str, folder: Path | None) -> bool:
    """Whether the images can be looked at: they are generated, or their folder exists."""
    return dataset in GENERATED or (folder is not None and folder.expanduser().is_dir())


def expected_images(data: ImageData, dataset: str) -> Expected:
    """The images of a recipe whose data set is read from a folder."""
    known = DISTRIBUTED.get(dataset) or _folder(data)
    return known if data.train_size is None else known._replace(images=data.train_size)


def _folder(data: ImageData) -> Expected:
    classes = data.classes if isinstance(data, FullData) else None
    name, images = IMAGENET.get(classes or 0, (None, None))
    return Expected(FOLDER_LAYOUT, name, images, classes)
