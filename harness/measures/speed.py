"""Speed and memory on the device and with the threads of the run: of the merged network, and of a training step.

Times are taken with exclusive use of the device: no other harness process computes on it. Those of inference are cached
on disk, so that equal networks share one measurement: they depend on the merged network's structure and not on its
weights, so all seeds of a configuration, and all configurations that merge into one network, have the same latency in
every table.
"""

import copy
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.augment import normalize
from harness.errors import OutOfMemory
from harness.measures.base import TrainedRun, merged_for_inference
from harness.ops.autotune import is_tuned
from harness.ops.timing import TimingBudget, time_interleaved, time_until_precise
from harness.system.atomic_write import read_json, write_cache
from harness.system.code_revision import operator_digest
from harness.system.device_slot import COMPUTER_WAITS_S, measuring
from harness.system.fingerprint import fingerprint
from harness.training.device import autocast, device_name, isolated_rng, place_images

LATENCY_WARM_UP = 5
LATENCY_PASSES = 30
"""Minimum number of passes, unless they take too long; see `time_until_precise`."""
LATENCY_DISTURBED = "latency_ms_disturbed"

THROUGHPUT_BATCHES = {"cpu": 32, "cuda": 128}
"""Batch size by type of device; the metric's name contains it."""
THROUGHPUT_DISTURBED = "throughput_disturbed"
THROUGHPUT_PATIENCE = TimingBudget(min_samples=3, max_samples=10, budget_s=2.0, single_sample_s=5.0)

TRAIN_STEP_PATIENCE = TimingBudget(min_samples=3, max_samples=10, budget_s=2.0, single_sample_s=10.0)
SCALARS = (bool, int, float, str, tuple, type(None))
REVISION = 1
"""Increased when times are measured in a different way."""

MetricValues = dict[str, float]


@torch.no_grad()
def latency(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """Milliseconds per forward pass at batch size 1, while no other harness process computes on the device.

    Yields the median, its 95 % interval (`low`, `high`), the 90th percentile, the numbers of passes taken and of passes
    left out because another program had the processor, and `disturbed` (1.0) if disturbance could not be avoided: other
    harness processes did not stop, or other programs had the processor nearly always. See `time_until_precise`.
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
    """Images per second in float32, from the median time of 3 to 10 forward passes; of one if it takes over 5 s.

    Yields `disturbed` (1.0) if other harness processes did not stop.
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
    """A copy of a network with one batch of training images; a call runs forward and backward, and returns ()."""

    def __init__(self, trained: TrainedRun) -> None:
        train, recipe = trained.dataset.train, trained.recipe
        index = np.arange(recipe.batch_size) % len(train)  # a split may be smaller than a batch
        images = torch.from_numpy(train.images[index]).to(trained.device)
        self._trained = trained
        self._model = copy.deepcopy(trained.model).train()
        self._images = place_images(normalize(images, trained.dataset), recipe, trained.device)
        self._labels = torch.from_numpy(train.labels[index]).to(trained.device)

    def __call__(self) -> tuple[Tensor, ...]:  # noqa: D102 (see the class)
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
    """Time and memory of one forward and backward pass of a copy, with the recipe's resolution, batch and precision.

    Seconds are the median of 3 to 10 steps, or of one if a step takes over 10 s. Bytes are the peak of all tensors:
    parameters, buffers, images, activations and gradients, without the optimizer's state. They are counted by PyTorch's
    allocator, on a CPU, too: the resident size of a process that has trained includes freed memory. The resident size
    of a fresh process grows by 1.2 to 1.9 times as much (replknet_3 at 224 px, replknet_nano at 48 px).
    Yields `train_step_disturbed` (1.0) if other harness processes did not stop during the timing.
    Gradients are finite (1.0) if every parameter has one without NaN or infinite values; else 0.0.
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


def peak_memory(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """Largest resident size of the worker's process so far, in bytes; on a GPU also what torch allocated there."""
    unit = 1 if sys.platform == "darwin" else 1024
    yield "peak_memory_bytes", float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    if trained.device.type == "cuda":
        yield "peak_gpu_memory_bytes", float(torch.cuda.max_memory_allocated(trained.device))


def extra_bytes(call: Callable[[], Iterable[Tensor]], device: torch.device) -> int:
    """Peak memory during a call, minus the memory before it and the returned tensors, in bytes.

    As counted by PyTorch's allocator: scratch memory that oneDNN takes from the system on a CPU is not included.
    """
    peak, results = (_on_gpu if device.type == "cuda" else _on_cpu)(call)
    return max(0, peak - sum(tensor.numel() * tensor.element_size() for tensor in results))


def _on_gpu(call: Callable[[], Iterable[Tensor]]) -> tuple[int, list[Tensor]]:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    results = list(call())
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, results


def _on_cpu(call: Callable[[], Iterable[Tensor]]) -> tuple[int, list[Tensor]]:
    """Adds up allocations and releases in their order.

    Uses PyTorch's legacy profiler, because Kineto writes its own lines to the terminal.
    """
    autograd: Any = torch.autograd
    profiler: Any = torch._C._profiler
    plain = (False, True, False, False, False)  # the second option is `profile_memory`
    autograd._enable_profiler_legacy(
        autograd.ProfilerConfig(autograd.ProfilerState.CPU, *plain, profiler._ExperimentalConfig())
    )
    try:
        results = list(call())
    finally:
        threads = autograd._disable_profiler_legacy()
    held = peak = 0
    for event in (event for events in threads for event in events if event.kind() == "memory_alloc"):
        held += event.cpu_memory_usage()
        peak = max(peak, held)
    return peak, results


def time_undisturbed(trained: TrainedRun, measure: Callable[[], MetricValues]) -> tuple[MetricValues, bool]:
    """Measure while no other harness process computes on the device; also returns whether that was achieved."""
    with measuring(trained.device) as is_quiet:
        start = time.monotonic()
        metrics = measure()
        held_s = time.monotonic() - start
    return metrics, is_quiet and held_s < COMPUTER_WAITS_S


def cached_times(
    trained: TrainedRun, name: str, model: nn.Module, images: Tensor, measure: Callable[[], MetricValues]
) -> tuple[MetricValues, bool]:
    """The times of this network under these conditions, from `trained.times` or measured now.

    Only undisturbed measurements are stored. Returns the metrics, and whether they are undisturbed.
    """
    key = timing_conditions(name, model, images)
    path = None if trained.times is None else trained.times / f"{name}-{fingerprint(key)}.json"
    if path is not None and (cached := _read(path, key)) is not None:
        return cached, True

    def unless_kept() -> MetricValues:
        """Another worker may have measured the same while this one waited."""
        return (None if path is None else _read(path, key)) or measure()

    metrics, is_quiet = time_undisturbed(trained, unless_kept)
    is_quiet = is_quiet and not any(name.endswith("_disturbed") for name in metrics)
    if path is not None and is_quiet:
        write_cache(path, {"conditions": key, "metrics": metrics})
    return metrics, is_quiet


def timing_conditions(name: str, model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Everything that the network's times depend on."""
    device = images.device
    return {
        "times": name,
        "revision": REVISION,
        "network": network_digest(model),
        "device": device_name(device),
        "machine": platform.machine(),
        "precision": str(images.dtype).removeprefix("torch."),
        "shape": list(images.shape),
        "is_channels_last": images.is_contiguous(memory_format=torch.channels_last),
        "threads": torch.get_num_threads(),
        "operator": operator_digest(),
        "is_tuned": is_tuned(),
        "torch": str(torch.__version__),
    }


def network_digest(model: nn.Module) -> str:
    """Fingerprint of a network's structure, without its weights: modules, their settings, shapes of their tensors."""
    modules = [
        [
            name,
            type(module).__qualname__,
            sorted((key, repr(value)) for key, value in vars(module).items() if isinstance(value, SCALARS)),
            [
                (key, list(tensor.shape), str(tensor.dtype))
                for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            ],
        ]
        for name, module in model.named_modules()
    ]
    return fingerprint(modules)


def _read(path: Path, key: Mapping[str, Any]) -> MetricValues | None:
    """The metrics in a file; None if it is missing, damaged, or for other conditions."""
    try:
        kept = read_json(path)
        if kept["conditions"] != key:
            return None
        return {str(name): float(value) for name, value in kept["metrics"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
