"""How long the rest of a study will take, by what its runs have taken so far."""

from collections.abc import Iterable

from harness.training.run import Epoch


class TimeLeftEstimator:
    """Keeps the wall times of complete runs, and the pace of those under way until there are any."""

    def __init__(self, walls_s: Iterable[float], epochs: int) -> None:
        self._walls_s = list(walls_s)
        self._epochs = epochs
        self._pace: dict[str, tuple[int, float]] = {}
        """Epochs done, and seconds taken since it was taken up, of every run under way."""

    def started(self, run_id: str, first_epoch: int) -> None:
        """A run was taken up."""
        self._pace[run_id] = (first_epoch - 1, 0.0)

    def advanced(self, run_id: str, epoch: Epoch) -> None:
        """A run has finished an epoch; those that come out of its checkpoint took no time now."""
        done, seconds = self._pace.get(run_id, (0, 0.0))
        if epoch.epoch <= done:
            return
        self._pace[run_id] = (epoch.epoch, seconds + epoch.wall_s)

    def ended(self, run_id: str, wall_s: float | None) -> None:
        """A run is over; `wall_s` of a complete one."""
        self._pace.pop(run_id, None)
        if wall_s is not None:
            self._walls_s.append(wall_s)

    def left_s(self, runs: int, workers: int) -> float | None:
        """Seconds until `runs` runs, those under way included, are trained; None before anything is known."""
        per_run = self._walls_s or [s / n * self._epochs for n, s in self._pace.values() if n and s]
        if not per_run:
            return None
        under_way = sum(n for n, _ in self._pace.values()) / max(1, self._epochs)
        return max(0.0, runs - under_way) * sum(per_run) / len(per_run) / workers
