"""The time of an epoch, and how much of it went by in waiting for images."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

PROGRESS_EVERY_S = 2.0
"""How often a training says how it goes."""


class Timer:
    """Runs from its making on; goes on from the seconds that an interrupted epoch has behind it."""

    def __init__(self, train_s: float = 0.0, waiting_s: float = 0.0) -> None:
        self._before = train_s
        self._start = self._pulse = time.perf_counter()
        self.waiting_s = waiting_s

    @property
    def elapsed_s(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._start

    @property
    def train_s(self) -> float:
        """Of the whole epoch so far."""
        return self._before + self.elapsed_s

    @property
    def waiting_share(self) -> float:
        """Of the whole epoch so far."""
        return self.waiting_s / max(self.train_s, 1e-9)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what happens inside as waiting."""
        start = time.perf_counter()
        yield
        self.waiting_s += time.perf_counter() - start

    def is_due(self) -> bool:
        """Whether it is time to say how it goes; once for each time."""
        now = time.perf_counter()
        if now - self._pulse < PROGRESS_EVERY_S:
            return False
        self._pulse = now
        return True
