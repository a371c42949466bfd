"""How much memory a run needed at most, and how much a call needs beside what it is given and what it gives."""

import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from harness.measures.base import TrainedRun


def peak_memory(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """Largest resident size of the worker's process so far, in bytes; on a GPU also what torch allocated there."""
    unit = 1 if sys.platform == "darwin" else 1024
    yield "peak_memory_bytes", float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    if trained.device.type == "cuda":
        yield "peak_gpu_memory_bytes", float(torch.cuda.max_memory_allocated(trained.device))


def extra_bytes(call: Callable[[], Iterable[Tensor]], device: torch.device) -> int:
    """The peak during a call above what was there before it, without the tensors that it gives.

    As PyTorch's allocator counts it: scratch memory that oneDNN takes from the system on a CPU is not seen.
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
    """Adds up what was allocated and freed, in the order in which it was.

    By the profiler that PyTorch had before Kineto: Kineto writes lines of its own to the terminal.
    """
    autograd: Any = torch.autograd
    profiler: Any = torch._C._profiler
    plain = (False, True, False, False, False)  # of the switches, the second: report memory
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
