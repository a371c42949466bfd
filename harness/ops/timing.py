"""Computations timed against each other: in rounds, so that what disturbs the machine disturbs all alike."""

import time
from collections.abc import Callable, Mapping

import torch

Step = Callable[[], object]

ROUNDS = 7
SAMPLE_S = 0.005
"""A sample repeats the step for about that long: above the clock's grain, and long enough to fill a GPU's queue."""
ENOUGH_S = 0.5
"""No further round begins after that."""
HOPELESS = 2.0
"""A step that is that many times slower than the fastest is timed no more."""
TRUSTED = 3
LONG_S = 0.05
"""A step shorter than that is hopeless only after TRUSTED samples: a single one may have been disturbed."""


def least_seconds(steps: Mapping[str, Step], device: torch.device) -> dict[str, float]:
    """Seconds per call of each step that has been called before: the least of its samples."""
    start = time.perf_counter()
    seconds = {name: _sample(step, 1, device) for name, step in steps.items()}
    for done in range(1, ROUNDS):
        most = HOPELESS * min(seconds.values())
        for name in [name for name, s in seconds.items() if s <= most or (s < LONG_S and done < TRUSTED)]:
            calls = max(1, round(SAMPLE_S / max(seconds[name], 1e-6)))
            seconds[name] = min(seconds[name], _sample(steps[name], calls, device))
        if time.perf_counter() - start > ENOUGH_S:
            break
    return seconds


def _sample(step: Step, calls: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        step()
    _wait(device)
    return (time.perf_counter() - start) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
