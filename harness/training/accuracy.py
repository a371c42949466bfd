"""Accuracy of a network on a set of images, in training form, in merged form, or in both for comparison.

Shapes: N images of a batch.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.data.image_sources import DATA_OPTION, ImageSource
from harness.data.loading import Batch, BatchReader, ValidationItems, worker_indices
from harness.data.preprocessing import Preprocessing
from harness.data.read_report import require_readable
from harness.errors import DataError, UserError
from harness.models.finite import require_finite
from harness.system.device_slot import yield_slot
from harness.training.accuracy_results import (
    MERGED,
    TRAINING,
    AccuracyProgress,
    AccuracyResult,
    FormAccuracy,
    FormDifference,
)
from harness.training.device import autocast, place_images, place_network
from harness.training.full_scale.timer import Timer
from harness.training.metrics.classification import AccuracyAccumulator, readable_batches


class _FormCounters:
    """Counters of the outputs of each form so far."""

    def __init__(self, forms: int, device: torch.device) -> None:
        self.accumulators = [AccuracyAccumulator(device) for _ in range(forms)]
        self.seen: list[tuple[int, Sequence[float]]] = []
        self.unreadable = 0
        self.changed = torch.zeros((), dtype=torch.int64, device=device)
        self.apart = torch.zeros((), device=device)
        self.answers: list[set[int]] = [set() for _ in range(forms)]
        self.truths: set[int] = set()
        self.ties = [0] * forms

    def add(self, labels: Tensor, outputs: Sequence[Tensor], seconds: Sequence[float]) -> None:
        self.seen.append((len(labels), seconds))
        for form, (accumulator, logits) in enumerate(zip(self.accumulators, outputs, strict=True)):
            accumulator.add(logits, labels)
            self.answers[form] |= set(logits.argmax(1).tolist())
            self.ties[form] += int(((logits == logits.amax(1, keepdim=True)).sum(1) > 1).sum())
        self.truths |= set(labels.tolist())
        first, last = outputs[0], outputs[-1]
        self.changed += (first.argmax(1) != last.argmax(1)).sum()
        self.apart = torch.maximum(self.apart, (first - last).abs().max())

    def add_unreadable(self, count: int) -> None:
        self.unreadable += count
        for accumulator in self.accumulators:
            accumulator.add_unreadable(count)

    @property
    def images(self) -> int:
        return sum(count for count, _ in self.seen)

    def notes(self, form: int, name: str) -> Iterator[str]:
        """Reasons why the metrics of a form do not show what it has learned."""
        if self.ties[form]:
            yield (
                f"{name} form: the largest logit is that of several classes for {self.ties[form]:,} of {self.images:,} "
                "images, and which of them counts as the prediction is arbitrary"
            )
        if len(self.answers[form]) == 1 and len(self.truths) > 1:
            (answer,) = self.answers[form]
            yield (
                f"{name} form: the prediction is class {answer} for every image, so that top-1 is the share of the "
                "images of that class"
            )

    def images_per_s(self, form: int) -> float:
        """Images per second, without the first batch, which also selects algorithms, unless it is the only one."""
        timed = self.seen[1:] or self.seen
        return sum(count for count, _ in timed) / max(1e-9, sum(seconds[form] for _, seconds in timed))


def measure_accuracy(
    forms: Mapping[str, nn.Module],
    images: ImageSource,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    loaders: int,
) -> Iterator[AccuracyProgress | AccuracyResult]:
    """Measure the accuracy of each form: yields the progress from time to time, then the result.

    The networks are moved to the device. Raises `DataError` if no image can be read, `UserError` if the device has too
    little memory, and `Diverged` if a logit is not finite.
    """
    models = [place_network(model, preprocessing, device).eval() for model in forms.values()]
    count, timer, of = _FormCounters(len(models), device), Timer(), len(images.labels)
    parts = worker_indices(of, preprocessing.batch_size, rank=0, size=1)
    batches = _timed(BatchReader(ValidationItems(images, preprocessing), loaders).read(parts), timer)
    try:
        for batch, labels in readable_batches(batches, count.add_unreadable):
            count.add(labels, *_predict_each(models, batch, preprocessing, device))
            if timer.is_due():
                yield _progress(count, of, timer.elapsed_s)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device must have memory for {preprocessing.batch_size} images of {preprocessing.resolution} pixels",
            value=str(device),
            remedy="Take a smaller `--batch`, or `--precision bfloat16`.",
        ) from error
    if not count.images:
        raise DataError("of the images, one must be readable", value=f"{of} that are not", place=DATA_OPTION)
    require_readable("validation", of, count.unreadable, images)
    scores = [accumulator.scores() for accumulator in count.accumulators]
    results = {name: FormAccuracy(scores[i], count.images_per_s(i)) for i, name in enumerate(forms)}
    yield AccuracyResult(
        forms=results,
        difference=_difference(results, count),
        images=count.images,
        unreadable=count.unreadable,
        wall_s=timer.elapsed_s,
        waiting=timer.waiting_share,
        notes=tuple(note for i, name in enumerate(forms) for note in count.notes(i, name)),
    )


@torch.no_grad()
def _predict_each(
    models: Sequence[nn.Module], batch: Tensor, preprocessing: Preprocessing, device: torch.device
) -> tuple[list[Tensor], list[float]]:
    """The logits of each network for a batch, (N, classes), in float32; and the seconds that each took."""
    yield_slot()
    images, logits, seconds = place_images(batch, preprocessing, device), [], []
    for model in models:
        start = time.perf_counter()
        with autocast(preprocessing, device):
            output = model(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
        with autocast(preprocessing, device):
            require_finite(output, model, images)
        logits.append(output.float())
    return logits, seconds


def _timed(batches: Iterator[Batch], timer: Timer) -> Iterator[Batch]:
    """The batches; `timer` counts the time spent waiting for them."""
    while True:
        with timer.waiting():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _progress(count: _FormCounters, of: int, here_s: float) -> AccuracyProgress:
    done = count.images + count.unreadable
    top1 = count.accumulators[0].scores()["top1"]
    return AccuracyProgress(done, of, top1, done / here_s, (of - done) * here_s / max(1, done))


def _difference(forms: Mapping[str, FormAccuracy], count: _FormCounters) -> FormDifference | None:
    if len(forms) == 1:
        return None
    top1 = forms[MERGED].scores["top1"] - forms[TRAINING].scores["top1"]
    return FormDifference(int(count.changed), float(count.apart), top1)
