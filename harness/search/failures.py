"""Failed runs: distinguishes failures of single runs from failures of the whole study."""

from collections.abc import Container
from dataclasses import dataclass, field

from harness.errors import StudyAborted
from harness.search.trial import OpenTrial
from harness.training.run import RunState

MAX_FAILURES_IN_A_ROW = 3
"""Number of failed runs, without a complete one between them, that abort the study as wrong itself."""


@dataclass(slots=True)
class FailureTracker:
    """Counts failed runs in a row; a trial that a failed run would end stays open until another run is complete.

    If all runs fail instead, the study is aborted, and the same command trains them again.
    """

    before: Container[str]
    """Runs that failed in finished trials. If they fail again, they are not counted."""
    suspects: list[OpenTrial] = field(default_factory=list)
    _in_a_row: int = 0

    def is_new(self, run_id: str, state: RunState) -> bool:
        """Whether a run failed for the first time."""
        return state == RunState.FAILED and run_id not in self.before

    def count(self, run_id: str, state: RunState) -> None:
        """Count the end of a run."""
        if state == RunState.COMPLETE:
            self._in_a_row = 0
        elif self.is_new(run_id, state):
            self._in_a_row += 1

    def require_few(self, cause: str | None, log: str) -> None:
        """Raise `StudyAborted` after too many failed runs in a row; `cause` and `log` are those of the last one."""
        if self._in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise StudyAborted(
                f"{MAX_FAILURES_IN_A_ROW} runs in a row failed, the last with: {cause}",
                place=log,
                remedy="Fix the cause and run the same command again; nothing is lost.",
            )

    def release(self) -> list[OpenTrial]:
        """Return and clear the trials that were kept open; their failures are their own."""
        doubted, self.suspects = self.suspects, []
        return doubted
