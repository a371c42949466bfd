"""Failed runs: which of them are a run's own failure, and which show that something is wrong with the study."""

from collections.abc import Container
from dataclasses import dataclass, field

from harness.errors import StudyAborted
from harness.search.trial import OpenTrial
from harness.training.run import RunState

MAX_FAILURES_IN_A_ROW = 3
"""As many failed runs without a complete one between them end the study: something is wrong with it, not with them."""


@dataclass(slots=True)
class FailureTracker:
    """Counts failed runs, and keeps the trials that would end with one open until another run is complete.

    If all runs fail instead, the study is aborted, and the same command trains them again.
    """

    before: Container[str]
    """Runs that failed in trials that ended. Where they fail again, nothing else is shown."""
    suspects: list[OpenTrial] = field(default_factory=list)
    _in_a_row: int = 0

    def is_new(self, run_id: str, state: RunState) -> bool:
        """Whether a run failed that had not failed before."""
        return state == RunState.FAILED and run_id not in self.before

    def count(self, run_id: str, state: RunState) -> None:
        """Take in how a run ended."""
        if state == RunState.COMPLETE:
            self._in_a_row = 0
        elif self.is_new(run_id, state):
            self._in_a_row += 1

    def require_few(self, cause: str | None, log: str) -> None:
        """Raise `StudyAborted` after too many in a row; `cause` and `log` are the last one's."""
        if self._in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise StudyAborted(
                f"{MAX_FAILURES_IN_A_ROW} runs in a row failed, the last with: {cause}",
                place=log,
                remedy="Put the cause right and run the same command again; nothing is lost.",
            )

    def release(self) -> list[OpenTrial]:
        """The trials that were kept open, now that their failures are known to be their own."""
        doubted, self.suspects = self.suspects, []
        return doubted
