"""Where the runs behind an answer were computed, said wherever it is not here; and times that are left out for it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.formatting import plural
from harness.storage import RunRow
from harness.training.environment import Environment, describe_difference
from harness.training.run import Job, RunState


@dataclass(frozen=True, slots=True)
class OtherEnvironment:
    """Complete runs of one environment that is not the reference."""

    runs: int
    total: int
    """Complete runs in all."""
    differs_by: str
    """What differs, as `operator revision a1b2, torch 2.14`."""
    here: str = ""
    """The same of the reference, as `operator revision c3d4, torch 2.15`; empty where nothing is known of theirs."""

    @property
    def text(self) -> str:
        """As `3 of 15 runs: operator revision a1b2, torch 2.14`."""
        return f"{self.runs} of {plural(self.total, 'run')}: {self.differs_by}"


def other_environments(rows: Iterable[RunRow], here: Environment) -> tuple[OtherEnvironment, ...]:
    """The complete runs that were computed in other environments than `here`, those alike together; most runs first."""
    complete = [row for row in rows if row.state == RunState.COMPLETE]
    groups: dict[str, list[RunRow]] = {}
    for row in complete:
        if words := difference(row, here):
            groups.setdefault(words, []).append(row)
    by_number = sorted(groups.items(), key=lambda pair: -len(pair[1]))
    return tuple(
        OtherEnvironment(len(rows), len(complete), words, _here_of(rows[0], here)) for words, rows in by_number
    )


def difference(row: RunRow, here: Environment) -> str:
    """How what computed a run differs from `here`; empty where it does not."""
    own = describe_difference(row.environment, here)
    earlier = [words for environment in row.earlier if (words := describe_difference(environment, here))]
    resumed = [f"first epochs: {words}" for words in earlier]
    return "; ".join([own, *resumed] if own else resumed)


def other_environments_text(found: Sequence[OtherEnvironment]) -> list[str]:
    """The origins as a sentence; none for none."""
    parts = [f"{origin.text}{f' (here: {origin.here})' if origin.here else ''}" for origin in found]
    return [f"Other environments: {'; '.join(parts)}."] if parts else []


def _here_of(row: RunRow, here: Environment) -> str:
    """What of the reference differs from a run's environments."""
    known = [environment for environment in row.environments if environment is not None]
    return "; ".join(words for each in known if (words := describe_difference(here, each)))


def environment_values(row: RunRow) -> dict[str, Any]:
    """What computed a run, for JSON: null where it is unknown."""
    return {
        "environment": None if row.environment is None else row.environment.values(),
        "earlier_environments": [None if environment is None else environment.values() for environment in row.earlier],
        "times_environment": None if row.timed is None else row.timed.values(),
    }


def time_notes(rows: Sequence[RunRow], left_out: Iterable[str]) -> list[str]:
    """Why times are missing of these runs, whose ids `left_out` has; and of runs that were measured again, memory."""
    ids = set(left_out)
    complete = [row for row in rows if row.state == RunState.COMPLETE]
    lost = [row for row in complete if row.id in ids and not _has_weights(row)]
    total, notes = plural(len(complete), "run"), []
    if ids:
        notes.append(f"Times and memory of {len(ids)} of {total} are left out, for they are of another environment.")
    if lost:
        notes.append(f"No weights of {len(lost)} of these are kept, so that they cannot be measured again.")
    if len(lost) < len(ids):
        notes.append("`harness run` measures those again whose weights are kept.")
    if again := [row for row in complete if row.timed is not None and row.timed != row.environment]:
        what = (
            "Peak memory" if all(row.run.recipe.transfer is None for row in again) else "Peak memory, and `transfer_s`,"
        )
        them = f"{len(again)} of {total}, whose times were measured again, is left out"
        notes.append(f"{what} of {them}: it is known in training alone.")
    return notes


def _has_weights(row: RunRow) -> bool:
    return row.folder is not None and Job(row.run, row.folder).has_weights
