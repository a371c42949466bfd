"""Time for one image through the merged network, on the device and with the threads that the run was trained with."""

import statistics
from collections.abc import Iterator

import torch

from harness.measures.base import Trained, deployed
from harness.measures.timing import seconds_of

WARM_UP = 5
REPEATS = 30


@torch.no_grad()
def latency(trained: Trained) -> Iterator[tuple[str, float]]:
    """Milliseconds per forward pass at batch size 1: the median and the 90th percentile of 30 passes."""
    model, image = deployed(trained, batch=1)
    times_ms = [1000 * seconds_of(lambda: model(image), trained.device) for _ in range(WARM_UP + REPEATS)][WARM_UP:]
    yield "latency_ms_p50", statistics.median(times_ms)
    yield "latency_ms_p90", statistics.quantiles(times_ms, n=10)[-1]
