"""The inline executor in a process of its own: what a plain process takes for a run, start-up aside."""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from harness.errors import HarnessError
from harness.executors import Crew, make_executor
from harness.training.run import Ended, Job, RunState

END_S = 10.0
"""How long the process may take to end before it is killed."""


class Aside:
    """A process that trains one job at a time; a context manager, behind which it is gone."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, self._theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._theirs,), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join(END_S)
        self._process.kill()

    def begin(self, job: Job) -> None:
        """Have it trained; returns at once."""
        self._connection.send(job)

    def wait(self) -> None:
        """Until the job is trained. Raises `HarnessError` where it is not complete then."""
        try:
            ended: Ended = self._connection.recv()
        except EOFError as error:
            raise HarnessError(f"a process of the bench died with exit code {self._process.exitcode}") from error
        if ended.state != RunState.COMPLETE:
            raise HarnessError(f"a proxy of the bench must be complete, but is {ended.state}: {ended.cause}")


def _serve(connection: "Connection[Ended, Job]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    executor = make_executor("inline", Crew())
    while True:
        executor.submit(connection.recv())
        ended = None
        while ended is None:
            ended = next((record for _, record in executor.poll(1.0) if isinstance(record, Ended)), None)
        connection.send(ended)
