"""Faults of data are refused by `train` and `downstream` before anything is trained or written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cifar_folders import write_cifar10
from coco_folders import write_coco
from full_scale_cases import RECIPE
from full_scale_cases import write_folder as write_pictures
from PIL import Image
from preflight_cases import nothing, require_refused
from segmentation_cases import SEGMENTATION, write_ade20k
from tiny_studies import called, files_of

SPEC = {"B": 1, "C": [4, 4, 8, 8], "K": 3, "stem_stride": 2}
PICTURES = RECIPE | {"data": {"dataset": "imagefolder"}, "batch_size": 8}
PIXELS = SEGMENTATION | {"data": {"dataset": "ade20k"}, "batch_size": 4, "ema": None}
BOXES = {
    "about": "a test",
    "task": "detection",
    "data": {"dataset": "coco"},
    "detector": {"name": "fcos", "channels": 64, "finest": 4},
    "epochs": 1,
    "batch_size": 4,
    "micro_batch": 4,
    "views": {"flip": 0.5, "short": [32], "longest": 48},
    "evaluation": {"short": 32, "longest": 48, "batch_size": 4},
    "optimizer": {"lr": 0.001},
    "schedule": {"name": "cosine", "warmup_steps": 1, "warmup": "linear", "warmup_start": 0.1},
}


def cut(folder: Path) -> None:
    for path in folder.rglob("*.[jpJ][pnP]*[gG]"):
        path.write_bytes(path.read_bytes()[:70])


def flatten(folder: Path) -> None:
    for path in folder.rglob("*.[jpJ][pnP]*[gG]"):
        with Image.open(path) as image:
            flat = Image.new("RGB", image.size, (5, 5, 5))
        flat.save(path)


def mask_of(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = sorted((root / "annotations" / "validation").iterdir())[-1]
    with Image.open(path) as image:
        mask = np.array(image)
    Image.fromarray(change(mask)).save(path)


CIFAR = PICTURES | {"data": {"dataset": "cifar10", "train_size": 16, "val_size": 8}}


def write_batches(root: Path) -> None:
    root.mkdir()
    write_cifar10(root)


def empty_batch(root: Path) -> None:
    (root / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"")


FULL: list[tuple[str, tuple[str, ...], dict[str, Any], Callable[[Path], Any], Callable[[Path], None], str]] = [
    (
        "train, damaged val",
        ("train",),
        PICTURES,
        write_pictures,
        lambda root: cut(root / "val"),
        "10 % of the validation images",
    ),
    ("train, damaged", ("train",), PICTURES, write_pictures, lambda root: cut(root / "train"), "training images"),
    (
        "train, constant",
        ("train",),
        PICTURES,
        write_pictures,
        lambda root: flatten(root / "train"),
        "more than one value",
    ),
    (
        "train, a class alone",
        ("train",),
        PICTURES,
        lambda root: write_pictures(root, classes=1),
        nothing,
        "two classes at least",
    ),
    (
        "train, size",
        ("train",),
        PICTURES | {"data": {"dataset": "imagefolder", "val_size": 999}},
        write_pictures,
        nothing,
        "val_size` must be at most",
    ),
    (
        "train, a batch of CIFAR",
        ("train",),
        CIFAR,
        write_batches,
        empty_batch,
        "`data_batch_2`",
    ),
    (
        "segment, damaged",
        ("downstream", "segment"),
        PIXELS,
        write_ade20k,
        lambda root: cut(root / "images" / "validation"),
        "10 % of the validation images",
    ),
    (
        "segment, constant",
        ("downstream", "segment"),
        PIXELS,
        write_ade20k,
        lambda root: flatten(root / "images" / "training"),
        "more than one value",
    ),
    (
        "segment, another size",
        ("downstream", "segment"),
        PIXELS,
        write_ade20k,
        lambda root: mask_of(root, lambda mask: mask[1:]),
        "a mask must have the size of its image",
    ),
    (
        "segment, no class",
        ("downstream", "segment"),
        PIXELS,
        write_ade20k,
        lambda root: mask_of(root, lambda mask: np.where(mask == 150, 151, mask).astype(np.uint8)),
        "the values of a mask must be at most 150",
    ),
    (
        "detect, damaged",
        ("downstream", "detect"),
        BOXES,
        write_coco,
        lambda root: cut(root / "val2017"),
        "10 % of the validation images",
    ),
    (
        "detect, constant",
        ("downstream", "detect"),
        BOXES,
        write_coco,
        lambda root: flatten(root / "train2017"),
        "more than one value",
    ),
]


@pytest.mark.parametrize("flags", [["--dry-run"], []], ids=["dry run", "run"])
@pytest.mark.parametrize(
    ("verb", "recipe", "write", "fault", "words"), [case[1:] for case in FULL], ids=[case[0] for case in FULL]
)
def test_a_training_at_full_scale_is_refused_with_nothing_written(
    tmp_path: Path,
    verb: tuple[str, ...],
    recipe: dict[str, Any],
    write: Callable[[Path], Any],
    fault: Callable[[Path], None],
    words: str,
    flags: list[str],
) -> None:
    write(tmp_path / "set")
    fault(tmp_path / "set")
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(SPEC))
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump({key: value for key, value in recipe.items() if value is not None})
    )
    before = files_of(tmp_path)
    options = ("--recipe", "recipe.yaml", "--data", "set", "--loaders", "0", *flags)
    require_refused(called(*verb, "net.yaml", *options, cwd=tmp_path), tmp_path, before, words)


def test_a_few_images_of_cifar_are_enough_at_full_scale(tmp_path: Path) -> None:
    write_batches(tmp_path / "set")
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(SPEC))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(CIFAR))
    options = ("net.yaml", "--recipe", "recipe.yaml", "--data", "set", "--loaders", "0", "--dry-run")
    result = called("train", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "images: looked at all 16 training images and all 8 validation images" in result.stdout


def test_a_training_that_has_begun_is_resumed_without_another_look(tmp_path: Path) -> None:
    write_pictures(tmp_path / "set")
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(SPEC))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(PICTURES))
    options = ("net.yaml", "--recipe", "recipe.yaml", "--data", "set", "--loaders", "0")
    results = [called("train", *options, cwd=tmp_path) for _ in range(2)]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    assert ["images: looked at all" in result.stdout for result in results] == [True, False]
