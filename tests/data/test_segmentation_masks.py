"""Masks that label nothing, and images whose masks may be turned: no mean over nothing, no misaligned mask."""

from pathlib import Path

import numpy as np
import pytest
from full_scale_cases import CPU, full_spec, write_folder
from full_scale_cases import recipe_of as full_recipe
from PIL import Image
from segmentation_cases import segmentation_job, segmentation_recipe, write_ade20k, write_cityscapes

from harness.data.image_sources import open_classification
from harness.data.preprocessing import Preprocessing
from harness.data.segmentation import InMemorySegmentation, open_segmentation
from harness.data.segmentation_files import IGNORED
from harness.errors import DataError
from harness.models.build import build
from harness.report.console import make_console
from harness.report.dense import merged_evaluation_lines, segmentation_view
from harness.report.full_scale import epoch_line
from harness.training.full_scale.messages import FullScaleEpoch, Scores, from_plain, to_plain
from harness.training.metrics.classification import validate_classifier
from harness.training.tasks.dense import MergedEvaluation
from harness.training.tasks.segmentation import SegmentationTask

ADE = segmentation_recipe(data={"dataset": "ade20k"})


def write_masks(root: Path, split: str, values: list[int], which: slice = slice(None)) -> None:
    for path in sorted((root / "annotations" / split).iterdir())[which]:
        with Image.open(path) as image:
            sides = image.size
        mask = np.resize(np.array(values, np.uint8), (sides[1], sides[0]))
        Image.fromarray(mask).save(path)


@pytest.mark.parametrize("split", ["training", "validation"])
@pytest.mark.parametrize("values", [[0, 255], [0], [255]])
def test_masks_that_label_nothing_are_refused_with_file_and_values(
    tmp_path: Path, split: str, values: list[int]
) -> None:
    root = write_ade20k(tmp_path / "ade")
    write_masks(root, split, values)
    named = ", ".join(map(str, values))
    with pytest.raises(DataError, match=rf"must have a class.*ADE_{split}_00000000\.png, whose values are {named}\)"):
        open_segmentation(ADE, root, tmp_path)


def test_a_split_with_one_labelled_mask_is_taken(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path / "ade")
    write_masks(root, "validation", [0], slice(0, 2))
    assert len(open_segmentation(ADE, root, tmp_path).val) == 3


def test_cityscapes_without_a_class_is_refused(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path / "city")
    for path in (root / "gtFine" / "train").rglob("*.png"):
        with Image.open(path) as image:
            Image.new("L", image.size, 3).save(path)
    with pytest.raises(DataError, match="whose values are 3"):
        open_segmentation(segmentation_recipe(data={"dataset": "cityscapes"}), root, tmp_path)


def test_a_validation_that_counts_no_pixel_is_an_error(tmp_path: Path) -> None:
    task = SegmentationTask(segmentation_job(tmp_path / "run"), CPU)
    model, _ = task.build()
    val = task.masked.val
    assert isinstance(val, InMemorySegmentation) and isinstance(val.split.masks, np.ndarray)
    val.split.masks[:] = IGNORED
    with pytest.raises(DataError, match="a pixel of the validation masks at least must have a class"):
        task.validate(model)


@pytest.mark.parametrize("orientation", [6, 8])
def test_an_image_is_taken_in_the_frame_of_its_mask(tmp_path: Path, orientation: int) -> None:
    root = write_ade20k(tmp_path / "ade")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = root / "images" / "training" / "ADE_training_00000000.jpg"
    with Image.open(path) as image:
        stored = image.copy()
    stored.save(path, exif=exif, quality=95)
    pair = open_segmentation(ADE, root, tmp_path).train.pair(0)
    assert pair is not None and pair[0].size == stored.size
    assert np.abs(np.asarray(pair[0], int) - np.asarray(stored, int)).mean() < 5


def test_an_image_whose_turn_its_sides_do_not_tell_is_refused(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path / "ade")
    exif = Image.Exif()
    exif[0x0112] = 3
    path = root / "images" / "training" / "ADE_training_00000000.jpg"
    with Image.open(path) as image:
        stored = image.copy()
    stored.save(path, exif=exif)
    with pytest.raises(DataError, match=r"must not be turned by its EXIF.*orientation 3.*00000000\.jpg"):
        open_segmentation(ADE, root, tmp_path)


def test_masks_of_fractions_are_refused(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path / "ade")
    path = root / "annotations" / "training" / "ADE_training_00000000.png"
    with Image.open(path) as image:
        Image.fromarray(np.asarray(image) / np.float32(7)).save(path, "TIFF")
    with pytest.raises(DataError, match="must be whole numbers"):
        open_segmentation(ADE, root, tmp_path)


def test_the_mean_states_over_how_many_classes_and_images_it_is() -> None:
    metrics = {"miou": 20.0, "pixel_accuracy": 50.0, "mean_accuracy": 40.0}
    metrics |= {"iou_a": 40.0, "accuracy_a": 40.0, "iou_b": 0.0}
    console = make_console()
    with console.capture() as capture:
        console.print(segmentation_view(metrics, ("a", "b", "c")))
    output = " ".join(capture.get().split())
    assert "mIoU 20.00 over 2 of 3 classes" in output
    assert "1 class is predicted and in no mask, and count in mIoU as 0: b" in output
    assert "1 class occurs neither in the masks" in output
    evaluation = MergedEvaluation({}, {}, 0.0, 2, 10)
    lines = merged_evaluation_lines(evaluation, is_compared=False)
    assert lines == ["on 10 validation images; 2 unreadable images left out"]


# --- full scale


def test_scores_are_of_a_number_of_images() -> None:
    val = Scores({"loss": 1.0, "top1": 50.0, "top5": 90.0}, unreadable=3, images=29)
    epoch = FullScaleEpoch(1, 1, 1, 1.0, 0.1, 1.0, 1.0, 1.0, 0.0, 0, 1, val=val)
    assert from_plain(to_plain(epoch)) == epoch
    assert "3 unreadable images not validated on, the scores are of 29 images" in epoch_line(epoch)


def test_a_network_that_saw_no_image_has_no_score() -> None:
    recipe = full_recipe()
    with pytest.raises(DataError, match="one must be readable"):
        validate_classifier(build(full_spec(recipe)), [], Preprocessing.of(recipe), CPU)


def test_a_folder_of_many_bits_is_scaled_alike_in_both_splits(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set")
    for split, factor in (("train", 1), ("val", 16)):
        for path in (root / split).rglob("*.JPEG"):
            Image.fromarray(np.full((20, 20), 200 * factor, np.uint16)).save(path, "PNG")
    pictures = open_classification(full_recipe(data={"dataset": "imagefolder"}), root, tmp_path)
    assert pictures.val is not None
    seen = [images.image_or_failure(0) for images in (pictures.train, pictures.val)]
    assert [np.asarray(image).max() for image in seen if isinstance(image, Image.Image)] == [200 // 16, 200]
    assert "integer values from 200 to 3200" in pictures.notes[0]
