"""Average precision of boxes and masks: by hand, and against torchmetrics."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from harness.data.detection_annotations import Instances, decode_rle, encode_rle
from harness.training.metrics.detection import AP_METRICS, Detections, detection_metrics

NAMES = ("a", "b", "c")
SIDE = 160


def figures(boxes: list[list[float]], labels: list[int], **changes: Any) -> Instances:
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    areas = (rows[:, 2:] - rows[:, :2]).prod(axis=1)
    fields = {"areas": areas, "is_crowd": np.zeros(len(rows), bool)} | changes
    return Instances(rows, np.array(labels, np.int64), **fields)


def detections_of(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Detections:
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(rows, np.array(labels, np.int64), np.array(scores, np.float32))


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong() -> None:
    one, crowd, inside = [0.0, 0, 10, 10], [20.0, 20, 80, 80], [30.0, 30, 40, 40]
    instances = figures([one, crowd], [0, 0], is_crowd=np.array([False, True]))
    detections = detections_of([inside, one], [0, 0], [0.9, 0.8])
    assert dict(detection_metrics([detections], [instances], NAMES))["ap"] == pytest.approx(100)
    alone = dict(detection_metrics([detections], [figures([one], [0])], NAMES))
    assert alone["ap"] == pytest.approx(50)


def test_sizes_go_by_the_area_of_the_figure_and_not_of_its_box() -> None:
    box = [0.0, 0, 100, 100]
    seen = [detections_of([box], [0], [0.9])]
    thin = dict(detection_metrics(seen, [figures([box], [0], areas=np.array([1000.0], np.float32))], NAMES))
    whole = dict(detection_metrics(seen, [figures([box], [0])], NAMES))
    assert "ap_small" in thin and "ap_large" not in thin
    assert "ap_large" in whole and "ap_small" not in whole


def test_classes_and_sizes_that_are_not_there_have_no_figure() -> None:
    seen = dict(detection_metrics([detections_of([], [], [])], [figures([[0.0, 0, 10, 10]], [1])], NAMES))
    assert seen == {"ap": 0, "ap50": 0, "ap75": 0, "ap_small": 0, "ap_b": 0}
    assert dict(detection_metrics([detections_of([], [], [])], [figures([], [])], NAMES)) == {}


@pytest.mark.parametrize("seed", range(3))
def test_all_figures_are_those_of_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(6)]
    metrics = dict(
        detection_metrics(
            [detections for _, detections in images], [instances for instances, _ in images], NAMES, masks=True
        )
    )
    metric = MeanAveragePrecision(
        iou_type=("bbox", "segm"),
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),  # its own are float32, and miss recalls that are met
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        class_metrics=True,
        backend="pycocotools",
    )
    metric.update(
        [as_tensors(detections) for _, detections in images], [as_tensors(instances) for instances, _ in images]
    )
    expected = metric.compute()
    for kind, prefix in (("bbox", ""), ("segm", "mask_")):
        theirs = {
            name: expected[f"{kind}_{name.replace('ap', 'map').replace('map5', 'map_5')}"] for name in AP_METRICS[:2]
        }
        theirs |= {"ap75": expected[f"{kind}_map_75"]}
        theirs |= {f"ap_{size}": expected[f"{kind}_map_{size}"] for size in ("small", "medium", "large")}
        by_class = expected[f"{kind}_map_per_class"].tolist()
        theirs |= {f"ap_{NAMES[label]}": by_class[i] for i, label in enumerate(expected["classes"].tolist())}
        shown = {prefix + name: 100 * float(share) for name, share in theirs.items() if share >= 0}
        prefixed = {name: metrics[name] for name in metrics if name.startswith("mask_") == bool(prefix)}
        assert prefixed == pytest.approx(shown, rel=1e-5, abs=1e-5)


def random_image(rng: np.random.Generator) -> tuple[Instances, Detections]:
    """Figures of all sizes, crowds among them, and guesses near them."""
    count = int(rng.integers(1, 6))
    boxes = random_boxes(rng, count)
    crowds = rng.random(count) < 0.2
    labels = rng.integers(0, 3, count)
    masks = tuple(encode_rle(ellipse(box)) for box in boxes)
    areas = np.array([ellipse(box).sum() for box in boxes], np.float32)
    instances = Instances(boxes, labels, areas, crowds, masks)
    near = (boxes + rng.normal(0, 3, boxes.shape)).clip(0, SIDE).astype(np.float32)
    guesses = np.concatenate([near, random_boxes(rng, 3)])
    guessed = np.where(rng.random(len(guesses)) < 0.8, np.concatenate([labels, [0, 1, 2]]), 1)
    scores = rng.random(len(guesses)).astype(np.float32)
    return instances, Detections(guesses, guessed, scores, tuple(encode_rle(ellipse(box)) for box in guesses))


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    corners = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(10, 100, (count, 2))], axis=1).astype(np.float32)


def ellipse(box: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a box frames, (SIDE, SIDE)."""
    x0, y0, x1, y1 = box.tolist()
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    middle_x, middle_y, wide, high = (x0 + x1) / 2, (y0 + y1) / 2, max(1.0, x1 - x0) / 2, max(1.0, y1 - y0) / 2
    inside: np.ndarray[Any, Any] = ((x - middle_x) / wide) ** 2 + ((y - middle_y) / high) ** 2 < 1
    return inside


def as_tensors(image: Instances | Detections) -> dict[str, Tensor]:
    assert image.masks is not None
    masks = torch.from_numpy(decode_rle(image.masks, SIDE, SIDE)).bool()
    tensors = {"boxes": torch.from_numpy(image.boxes), "labels": torch.from_numpy(image.labels), "masks": masks}
    if isinstance(image, Detections):
        return tensors | {"scores": torch.from_numpy(image.scores)}
    return tensors | {"iscrowd": torch.from_numpy(image.is_crowd).long(), "area": torch.from_numpy(image.areas)}
