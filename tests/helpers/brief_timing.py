"""A latency of three passes, for tests that need one and not its precision."""

from collections.abc import Callable

import torch

from harness.measures import speed
from harness.ops.timing import Timings, UndisturbedTimings, seconds_per_call


def time_three_passes(call: Callable[[], object], device: torch.device, **_: int) -> UndisturbedTimings:
    """In place of `harness.ops.timing.time_until_precise`."""
    times = Timings(tuple(seconds_per_call(call, device) for _ in range(3)))
    return UndisturbedTimings(times, left_out=0, is_disturbed=False)


def time_briefly() -> None:
    """Measure all latencies of this process so."""
    vars(speed).update(time_until_precise=time_three_passes)
