"""Metrics of classification on validation images: top-1, top-5 and loss, summed over all workers.

Shapes: N images of a batch.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.loading import Batch
from harness.data.preprocessing import Preprocessing
from harness.errors import DataError
from harness.models.finite import require_finite
from harness.system.device_slot import yield_slot
from harness.training.fit import autocast
from harness.training.full_scale.messages import Scores
from harness.training.full_scale.process_group import ProcessGroup

TOP_K = 5


@dataclass(frozen=True, slots=True, eq=False)
class BatchOutputs:
    """Outputs of one or more networks for a batch."""

    logits: tuple[Tensor, ...]
    """Logits of each network, (N, classes), float32; N counts the images that can be read."""
    targets: Tensor
    """(N,)."""
    unreadable: int
    seconds: tuple[float, ...]
    """Time of each network; on a GPU only valid with `waits`."""


@torch.no_grad()
def predict(
    models: Sequence[nn.Module],
    batches: Iterable[Batch],
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    waits: bool = False,
) -> Iterator[BatchOutputs]:
    """Predict every batch with all networks in evaluation mode; they are left in that mode.

    With `waits`, a GPU is synchronized after each network, so that `seconds` is valid. Raises `Diverged` if a logit is
    not finite.
    """
    for model in models:
        model.eval()
    memory_format = torch.channels_last if preprocessing.channels_last else torch.contiguous_format
    for batch, labels, passed in batches:
        yield_slot()
        readable = passed == 0
        images = batch[readable].to(device, non_blocking=True).contiguous(memory_format=memory_format)
        targets = labels[readable].to(device, non_blocking=True)
        logits, seconds = [], []
        for model in models if len(targets) else ():
            start = time.perf_counter()
            with autocast(preprocessing, device):
                logits.append(model(images))
            if waits and device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
            with autocast(preprocessing, device):
                require_finite(logits[-1], model, images)
        yield BatchOutputs(tuple(output.float() for output in logits), targets, int((~readable).sum()), tuple(seconds))


class AccuracyAccumulator:
    """Sums of loss and correct predictions of one network."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)  # loss, top-1, top-5, images

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        hits = logits.topk(min(TOP_K, logits.shape[1]), 1).indices == targets[:, None]
        self.sums[0] += F.cross_entropy(logits, targets, reduction="sum")
        self.sums[1] += hits[:, 0].sum()
        self.sums[2] += hits.sum()
        self.sums[3] += len(targets)


def validate_classifier(
    model: nn.Module, batches: Iterable[Batch], preprocessing: Preprocessing, group: ProcessGroup
) -> Scores:
    """Scores of a network on all readable images of all workers; it is left in evaluation mode."""
    accumulator, unreadable = AccuracyAccumulator(group.device), 0
    for outputs in predict([model], batches, preprocessing, group.device):
        unreadable += outputs.unreadable
        for logits in outputs.logits:
            accumulator.add(logits, outputs.targets)
    counted = torch.tensor([unreadable], dtype=torch.float64, device=group.device)
    return scores_from_sums(group.all_reduce(torch.cat([accumulator.sums, counted])))


def scores_from_sums(sums: Tensor) -> Scores:
    """Scores from the sums of an `AccuracyAccumulator`, followed by the number of unreadable images.

    Raises `DataError` if no image could be read.
    """
    loss, first, among, count, unreadable = sums.tolist()
    if not count:
        raise DataError("of the images, one must be readable", value=f"{int(unreadable):,} that are not")
    metrics = {"loss": loss / count, "top1": 100 * first / count, "top5": 100 * among / count}
    return Scores(metrics, unreadable=int(unreadable), images=int(count))
