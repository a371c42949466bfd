"""Average precision of detections by COCO's rules, from COCO's own code (pycocotools)."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.data.detection_annotations import RLE, Instances

Boxes = list[dict[str, Tensor]]
"""For each image a dictionary of float32 `boxes` (B, 4), int64 `labels` (B,) and, for detections, `scores` (B,)."""
AP_METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
"""The first metrics of COCO's summary, in its order: over all overlaps, at two of them, by size (up to 32 pixels
squared, up to 96, and above)."""
AP_BY_SIZE = AP_METRICS[3:]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Detections in one image, D boxes, in the pixels of the original image."""

    boxes: NDArray[np.float32]
    """(D, 4): x0, y0, x1, y1."""
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    masks: tuple[RLE, ...] | None = None


def average_precision(detections: Boxes, truth: Boxes, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield, in percent, `ap`, the mean over overlaps from 0.5 to 0.95 and over classes; `ap50`, `ap75`; `ap_<class>`.

    `names` are those of the labels. A class without true boxes is left out.
    """
    metrics = detection_metrics(map(_as_detections, detections), map(_as_instances, truth), names)
    yield from ((name, share) for name, share in metrics if name not in AP_BY_SIZE)


def detection_metrics(
    detections: Iterable[Detections], truth: Iterable[Instances], names: Sequence[str], *, masks: bool = False
) -> Iterator[tuple[str, float]]:
    """Yield, in percent, `AP_METRICS` of the boxes and then by class; with `masks`, also of masks, as `mask_ap` etc.

    A class or a size without true objects is left out.
    """
    ground_truth, predictions = _dataset(truth, names), _dataset(detections, names)
    for kind, prefix in (("bbox", ""), *([("segm", "mask_")] if masks else [])):
        for annotation in predictions["annotations"]:
            annotation["area"] = annotation[f"area_{kind}"]
        for annotation in ground_truth["annotations"] if kind == "segm" else ():  # an unknown mask is ignored
            annotation["iscrowd"] = int(annotation["iscrowd"] or annotation["is_maskless"])
        yield from ((prefix + name, share) for name, share in _coco_metrics(ground_truth, predictions, kind, names))


def _coco_metrics(ground_truth: Any, predictions: Any, kind: str, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # COCO's code prints its progress
        sides = []
        for dataset in (ground_truth, predictions):
            side = COCO()
            side.dataset = dataset
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, iouType=kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    of_all_sizes = evaluation.eval["precision"][:, :, :, 0, -1]  # (overlaps, recalls, classes), up to 100 in an image
    by_class = of_all_sizes.mean(axis=(0, 1))
    shares = {
        **dict(zip(AP_METRICS, evaluation.stats.tolist(), strict=False)),
        **{f"ap_{name}": float(share) for name, share in zip(names, by_class, strict=True)},
    }
    for name, share in shares.items():
        if share >= 0:  # COCO's code returns -1 if there is no true object
            yield name, 100 * share


def _dataset(images: Iterable[Detections | Instances], names: Sequence[str]) -> dict[str, Any]:
    """The true or detected objects of the images, in the format of COCO's code."""
    annotations: list[dict[str, Any]] = []
    count = 0
    for count, image in enumerate(images, 1):
        sides = (image.boxes[:, 2:] - image.boxes[:, :2]).astype(float)
        rows = np.concatenate([image.boxes[:, :2], sides], axis=1).tolist()
        for i, (box, label) in enumerate(zip(rows, image.labels.tolist(), strict=True)):
            annotation = {"id": len(annotations) + 1, "image_id": count, "category_id": label, "bbox": box}
            annotations.append(annotation | _annotation_details(image, i, box[2] * box[3]))
    categories = [{"id": label, "name": name} for label, name in enumerate(names)]
    ids = [{"id": 1 + i, "height": 0, "width": 0} for i in range(count)]  # sizes are required, but not used
    return {"images": ids, "annotations": annotations, "categories": categories}


def _annotation_details(image: Detections | Instances, i: int, box_area: float) -> dict[str, Any]:
    """Further entries of an object's annotation; the area of a detection is that of its box, or of its mask."""
    from pycocotools import mask as runs

    rest: dict[str, Any] = {} if image.masks is None else {"segmentation": image.masks[i]}
    if isinstance(image, Instances):
        is_maskless = not bool(image.has_mask[i])
        return rest | {"area": float(image.areas[i]), "iscrowd": int(image.is_crowd[i]), "is_maskless": is_maskless}
    area = box_area if image.masks is None else float(runs.area(image.masks[i]))
    return rest | {"area_bbox": box_area, "area_segm": area, "iscrowd": 0, "score": float(image.scores[i])}


def _as_detections(target: dict[str, Tensor]) -> Detections:
    return Detections(target["boxes"].numpy(), target["labels"].numpy(), target["scores"].numpy())


def _as_instances(target: dict[str, Tensor]) -> Instances:
    boxes = target["boxes"].numpy()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return Instances(boxes, target["labels"].numpy(), areas, np.zeros(len(boxes), bool))
