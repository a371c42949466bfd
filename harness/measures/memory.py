"""Peak memory of a run, and the extra memory of a call in addition to its arguments and results."""

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
