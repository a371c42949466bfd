"""Estimates the remaining time of a study from the times of its runs so far."""

from collections.abc import Iterable

from harness.training.run import Epoch


class TimeLeftEstimator:
    """Estimates from the wall times of complete runs, or before there are any, from the pace of active runs."""

    def __init__(self, walls_s: Iterable[float], epochs: int) -> None:
        self._walls_s = list(walls_s)
        self._epochs = epochs
        self._pace: dict[str, tuple[int, float]] = {}
        """Number of finished epochs, and seconds since the start of this attempt, of every active run."""

    def started(self, run_id: str, first_epoch: int) -> None:
        """Add a run that was started."""
        self._pace[run_id] = (first_epoch - 1, 0.0)

    def advanced(self, run_id: str, epoch: Epoch) -> None:
        """Add a finished epoch; epochs from the run's checkpoint took no time in this attempt."""
        done, seconds = self._pace.get(run_id, (0, 0.0))
        if epoch.epoch <= done:
            return
        self._pace[run_id] = (epoch.epoch, seconds + epoch.wall_s)

    def ended(self, run_id: str, wall_s: float | None) -> None:
        """Remove a run that has ended; `wall_s` is the wall time of a complete run, else None."""
        self._pace.pop(run_id, None)
        if wall_s is not None:
            self._walls_s.append(wall_s)

    def left_s(self, runs: int, workers: int) -> float | None:
        """Seconds until `runs` runs, including active ones, are trained; None before any epoch has ended."""
        per_run = self._walls_s or [s / n * self._epochs for n, s in self._pace.values() if n and s]
        if not per_run:
            return None
        under_way = sum(n for n, _ in self._pace.values()) / max(1, self._epochs)
        return max(0.0, runs - under_way) * sum(per_run) / len(per_run) / workers
