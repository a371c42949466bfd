"""A detector trained at full scale: start to finish, stopped and resumed, on `shapes` and on COCO's format."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_folders import CATEGORIES, annotation_entry, image_entry, read_json, write_coco, write_json
from detection_cases import CPU, DETECTORS, job_of, recipe_of
from full_scale_cases import epochs_of, outcome, trained

from harness.config.recipes.detection import DetectionRecipe, DetectorConfig
from harness.data.batching import BatchPlan
from harness.data.detection import DetectionTrainingSet, DetectionValidationSet, collate_detection, open_detection
from harness.data.loading import MAX_UNREADABLE_IN_A_ROW
from harness.errors import DataError, Stopped
from harness.training.full_scale.messages import Message
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.full_scale.worker import run_worker
from harness.training.tasks.detection import DetectionTask


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long if i else ()) for i, kind in enumerate(DETECTORS)]
)
def test_a_detector_trains_from_start_to_finish(tmp_path: Path, kind: str) -> None:
    job = job_of(tmp_path / "run", recipe_of(kind, epochs=1))
    (epoch,) = epochs_of(trained(job))
    assert np.isfinite(epoch.train_loss) and epoch.val is not None and epoch.ema is not None
    names = {"ap", "ap50", "ap75"} | (set() if kind == "fcos" else {"mask_ap", "mask_ap50", "mask_ap75"})
    assert set(epoch.val.metrics) == names and epoch.val.main == "ap"
    assert all(0 <= share <= 100 for share in epoch.val.metrics.values())
    assert job.best.is_file() and (job.folder / "last.safetensors").is_file()


@pytest.mark.parametrize("kind", ["fcos", pytest.param("cascade_mask_rcnn", marks=pytest.mark.long)])
def test_a_stopped_training_resumes_bitwise(tmp_path: Path, kind: str) -> None:
    whole = trained(job_of(tmp_path / "whole", recipe_of(kind)))
    job = job_of(tmp_path / "parts", recipe_of(kind))
    calls = itertools.count()
    with pytest.raises(Stopped):
        list(run_worker(job, CPU, should_stop=lambda: next(calls) == 3))
    resumed = trained(job)
    assert any("resuming in epoch 2 after 1 steps" in record.text for record in resumed if isinstance(record, Message))
    assert outcome(epochs_of(resumed)) == outcome(epochs_of(whole)[1:])


@pytest.mark.long
def test_processes_that_read_images_change_nothing(tmp_path: Path) -> None:
    recipe = recipe_of("mask_rcnn", epochs=1)
    alone, helped = (trained(job_of(tmp_path / str(n), recipe, loaders=n)) for n in (0, 1))
    assert outcome(epochs_of(alone)) == outcome(epochs_of(helped))


def test_workers_share_the_validation_images(tmp_path: Path) -> None:
    task = DetectionTask(job_of(tmp_path / "run"), CPU)
    model, _ = task.build()
    whole = [i for i, _ in task._predict(model)]
    parts = []
    for rank in range(3):
        task.team = ProcessGroup(torch.device("cpu"), rank, 3)
        parts += [i for i, _ in task._predict(model)]
    assert sorted(whole) == sorted(parts) == list(range(8))


# COCO's format


def coco(kind: str = "fcos", **data: Any) -> DetectionRecipe:
    return recipe_of(kind, epochs=1, data={"dataset": "coco"} | data)


@pytest.mark.parametrize("kind", ["fcos", "mask_rcnn"])
def test_a_folder_in_cocos_format_is_learnt(tmp_path: Path, kind: str) -> None:
    root = write_coco(tmp_path / "coco", train=6, val=3)
    (epoch,) = epochs_of(trained(job_of(tmp_path / "run", coco(kind), root=root)))
    assert epoch.val is not None and epoch.val.unreadable == 0 and epoch.unreadable == 0


def test_images_that_cannot_be_read_are_replaced_in_training_and_left_out_in_validation(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", train=6, val=3)
    for split in ("train2017", "val2017"):
        (root / split / f"{1:012d}.png").write_bytes(b"no image")
    (epoch,) = epochs_of(trained(job_of(tmp_path / "run", coco(), root=root)))
    assert epoch.val is not None and epoch.val.unreadable == 1
    items = DetectionTrainingSet(open_detection(coco(), root, tmp_path).train, coco(), 3)
    assert [items[1, i][2] for i in range(6)] == [0, 1, 0, 0, 0, 0]
    val = DetectionValidationSet(open_detection(coco(), root, tmp_path).val, coco(), 3)
    assert [val[i][1] is None for i in range(3)] == [False, True, False]


def test_a_folder_without_a_readable_image_ends_the_training(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", train=6, val=3)
    for path in (root / "train2017").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=f"of {MAX_UNREADABLE_IN_A_ROW} training images in a row, one must be readable"):
        trained(job_of(tmp_path / "run", coco(), root=root))


def test_training_images_without_a_figure_are_left_out_unless_wanted(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", train=4, val=2)
    content = read_json(root)
    write_json(root, "train2017", content | {"annotations": content["annotations"][:3]})
    chosen = open_detection(coco(), root, tmp_path)
    assert len(chosen.train) == 3 and chosen.notes == ("train: images without objects, left out: 1",)
    kept = open_detection(coco(keep_empty=True), root, tmp_path)
    assert len(kept.train) == 4 and kept.notes == ()
    _, target, _ = DetectionTrainingSet(kept.train, coco(), 1)[1, 3]
    assert target["boxes"].shape == (0, 4)


def test_subsets_are_random_and_the_same_every_time(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", train=8, val=4)
    one, other = (open_detection(coco(train_size=5, val_size=2), root, tmp_path) for _ in range(2))
    assert len(one.train) == 5 and len(one.val) == 2
    assert one.train.indices == other.train.indices  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"`train_size` must be at most the 8 images"):
        open_detection(coco(train_size=9), root, tmp_path)


def test_what_cannot_be_detected_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`--data` must name the folder"):
        open_detection(coco(), None, tmp_path)
    root = write_coco(tmp_path / "coco", train=4, val=2)
    content = read_json(root, "val2017")
    write_json(root, "val2017", content | {"categories": [*CATEGORIES, {"id": 99, "name": "blue"}]})
    with pytest.raises(DataError, match="`categories` must be the same"):
        open_detection(coco(), root, tmp_path)
    write_json(root, "val2017", content | {"annotations": []})
    with pytest.raises(DataError, match="at least one image must have an object"):
        open_detection(coco(), root, tmp_path)


def test_crowds_are_not_learnt_and_are_judged_as_crowds(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", train=2, val=2)
    crowd = annotation_entry(0, [1, 1, 30, 30], 3, iscrowd=1)
    for split in ("train2017", "val2017"):
        content = read_json(root, split)
        write_json(root, split, content | {"annotations": [*content["annotations"], crowd]})
    data = open_detection(coco(), root, tmp_path)
    _, target, _ = DetectionTrainingSet(data.train, coco(), 3)[1, 0]
    assert len(target["labels"]) == 1
    assert sorted(data.val.instances(0).is_crowd.tolist()) == [False, True]


def test_images_of_a_pixel_are_shown(tmp_path: Path) -> None:
    from PIL import Image

    root = write_coco(tmp_path / "coco", train=2, val=2)
    Image.new("RGB", (1, 1)).save(root / "train2017" / f"{0:012d}.png")
    content = read_json(root)
    one = annotation_entry(0, [0, 0, 1, 1], 3)
    write_json(
        root,
        "train2017",
        content | {"images": [image_entry(0, width=1, height=1), image_entry(1)], "annotations": [one]},
    )
    recipe = coco("mask_rcnn", keep_empty=True)
    items = DetectionTrainingSet(open_detection(recipe, root, tmp_path).train, recipe, 3)
    batch = collate_detection([items[1, 0], items[1, 1]])
    task = DetectionTask(job_of(tmp_path / "run", recipe, root=root), CPU)
    model, _ = task.build()
    assert task.loss(model, batch, (1, 0, 0)).isfinite()


# The recipe


def test_plans_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="`channels` must be a multiple of 64"):
        DetectorConfig(name="fcos", channels=32)
    with pytest.raises(ValueError, match="warmup_epochs` must be below `epochs`"):
        recipe_of(schedule={})
    assert not DetectorConfig(name="fcos").has_mask_head and DetectorConfig(name="mask_rcnn").has_mask_head


def test_batches_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    recipe = recipe_of("mask_rcnn")
    task = DetectionTask(job_of(tmp_path / "run", recipe), CPU)
    seen = []
    for workers in (1, 2):
        batch_plan = BatchPlan.of(recipe, task.images, workers)
        streams = [task.batches(batch_plan, epoch=1, rank=rank, first_step=0) for rank in range(workers)]
        batches = [
            list(itertools.islice(stream, batch_plan.steps * batch_plan.accumulation_steps)) for stream in streams
        ]
        seen.append([image.sum().item() for step in zip(*batches, strict=True) for batch in step for image in batch[0]])
    assert sorted(seen[0]) == sorted(seen[1]) and len(seen[0]) == 8
