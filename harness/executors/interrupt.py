"""Ctrl-C and SIGTERM: the first signal stops a study at the next safe moment, the second stops it immediately.

A signal may arrive while records are on their way from a worker into the database. While workers are busy it is
therefore only noted, and raised as KeyboardInterrupt from the executor's `poll`, which keeps its records for the next
call.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from harness.executors.base import Executor
from harness.training.run import Ended, Job, Record

EXIT_CODE = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = "\x1b[?25h"


class Interrupt:
    """Context manager that handles the signals inside its `with` block."""

    def __init__(self, *, is_command: bool = True) -> None:
        """`is_command`: this process runs nothing else, so SIGTERM is handled, too, and the second signal exits.

        Otherwise only Ctrl-C is handled, in the main thread, and the second raises KeyboardInterrupt immediately.
        """
        self._is_command = is_command
        self.is_asked = False
        self.is_busy: Callable[[], bool] = lambda: False
        """Returns whether KeyboardInterrupt must wait for the executor's `poll`."""
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if self._is_command or threading.current_thread() is threading.main_thread():
            signals = SIGNALS if self._is_command else (signal.SIGINT,)
            self._before = {number: signal.signal(number, self._take) for number in signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.is_asked and self._is_command:
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), SHOW_CURSOR.encode())
            os._exit(EXIT_CODE)
        is_second, self.is_asked = self.is_asked, True
        if is_second or not self.is_busy():
            raise KeyboardInterrupt


class InterruptibleExecutor:
    """An executor whose `poll` raises KeyboardInterrupt after a signal, without losing a record."""

    def __init__(
        self, executor: Executor, interrupt: Interrupt, on_stop: Callable[[], None], *, is_here: bool = False
    ) -> None:
        """`is_here`: it trains inside `poll`, which KeyboardInterrupt may end anywhere without losing a record."""
        self.slots = executor.slots
        self._executor = executor
        self._interrupt = interrupt
        self._on_stop = on_stop
        self._active: set[str] = set()
        self._kept: list[tuple[str, Record]] = []
        self._is_raised = False
        self._is_training = False
        interrupt.is_busy = lambda: bool(self._active) and not (is_here and self._is_training)

    def submit(self, job: Job) -> None:
        """See `Executor`, as for all methods of this class."""
        self._active.add(job.run.id)
        self._executor.submit(job)

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:
        """See `Executor`. Raises KeyboardInterrupt at most once."""
        kept, self._kept = self._kept, []
        try:
            records = kept + self._polled(0.0 if kept else timeout_s)
        except KeyboardInterrupt:
            self._is_raised = True
            self._on_stop()
            raise
        self._active -= {run_id for run_id, record in records if isinstance(record, Ended)}
        if self._interrupt.is_asked and not self._is_raised:
            self._is_raised = True
            self._kept = records
            self._on_stop()
            raise KeyboardInterrupt
        return records

    def _polled(self, timeout_s: float) -> list[tuple[str, Record]]:
        self._is_training = True
        try:
            return self._executor.poll(timeout_s)
        finally:
            self._is_training = False

    def stop(self, run_id: str) -> None:
        """See `Executor`."""
        self._executor.stop(run_id)

    def shutdown(self) -> None:
        """See `Executor`."""
        self._executor.shutdown()
