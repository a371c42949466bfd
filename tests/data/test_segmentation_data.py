"""Cityscapes and ADE20K as they are distributed, and what is wrong with copies of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from full_scale_cases import CPU
from PIL import Image
from segmentation_cases import segmentation_job, segmentation_recipe, write_ade20k, write_cityscapes

from harness.config.recipes.segmentation import SegmentationAugmentation
from harness.data.batching import BatchPlan
from harness.data.segmentation import (
    SegmentationTrainingSet,
    SegmentationValidationSet,
    augment_segmentation,
    collate_segmentation,
    has_mixed_classes,
    open_segmentation,
    photometric_distortion,
)
from harness.data.segmentation_files import (
    ADE20K_INFO,
    CITYSCAPES_CLASSES,
    CITYSCAPES_LABELS,
    IGNORED,
    Mask,
    SegmentationFiles,
    open_ade20k,
    open_cityscapes,
    read_ade20k_classes,
)
from harness.errors import DataError
from harness.training.tasks.segmentation import SegmentationTask


def mask_of(files: SegmentationFiles, i: int = 0) -> Mask:
    pair = files.pair(i)
    assert pair is not None and pair[0].mode == "RGB"
    return pair[1]


# Layouts


def test_cityscapes_labels_become_its_19_classes(tmp_path: Path) -> None:
    files = open_cityscapes(write_cityscapes(tmp_path), "train", None)
    assert len(files) == 6 and len(CITYSCAPES_CLASSES) == 19 == len(set(CITYSCAPES_LABELS.values()))
    mask = mask_of(files)
    assert set(np.unique(mask)) == {*map(CITYSCAPES_CLASSES.index, ("sky", "road", "car")), IGNORED}
    assert (mask[0] == IGNORED).all() and (mask[-1] == 0).all()


def test_cityscapes_train_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, train=1)
    (labels,) = (root / "gtFine" / "train").rglob("*_labelIds.png")
    plain = np.array([[0, 18], [255, 5]], np.uint8).repeat(12, 0).repeat(24, 1)
    Image.fromarray(plain).save(labels.with_name(labels.name.replace("labelIds", "labelTrainIds")))
    assert (mask_of(open_cityscapes(root, "train", None)) == plain).all()


def test_ade20k_counts_its_classes_from_0_and_ignores_the_rest(tmp_path: Path) -> None:
    files = open_ade20k(write_ade20k(tmp_path), "val", None)
    assert len(files) == 3 and files.pairs[0][0].suffix == ".jpg"
    assert set(np.unique(mask_of(files))) == {0, 149, IGNORED}
    assert read_ade20k_classes(tmp_path)[0] == "class 1"


def test_ade20k_s_own_file_names_its_classes(tmp_path: Path) -> None:
    lines = ["Idx\tRatio\tTrain\tVal\tName", *(f"{i}\t0.1\t1\t1\tthing{i}, other" for i in range(1, 151))]
    (tmp_path / ADE20K_INFO).write_text("\n".join(lines))
    assert read_ade20k_classes(tmp_path)[0] == "thing1" and len(read_ade20k_classes(tmp_path)) == 150
    (tmp_path / ADE20K_INFO).write_text("\n".join(lines[:9]))
    with pytest.raises(DataError, match="must name 150 classes"):
        read_ade20k_classes(tmp_path)


def test_a_smaller_draw_is_part_of_a_larger_one(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path)
    few, more = (open_ade20k(root, "train", size).pairs for size in (2, 4))
    assert len(few) == 2 and set(few) < set(more) and list(more) == sorted(more)
    with pytest.raises(DataError, match=r"`val_size` must be at most the 3 images"):
        open_ade20k(root, "val", 4)


# What is wrong with a copy


def test_a_missing_folder_or_mask_is_an_error_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must hold images"):
        open_cityscapes(tmp_path, "train", None)
    root = write_cityscapes(tmp_path)
    next((root / "gtFine" / "val").rglob("*.png")).unlink()
    with pytest.raises(DataError, match="of 3, 1 have none") as caught:
        open_cityscapes(root, "val", None)
    assert "_leftImg8bit.png" in str(caught.value) and "gtFine" in str(caught.value)
    ade = write_ade20k(tmp_path / "ade")
    for path in (ade / "annotations" / "training").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="of 6, 6 have none"):
        open_ade20k(ade, "train", None)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (Image.new("L", (9, 9)), "must have the size of its image (40x24), but got '9x9'"),
        (Image.new("RGB", (40, 24)), "must have one channel"),
        (Image.new("L", (40, 24), 151), "must be at most 150, or 255, but got 151"),
        (Image.fromarray(np.full((24, 40), 700, np.uint16)), "must be 0 to 255, but got 700"),
    ],
)
def test_a_mask_that_is_not_the_image_s_is_an_error_with_its_name(
    tmp_path: Path, mask: Image.Image, words: str
) -> None:
    root = write_ade20k(tmp_path)
    path = root / "annotations" / "training" / "ADE_training_00000000.png"
    mask.save(path)
    with pytest.raises(DataError) as caught:
        open_ade20k(root, "train", None).pair(0)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_palettes_and_grey_turned_or_cmyk_images_are_read(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path, train=4)
    images, masks = root / "images" / "training", root / "annotations" / "training"
    first = Image.open(masks / "ADE_training_00000000.png")
    values = np.array(first)
    coded = first.convert("P")
    coded.putdata(values.ravel().tolist())
    coded.save(masks / "ADE_training_00000000.png")
    Image.new("L", (39, 25)).save(images / "ADE_training_00000001.jpg")
    Image.new("CMYK", (38, 26)).save(images / "ADE_training_00000002.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (27, 37)).save(images / "ADE_training_00000003.jpg", exif=exif)
    files = open_ade20k(root, "train", None)
    assert (mask_of(files, 0) == np.where(values == 0, IGNORED, values - 1)).all()
    assert [mask_of(files, i).shape for i in (1, 2, 3)] == [(25, 39), (26, 38), (27, 37)]


@pytest.mark.parametrize("loaders", [0, 1])
def test_files_that_cannot_be_read_are_replaced_and_a_wrong_mask_ends_it(tmp_path: Path, loaders: int) -> None:
    root = write_ade20k(tmp_path, train=8)
    torn = root / "images" / "training" / "ADE_training_00000002.jpg"
    torn.write_bytes(torn.read_bytes()[:100])
    (root / "annotations" / "validation" / "ADE_validation_00000001.png").write_bytes(b"no image")
    recipe = segmentation_recipe(
        data={"dataset": "ade20k"}, iterations=2, validate_every=1, schedule={"warmup_steps": 0}
    )
    job = segmentation_job(tmp_path / "run", recipe, root=root, loaders=loaders)
    task = SegmentationTask(job, CPU)
    batch_plan = BatchPlan.of(recipe, task.images, 1)
    batches = task.batches(batch_plan, epoch=1, rank=0, first_step=0)
    assert sum(int(next(batches).passed.sum()) for _ in range(batch_plan.accumulation_steps)) == 1
    model, _ = task.build()
    assert task.validate(model).unreadable == 1
    Image.new("L", (3, 3)).save(root / "annotations" / "training" / "ADE_training_00000003.png")
    # The error is not kept: its traceback would keep the data workers until a garbage collection, which waits for them.
    with pytest.raises(
        DataError, match="must have the size of its image", check=lambda error: "Traceback" not in str(error)
    ):
        for _ in zip(
            range(batch_plan.accumulation_steps), task.batches(batch_plan, epoch=1, rank=0, first_step=0), strict=False
        ):
            pass


# Views


def views(**changes: object) -> SegmentationAugmentation:
    return SegmentationAugmentation.model_validate(
        {"short": 32, "longest": 64, "crop": [16, 24], "flip": 0.0} | changes
    )


def marked(height: int, width: int) -> tuple[Image.Image, Mask]:
    """An image whose red channel is its mask."""
    mask = np.arange(height * width, dtype=np.int64).reshape(height, width) * 7 % 150
    return Image.fromarray(np.stack([mask, mask, mask], 2).astype(np.uint8)), mask.astype(np.uint8)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_image_and_mask_are_cropped_and_mirrored_together(flip: float) -> None:
    picture, mask = marked(32, 48)
    for seed in range(5):
        shown, labels = augment_segmentation(
            picture, mask, views(scales=[1.0, 1.0], flip=flip, distort=False), np.random.default_rng(seed)
        )
        assert shown.size == (24, 16) and (np.asarray(shown)[:, :, 0] == labels).all()
    first = augment_segmentation(
        picture, mask, views(scales=[1.0, 1.0], flip=1.0 - flip, distort=False), np.random.default_rng(4)
    )
    assert (first[1] == labels[:, ::-1]).all()


def test_an_image_is_brought_to_a_scale_between_the_least_and_the_largest() -> None:
    picture, mask = marked(32, 48)
    whole = views(crop=[200, 200], scales=[0.5, 2.0])
    heights = [
        augment_segmentation(picture, mask, whole, np.random.default_rng(seed))[1].shape[0] for seed in range(60)
    ]
    assert min(heights) >= 16 and max(heights) <= 64 and min(heights) < 22 and max(heights) > 54
    shown, labels = augment_segmentation(
        picture, mask, views(crop=[200, 200], scales=[2.0, 2.0]), np.random.default_rng(0)
    )
    assert shown.size == (96, 64) and set(np.unique(labels)) == set(np.unique(mask))  # no class in between


def test_crops_of_nearly_one_class_are_left_for_others() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32, :32] = 1
    picture = Image.fromarray(mask).convert("RGB")
    corner = views(crop=[16, 16], scales=[1.0, 1.0], short=64, most_of_one=0.75)
    mixed = [
        has_mixed_classes(augment_segmentation(picture, mask, corner, np.random.default_rng(i))[1], 0.75)
        for i in range(60)
    ]
    plain = corner.model_copy(update={"most_of_one": 1.0})
    seldom = [
        has_mixed_classes(augment_segmentation(picture, mask, plain, np.random.default_rng(i))[1], 0.75)
        for i in range(60)
    ]
    assert sum(mixed) > 2 * sum(seldom) > 0
    assert not has_mixed_classes(np.full((4, 4), IGNORED, np.uint8), 0.75)


def test_distortion_leaves_the_place_and_changes_the_colour() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8))
    seen = {photometric_distortion(picture, np.random.default_rng(seed)).tobytes() for seed in range(150)}
    assert len(seen) > 100 and picture.tobytes() in seen  # sometimes none of the four is drawn
    assert (
        photometric_distortion(picture, np.random.default_rng(7)).tobytes()
        == photometric_distortion(picture, np.random.default_rng(7)).tobytes()
    )


def test_what_an_image_lacks_is_0_and_ignored(tmp_path: Path) -> None:
    recipe = segmentation_recipe(
        data={"dataset": "ade20k"},
        views={"short": 16, "longest": 64, "scales": [1.0, 1.0], "crop": [40, 64], "flip": 0.0, "distort": False},
    )
    source = open_segmentation(recipe, write_ade20k(tmp_path), tmp_path).train
    item = SegmentationTrainingSet(source, recipe, 3)[1, 0]
    assert item.images.shape == (1, 3, 40, 64) and item.masks.shape == (1, 40, 64)
    assert (item.masks[0, 16:] == IGNORED).all() and (item.masks[0, :, 27:] == IGNORED).all()
    assert (item.images[0, :, 16:] == 0).all() and (item.masks[0, :16, :27] != IGNORED).any()
    batch = collate_segmentation([item, SegmentationTrainingSet(source, recipe, 3)[1, 1]])
    assert batch.images.shape == (2, 3, 40, 64) and batch.passed.tolist() == [0, 0] and batch.faults == []


def test_a_network_for_grey_images_sees_them_in_grey(tmp_path: Path) -> None:
    recipe = segmentation_recipe()
    source = open_segmentation(recipe, None, tmp_path).val
    grey, color = (SegmentationValidationSet(source, recipe, channels)[0].image for channels in (1, 3))
    assert grey is not None and color is not None
    assert grey.shape == (1, 32, 32) and torch.allclose(grey[0], color.mean(0))


@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k"])
def test_a_folder_must_be_given_and_be_there(dataset: str, tmp_path: Path) -> None:
    recipe = segmentation_recipe(data={"dataset": dataset})
    for root, words in ((None, "`--data` must name"), (tmp_path / "no", "`--data` must be an existing")):
        with pytest.raises(DataError, match=words):
            open_segmentation(recipe, root, tmp_path)
