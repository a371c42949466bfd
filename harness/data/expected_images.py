"""Expected layout and number of a recipe's images, for a data set that is not present yet.

The numbers of images are those of the data sets as they are distributed.
"""

from pathlib import Path
from typing import NamedTuple

from harness.config.recipes.full_scale import ClassificationDataConfig, ImageDataConfig
from harness.data import DATASETS
from harness.data.coco import COCO_LAYOUT
from harness.data.image_folder import IMAGE_FOLDER_LAYOUT
from harness.data.image_sources import GENERATED_DATASETS
from harness.data.segmentation_files import ADE20K_CLASSES, ADE20K_LAYOUT, CITYSCAPES_CLASSES, CITYSCAPES_LAYOUT


class ExpectedImages(NamedTuple):
    """The expected images of a recipe."""

    layout: str
    """Layout of the folder."""
    name: str | None
    """Name of the data set; None for a folder of any images."""
    images: int | None
    """Number of training images; None if neither the recipe nor the name determines it."""
    classes: int | None


IMAGENET_SIZES = {1000: ("ImageNet-1K", 1_281_167), 21_841: ("ImageNet-22K", 14_197_122)}
"""Name and number of training images, by the number of classes."""
EXPECTED_BY_DATASET = {
    **{
        name: ExpectedImages(
            distributed.layout, distributed.title, source.sizes and source.sizes[0], distributed.classes
        )
        for name, source in DATASETS.items()
        if (distributed := source.distributed) is not None
    },
    "ade20k": ExpectedImages(ADE20K_LAYOUT, "ADE20K", 20_210, ADE20K_CLASSES),
    "cityscapes": ExpectedImages(CITYSCAPES_LAYOUT, "Cityscapes", 2_975, len(CITYSCAPES_CLASSES)),
    "coco": ExpectedImages(COCO_LAYOUT, "COCO 2017 without its empty images", 117_266, 80),
}


def is_data_present(dataset: str, folder: Path | None) -> bool:
    """Whether the images can be read: they are generated, or their folder exists."""
    return dataset in GENERATED_DATASETS or (folder is not None and folder.expanduser().is_dir())


def expected_images(data: ImageDataConfig, dataset: str) -> ExpectedImages:
    """The images of a recipe whose data set is read from a folder."""
    expected = EXPECTED_BY_DATASET.get(dataset)
    if expected is None:
        classes = data.classes if isinstance(data, ClassificationDataConfig) else None
        name, images = IMAGENET_SIZES.get(classes or 0, (None, None))
        expected = ExpectedImages(IMAGE_FOLDER_LAYOUT, name, images, classes)
    return expected if data.train_size is None else expected._replace(images=data.train_size)
