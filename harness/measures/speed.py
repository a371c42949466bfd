"""How fast a network is, on the device and with the threads of its run: latency and throughput merged, a training step.

Times are taken while nothing else of the harness computes on the device.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.data.augment import normalize
from harness.errors import OutOfMemory
from harness.measures.base import TrainedRun, merged_for_inference
from harness.measures.memory import extra_bytes
from harness.measures.timing_cache import MetricValues, cached_times, time_undisturbed
from harness.ops.timing import TimingBudget, time_interleaved, time_until_precise
from harness.training.device import isolated_rng
from harness.training.fit import autocast

LATENCY_WARM_UP = 5
LATENCY_PASSES = 30
"""At least, where they are not too long; see `time_until_precise`."""
LATENCY_DISTURBED = "latency_ms_disturbed"

THROUGHPUT_BATCHES = {"cpu": 32, "cuda": 128}
"""Images at once, by kind of device; the metric's name says which it was."""
THROUGHPUT_DISTURBED = "throughput_disturbed"
THROUGHPUT_PATIENCE = TimingBudget(min_samples=3, max_samples=10, budget_s=2.0, single_sample_s=5.0)

TRAIN_STEP_PATIENCE = TimingBudget(min_samples=3, max_samples=10, budget_s=2.0, single_sample_s=10.0)


@torch.no_grad()
def latency(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """Milliseconds per forward pass at batch size 1, while nothing else of ours computes on the device.

    The median, its 95 % interval (`low`, `high`), the 90th percentile, the number of passes, that of passes left out
    because another program had the processor, and `disturbed` where that could not be avoided: where other work of ours
    did not make room, or other programs had it nearly always. See `time_until_precise`.
    """
    model, image = merged_for_inference(trained, batch=1)

    def measure() -> MetricValues:
        sampled = time_until_precise(
            lambda: model(image), trained.device, warm_up=LATENCY_WARM_UP, min_samples=LATENCY_PASSES
        )
        times = sampled.times
        low, high = times.interval
        metrics = {
            "latency_ms_p50": 1000 * times.median,
            "latency_ms_p90": 1000 * times.percentile(90),
            "latency_ms_low": 1000 * low,
            "latency_ms_high": 1000 * high,
            "latency_ms_n": float(times.n),
            "latency_ms_left_out": float(sampled.left_out),
            LATENCY_DISTURBED: float(sampled.is_disturbed),
        }
        return {name: value for name, value in metrics.items() if value}

    metrics, is_quiet = cached_times(trained, "latency", model, image, measure)
    yield from (metrics if is_quiet else metrics | {LATENCY_DISTURBED: 1.0}).items()


@torch.no_grad()
def throughput(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """Images per second in float32, at the median time of 3 to 10 forward passes; of one where a pass takes 5 s.

    `disturbed` (1.0) where other work of ours did not make room.
    """
    batch = THROUGHPUT_BATCHES[trained.device.type]
    model, images = merged_for_inference(trained, batch)

    def measure() -> MetricValues:
        times = time_interleaved({"merged": lambda: model(images)}, trained.device, THROUGHPUT_PATIENCE)["merged"]
        if times is None:
            raise OutOfMemory(f"the measure `throughput` needs memory for {batch} images at once")
        return {f"throughput_images_per_s_batch{batch}": batch / times.median}

    metrics, is_quiet = cached_times(trained, "throughput", model, images, measure)
    yield from (metrics if is_quiet else metrics | {THROUGHPUT_DISTURBED: 1.0}).items()


class TrainStep:
    """A copy of a network and one batch of its training images; a call goes forward and backward, and gives nothing."""

    def __init__(self, trained: TrainedRun) -> None:
        train, recipe = trained.dataset.train, trained.recipe
        memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        index = np.arange(recipe.batch_size) % len(train)  # a split may be smaller than a batch
        images = torch.from_numpy(train.images[index]).to(trained.device)
        self._trained = trained
        self._model = copy.deepcopy(trained.model).train()
        self._images = normalize(images, trained.dataset).contiguous(memory_format=memory_format)
        self._labels = torch.from_numpy(train.labels[index]).to(trained.device)

    def __call__(self) -> tuple[Tensor, ...]:  # noqa: D102 (the class says it)
        self._model.zero_grad(set_to_none=True)
        recipe = self._trained.recipe
        with autocast(recipe, self._trained.device):
            logits = self._model(self._images).float()
            loss = F.cross_entropy(logits, self._labels, label_smoothing=recipe.label_smoothing)
        torch.autograd.backward(loss)
        return ()

    @property
    def has_finite_gradients(self) -> bool:
        """Whether the last call left a finite gradient to every parameter."""
        return all(p.grad is not None and bool(p.grad.isfinite().all()) for p in self._model.parameters())


def train_step(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """One step forward and backward at the recipe's resolution, batch size and precision, on a copy of the network.

    Seconds are the median of 3 to 10 steps, or of one where a step takes 10 s. Bytes are the most that tensors take at
    a time: parameters, buffers, images, activations and gradients, without the optimiser's state. They are what PyTorch
    allocates, on a CPU too, where the resident size of a process that has trained does not tell, for it keeps what it
    freed; that of a fresh process grows by 1.2 to 1.9 times as much (replknet_3 at 224 px, replknet_nano at 48 px).
    Where other work of ours did not make room for the times, they are `train_step_disturbed` (1.0).
    Gradients are finite (1.0) where every parameter has one and no number of it is NaN or infinite; else 0.0.
    """
    with isolated_rng(trained.device):
        peak_bytes = extra_bytes(lambda: TrainStep(trained)(), trained.device)
        step = TrainStep(trained)
        metrics, is_quiet = time_undisturbed(trained, lambda: _step_times(step, trained))
    yield from (metrics if is_quiet else metrics | {"train_step_disturbed": 1.0}).items()
    yield "train_step_peak_bytes", float(peak_bytes)
    yield "train_step_gradients_finite", float(step.has_finite_gradients)


def _step_times(step: TrainStep, trained: TrainedRun) -> MetricValues:
    batch = trained.recipe.batch_size
    times = time_interleaved({"step": step}, trained.device, TRAIN_STEP_PATIENCE)["step"]
    if times is None:
        raise OutOfMemory(f"the measure `train_step` needs memory for {batch} images at once")
    return {"train_step_s": times.median, "train_step_images_per_s": batch / times.median}
