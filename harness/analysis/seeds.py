"""The seeds of a configuration that have no value, with the reason."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.storage import RunRow
from harness.training.run import RunState

PENDING = (RunState.QUEUED, RunState.RUNNING)


class MissingSeed(NamedTuple):
    """A seed whose run ended without a value."""

    seed: int
    state: str
    """State such as `diverged` or `out of memory`; `stopped` if an earlier version pruned it."""
    cause: str | None

    @property
    def text(self) -> str:
        """Text such as `seed 2 diverged: the training loss is nan`."""
        state = "was stopped by the pruner" if self.state == "stopped" else self.state
        return f"seed {self.seed} {state}{f': {self.cause}' if self.cause else ''}"


def missing_seeds(rows: Iterable[RunRow], seeds: Sequence[int]) -> tuple[MissingSeed, ...]:
    """The ended runs that have no value, by seed; `seeds` are those that have one."""
    ended = {row.run.seed: row for row in rows if row.state not in PENDING and row.run.seed not in seeds}
    return tuple(
        MissingSeed(seed, str(row.state).replace("_", " "), row.cause if row.state != RunState.STOPPED else None)
        for seed, row in sorted(ended.items())
    )


def seeds_text(values: int, missing: Sequence[MissingSeed]) -> str:
    """The n of a mean as text: `4`, or `3 of 4` if one is missing."""
    return f"{values} of {values + len(missing)}" if missing else str(values)


def missing_seeds_text(values: int, missing: Sequence[MissingSeed]) -> str | None:
    """Text such as `3 of 4 seeds: seed 2 diverged: the training loss is nan`; None if no seed is missing."""
    if not missing:
        return None
    return f"{seeds_text(values, missing)} seeds: {'; '.join(seed.text for seed in missing)}"
