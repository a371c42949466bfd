"""The time of an epoch, and how much of it went by in waiting for images."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

PULSE_S = 2.0
"""How often a training says how it goes."""


class Clock:
    """Runs from its making on; goes on from the seconds that an interrupted epoch has behind it."""

    def __init__(self, train_s: float = 0.0, waiting_s: float = 0.0) -> None:
        self._before = train_s
        self._start = self._pulse = time.perf_counter()
        self.waiting_s = waiting_s

    @property
    def here_s(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._start

    @property
    def train_s(self) -> float:
        """Of the whole epoch so far."""
        return self._before + self.here_s

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

    def beats(self) -> bool:
        """Whether it is time to say how it goes; once for each time."""
        now = time.perf_counter()
        if now - self._pulse < PULSE_S:
            return False
        self._pulse = now
        return True
