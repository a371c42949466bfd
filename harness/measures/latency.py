"""Time for one image through the merged network, on the device and with the threads that the run was trained with."""

from collections.abc import Iterator

import torch

from harness.measures.base import Trained, deployed
from harness.measures.timing_cache import Metrics, kept_times
from harness.ops.timing import sample_until_sure

WARM_UP = 5
REPEATS = 30
"""Passes at least, where they are not too long; see `sample_until_sure`."""
DISTURBED = "latency_ms_disturbed"


@torch.no_grad()
def latency(trained: Trained) -> Iterator[tuple[str, float]]:
    """Milliseconds per forward pass at batch size 1, while nothing else of ours computes on the device.

    The median, its 95 % interval (`low`, `high`), the 90th percentile, the number of passes, that of passes left out
    because another program had the processor, and `disturbed` where that could not be avoided: where other work of ours
    did not make room, or other programs had it nearly always. See `sample_until_sure`.
    """
    model, image = deployed(trained, batch=1)

    def measure() -> Metrics:
        sampled = sample_until_sure(lambda: model(image), trained.device, warm_up=WARM_UP, least=REPEATS)
        times = sampled.times
        low, high = times.interval
        metrics = {
            "latency_ms_p50": 1000 * times.median,
            "latency_ms_p90": 1000 * times.percentile(90),
            "latency_ms_low": 1000 * low,
            "latency_ms_high": 1000 * high,
            "latency_ms_n": float(times.n),
            "latency_ms_left_out": float(sampled.left_out),
            DISTURBED: float(sampled.is_disturbed),
        }
        return {name: value for name, value in metrics.items() if value}

    metrics, is_quiet = kept_times(trained, "latency", model, image, measure)
    yield from (metrics if is_quiet else metrics | {DISTURBED: 1.0}).items()
