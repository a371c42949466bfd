"""Average precision of detections by COCO's rules, from torchmetrics, which calls COCO's own code (pycocotools)."""

from collections.abc import Iterator, Sequence

from harness.downstream.detect import Boxes


def average_precision(found: Boxes, truth: Boxes, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Percent: `ap`, the mean over overlaps from 0.5 to 0.95 and over classes; `ap50` and `ap75`; `ap_<class>`.

    `names` are those of the labels. A class that the truth does not have is left out.
    """
    from torchmetrics.detection import MeanAveragePrecision  # slow to load, and a segmentation has no need of it

    metric = MeanAveragePrecision(extended_summary=True, backend="pycocotools")
    metric.update(found, truth)
    figures = metric.compute()
    of_all_sizes = figures["precision"][:, :, :, 0, -1]  # (overlaps, recalls, classes), up to 100 detections per image
    by_class = of_all_sizes.mean(dim=(0, 1))  # as `class_metrics` gives it, which would match all boxes a second time
    shares = {"ap": figures["map"].item(), "ap50": figures["map_50"].item(), "ap75": figures["map_75"].item()}
    for label, share in zip(figures["classes"].flatten().tolist(), by_class.tolist(), strict=True):
        shares[f"ap_{names[label]}"] = share
    for name, share in shares.items():
        if share >= 0:  # COCO's code says -1 where there is nothing to find
            yield name, 100 * share
