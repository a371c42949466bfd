"""Time for one image through the merged network, on the device and with the threads that the run was trained with."""

from collections.abc import Iterator

import torch

from harness.measures.base import Trained, deployed
from harness.measures.kept_times import Metrics, kept_times
from harness.measures.timing import sample_until_sure

WARM_UP = 5


@torch.no_grad()
def latency(trained: Trained) -> Iterator[tuple[str, float]]:
    """Milliseconds per forward pass at batch size 1, while nothing else of ours computes on the device.

    The median, its 95 % interval (`low`, `high`), the 90th percentile, the number of passes, and `disturbed` where
    other work of ours did not make room. See `sample_until_sure` for how many passes there are.
    """
    model, image = deployed(trained, batch=1)

    def measure() -> Metrics:
        times = sample_until_sure(lambda: model(image), trained.device, warm_up=WARM_UP)
        low, high = times.interval
        return {
            "latency_ms_p50": 1000 * times.median,
            "latency_ms_p90": 1000 * times.percentile(90),
            "latency_ms_low": 1000 * low,
            "latency_ms_high": 1000 * high,
            "latency_ms_n": float(times.n),
        }

    metrics, is_quiet = kept_times(trained, "latency", model, image, measure)
    yield from metrics.items()
    if not is_quiet:
        yield "latency_ms_disturbed", 1.0
