"""The seeds that a configuration was to have and has no value of, and why."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.storage import RunRow
from harness.training.run import RunState

PENDING = (RunState.QUEUED, RunState.RUNNING)


class MissingSeed(NamedTuple):
    """A seed that was trained and gave no value."""

    seed: int
    state: str
    """As `diverged`, `out of memory`; `stopped` where a version before this one pruned it."""
    cause: str | None

    @property
    def text(self) -> str:
        """As `seed 2 diverged: the training loss is nan`."""
        state = "was stopped by the pruner" if self.state == "stopped" else self.state
        return f"seed {self.seed} {state}{f': {self.cause}' if self.cause else ''}"


def missing_seeds(rows: Iterable[RunRow], seeds: Sequence[int]) -> tuple[MissingSeed, ...]:
    """Of runs that are over for their study, those that have no value; `seeds` are those that have one."""
    ended = {row.run.seed: row for row in rows if row.state not in PENDING and row.run.seed not in seeds}
    return tuple(
        MissingSeed(seed, str(row.state).replace("_", " "), row.cause if row.state != RunState.STOPPED else None)
        for seed, row in sorted(ended.items())
    )


def seeds_text(values: int, missing: Sequence[MissingSeed]) -> str:
    """The n of a mean: `4`, or `3 of 4` where one is missing."""
    return f"{values} of {values + len(missing)}" if missing else str(values)


def missing_seeds_text(values: int, missing: Sequence[MissingSeed]) -> str | None:
    """As `3 of 4 seeds: seed 2 diverged: the training loss is nan`; None where no seed is missing."""
    if not missing:
        return None
    return f"{seeds_text(values, missing)} seeds: {'; '.join(seed.text for seed in missing)}"
