"""Timer of an epoch, which also measures the time spent waiting for images."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

PROGRESS_EVERY_S = 2.0
"""Interval at which a training reports its progress."""


class Timer:
    """Starts on construction; `train_s` and `waiting_s` continue from an interrupted epoch."""

    def __init__(self, train_s: float = 0.0, waiting_s: float = 0.0) -> None:
        self._before = train_s
        self._start = self._pulse = time.perf_counter()
        self.waiting_s = waiting_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since construction."""
        return time.perf_counter() - self._start

    @property
    def train_s(self) -> float:
        """Seconds of the whole epoch so far."""
        return self._before + self.elapsed_s

    @property
    def waiting_share(self) -> float:
        """Share of the epoch so far that was spent waiting."""
        return self.waiting_s / max(self.train_s, 1e-9)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Context whose duration counts as waiting."""
        start = time.perf_counter()
        yield
        self.waiting_s += time.perf_counter() - start

    def is_due(self) -> bool:
        """Whether to report progress now; true at most once per `PROGRESS_EVERY_S`."""
        now = time.perf_counter()
        if now - self._pulse < PROGRESS_EVERY_S:
            return False
        self._pulse = now
        return True
