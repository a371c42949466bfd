"""The seam between the search and the machines: jobs go in, records come out, in the order each run makes them.

A run that was submitted always ends with exactly one `Ended`, whatever becomes of its process or its node.
"""

from dataclasses import dataclass
from typing import Protocol

from harness.training.run import Job, Record


class Executor(Protocol):
    """Trains runs somewhere. One thread of one process, the driver's, calls it."""

    slots: int
    """How many runs are trained at a time; further ones may be submitted and wait their turn."""

    def submit(self, job: Job) -> None:
        """Take a run; returns at once. The same run may be submitted again after its `Ended`."""

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:
        """What has been said since the last call, as (run id, record); waits up to `timeout_s` for the first."""

    def stop(self, run_id: str) -> None:
        """Ask a run to end soon; its last record is then `Ended(STOPPED)`. Nothing happens to one that has ended."""

    def shutdown(self) -> None:
        """Give back all workers, at once; runs still going on end without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The workers that are wanted, all alike."""

    cpus: int = 1
    """Processors of a worker, and threads of its runs."""
    gpus: float = 0.0
    """Share of a GPU, or a whole number of them; where there is no GPU at all, runs are trained on processors."""
    workers: int | None = None
    """How many; null for as many as there is room for."""
    runs: int | None = None
    """How many runs there will be at most, where that is known: more workers than that would have nothing to do."""
    address: str | None = None
    """A Ray cluster, as `host:port`, or `auto` for the one on this machine; null for workers on this machine alone."""
