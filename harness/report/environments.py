"""Where the runs behind an answer were computed, said wherever it is not here; and times that are left out for it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.environment import UNKNOWN, Environment, describe_difference, describe_environment
from harness.report.words import counted
from harness.run import Job, RunState
from harness.store import RunRow


@dataclass(frozen=True, slots=True)
class Origin:
    """Complete runs of one environment that is not the reference."""

    runs: int
    total: int
    """Complete runs in all."""
    differs_by: str
    """What differs, as `operator revision a1b2, torch 2.14`."""

    @property
    def text(self) -> str:
        """As `3 of 15 runs: operator revision a1b2, torch 2.14`."""
        return f"{self.runs} of {counted(self.total, 'run')}: {self.differs_by}"


def origins(rows: Iterable[RunRow], here: Environment) -> tuple[Origin, ...]:
    """The complete runs that were computed in other environments than `here`, those alike together; most runs first."""
    complete = [row for row in rows if row.state == RunState.COMPLETE]
    counts: dict[str, int] = {}
    for row in complete:
        if words := difference(row, here):
            counts[words] = counts.get(words, 0) + 1
    by_number = sorted(counts.items(), key=lambda pair: -pair[1])
    return tuple(Origin(runs, len(complete), words) for words, runs in by_number)


def difference(row: RunRow, here: Environment) -> str:
    """How what computed a run differs from `here`; empty where it does not."""
    own = describe_difference(row.environment, here)
    earlier = [words for each in row.earlier if (words := describe_difference(each, here))]
    resumed = [f"first epochs: {words}" for words in earlier]
    return "; ".join([own, *resumed] if own else resumed)


def origin_sentences(found: Sequence[Origin], here: Environment | None) -> list[str]:
    """The origins in sentences, the environment that they are compared with at the end; none for none."""
    if not found or here is None:
        return []
    said = [f"Of another environment: {'; '.join(origin.text for origin in found)}."]
    if any(origin.differs_by != UNKNOWN for origin in found):
        said.append(f"Here: {describe_environment(here)}.")
    return said


def environment_values(row: RunRow) -> dict[str, Any]:
    """What computed a run, for JSON: null where it is unknown."""
    return {
        "environment": None if row.environment is None else row.environment.values(),
        "earlier_environments": [None if each is None else each.values() for each in row.earlier],
        "times_environment": None if row.timed is None else row.timed.values(),
    }


def time_notes(rows: Sequence[RunRow], left_out: Iterable[str]) -> list[str]:
    """Why times are missing of these runs, whose ids `left_out` has; and of runs that were measured again, memory."""
    ids = set(left_out)
    complete = [row for row in rows if row.state == RunState.COMPLETE]
    lost = [row for row in complete if row.id in ids and not _has_weights(row)]
    total, notes = counted(len(complete), "run"), []
    if ids:
        notes.append(f"Times and memory of {len(ids)} of {total} are left out, for they are of another environment.")
    if lost:
        notes.append(f"No weights of {len(lost)} of these are kept, so that they cannot be measured again.")
    if len(lost) < len(ids):
        notes.append("`harness run` measures those again whose weights are kept.")
    if again := [row for row in complete if row.timed is not None and row.timed != row.environment]:
        peak = f"peak memory and the time of a transfer of {len(again)} of {total}"
        notes.append(f"Left out is {peak}: it is known in training alone, and their times were measured again.")
    return notes


def _has_weights(row: RunRow) -> bool:
    return row.folder is not None and Job(row.run, row.folder).has_weights
