"""Fake executor: runs yield the records of a script, and nothing is trained. For tests and benchmarks of the driver."""

from collections.abc import Callable, Iterable, Iterator

from harness.training.run import Ended, Job, Record, RunState

Script = Callable[[Job], Iterable[Record]]


class ScriptedExecutor:
    """Yields the records of a script, one of each running job per poll; a job that is stopped ends STOPPED."""

    def __init__(self, script: Script, *, slots: int = 1) -> None:
        self.slots = slots
        self.submitted: list[Job] = []
        """Every job that was submitted, in order."""
        self._script = script
        self._waiting: list[Job] = []
        self._running: dict[str, Iterator[Record]] = {}

    def submit(self, job: Job) -> None:
        """See `Executor`, as for all methods of this class."""
        self.submitted.append(job)
        self._waiting.append(job)

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:  # noqa: ARG002, D102
        while self._waiting and len(self._running) < self.slots:
            job = self._waiting.pop(0)
            self._running[job.run.id] = iter(self._script(job))
        records = [(run_id, next(script)) for run_id, script in self._running.items()]
        for run_id, record in records:
            if isinstance(record, Ended):
                del self._running[run_id]
        return records

    def stop(self, run_id: str) -> None:  # noqa: D102
        self._waiting = [job for job in self._waiting if job.run.id != run_id]
        self._running[run_id] = iter([Ended(RunState.STOPPED, wall_s=0.0, cause="stopped by the driver")])

    def shutdown(self) -> None:  # noqa: D102
        self._waiting.clear()
        self._running.clear()
