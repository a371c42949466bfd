"""How much memory a run needed at most."""

import resource
import sys
from collections.abc import Iterator

import torch

from harness.measures.base import Trained


def peak_memory(trained: Trained) -> Iterator[tuple[str, float]]:
    """Largest resident size of the worker's process so far, in bytes; on a GPU also what torch allocated there."""
    unit = 1 if sys.platform == "darwin" else 1024
    yield "peak_memory_bytes", float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    if trained.device.type == "cuda":
        yield "peak_gpu_memory_bytes", float(torch.cuda.max_memory_allocated(trained.device))
