"""Metrics of classification on validation images: top-1, top-5 and loss, summed over all workers.

Shapes: N images of a batch.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.loading import Batch
from harness.data.preprocessing import Preprocessing
from harness.errors import DataError
from harness.training.fit import predict
from harness.training.full_scale.messages import Scores
from harness.training.full_scale.process_group import ProcessGroup

TOP_K = 5


def readable_batches(batches: Iterable[Batch], count: Callable[[int], None]) -> Iterator[tuple[Tensor, Tensor]]:
    """The readable images of each batch and their labels (N,); `count` is called with the number of unreadable ones.

    A batch without a readable image is left out.
    """
    for images, labels, passed in batches:
        is_readable = passed == 0
        count(int((~is_readable).sum()))
        if is_readable.any():
            yield images[is_readable], labels[is_readable]


class AccuracyAccumulator:
    """Sums of loss and correct predictions of one network."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)  # loss, top-1, top-5, images, unreadable images

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: float32 logits (N, classes), and labels (N,) on any device."""
        labels = labels.to(logits.device, non_blocking=True)
        hits = logits.topk(min(TOP_K, logits.shape[1]), 1).indices == labels[:, None]
        self.sums[0] += F.cross_entropy(logits, labels, reduction="sum")
        self.sums[1] += hits[:, 0].sum()
        self.sums[2] += hits.sum()
        self.sums[3] += len(labels)

    def add_unreadable(self, count: int) -> None:
        """Add to the number of unreadable images."""
        self.sums[4] += count

    def scores(self, group: ProcessGroup | None = None) -> Scores:
        """Scores of all images so far, of all workers of a group. Raises `DataError` if no image could be read."""
        sums = self.sums if group is None else group.all_reduce(self.sums)
        loss, first, among, count, unreadable = sums.tolist()
        if not count:
            raise DataError("of the images, one must be readable", value=f"{int(unreadable):,} that are not")
        metrics = {"loss": loss / count, "top1": 100 * first / count, "top5": 100 * among / count}
        return Scores(metrics, unreadable=int(unreadable), images=int(count))


def validate_classifier(
    model: nn.Module, batches: Iterable[Batch], preprocessing: Preprocessing, group: ProcessGroup
) -> Scores:
    """Scores of a network on all readable images of all workers; it is left in evaluation mode."""
    accumulator = AccuracyAccumulator(group.device)
    readable = readable_batches(batches, accumulator.add_unreadable)
    for logits, labels in predict(model, readable, preprocessing, group.device, "the logits of an image"):
        accumulator.add(logits.float(), labels)
    return accumulator.scores(group)
