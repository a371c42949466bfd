"""Time for one image through the merged network, on the device and with the threads that the run was trained with."""

import statistics
import time
from collections.abc import Iterator

import torch

from harness.measures.base import Trained
from harness.network import merge

WARM_UP = 5
REPEATS = 30


@torch.no_grad()
def latency(trained: Trained) -> Iterator[tuple[str, float]]:
    """Milliseconds per forward pass at batch size 1: the median and the 90th percentile of 30 passes."""
    model = merge(trained.model).eval()
    channels, side = trained.dataset.info.channels, trained.recipe.resolution
    image = torch.zeros(1, channels, side, side, device=trained.device)
    if trained.recipe.channels_last:
        model, image = model.to(memory_format=torch.channels_last), image.contiguous(memory_format=torch.channels_last)
    times_ms = []
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        model(image)
        if trained.device.type == "cuda":
            torch.cuda.synchronize(trained.device)
        times_ms.append(1000 * (time.perf_counter() - start))
    times_ms = times_ms[WARM_UP:]
    yield "latency_ms_p50", statistics.median(times_ms)
    yield "latency_ms_p90", statistics.quantiles(times_ms, n=10)[-1]
