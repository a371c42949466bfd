"""Notes on runs that were computed in other environments, and on times that are left out for this reason."""

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
    """Number of all complete runs."""
    differs_by: str
    """The difference in their environment, such as `operator revision a1b2, torch 2.14`."""
    reference: str = ""
    """The same in the reference, such as `operator revision c3d4, torch 2.15`; empty if theirs is unknown."""

    @property
    def text(self) -> str:
        """Text such as `3 of 15 runs: operator revision a1b2, torch 2.14`."""
        return f"{self.runs} of {plural(self.total, 'run')}: {self.differs_by}"


def other_environments(rows: Iterable[RunRow], reference: Environment | None) -> tuple[OtherEnvironment, ...]:
    """The complete runs of environments other than `reference`, by difference, most runs first; none without it."""
    if reference is None:
        return ()
    complete = [row for row in rows if row.state == RunState.COMPLETE]
    groups: dict[str, list[RunRow]] = {}
    for row in complete:
        if words := difference(row, reference):
            groups.setdefault(words, []).append(row)
    by_number = sorted(groups.items(), key=lambda pair: -len(pair[1]))
    return tuple(
        OtherEnvironment(len(rows), len(complete), words, _reference_text(rows[0], reference))
        for words, rows in by_number
    )


def difference(row: RunRow, reference: Environment) -> str:
    """How the environments of a run differ from `reference`, as text; empty if they do not."""
    last = describe_difference(row.environment, reference)
    earlier = [words for environment in row.earlier if (words := describe_difference(environment, reference))]
    resumed = [f"first epochs: {words}" for words in earlier]
    return "; ".join([last, *resumed] if last else resumed)


def other_environments_text(origins: Sequence[OtherEnvironment]) -> list[str]:
    """The other environments as a list of one sentence; an empty list if there are none."""
    parts = [f"{origin.text}{f' (here: {origin.reference})' if origin.reference else ''}" for origin in origins]
    return [f"Other environments: {'; '.join(parts)}."] if parts else []


def _reference_text(row: RunRow, reference: Environment) -> str:
    """How the reference differs from a run's environments, as text."""
    environments = [environment for environment in row.environments if environment is not None]
    return "; ".join(words for environment in environments if (words := describe_difference(reference, environment)))


def environment_values(row: RunRow) -> dict[str, Any]:
    """The environments of a run for JSON; null if unknown."""
    return {
        "environment": None if row.environment is None else row.environment.values(),
        "earlier_environments": [None if environment is None else environment.values() for environment in row.earlier],
        "times_environment": None if row.timed is None else row.timed.values(),
    }


def time_notes(rows: Sequence[RunRow], left_out: Iterable[str]) -> list[str]:
    """Notes on missing times of the runs in `left_out`, and on missing memory of runs that were measured again."""
    ids = set(left_out)
    complete = [row for row in rows if row.state == RunState.COMPLETE]
    left = [row for row in complete if row.id in ids]
    without_weights = [row for row in left if row.folder is None or not Job(row.run, row.folder).has_weights]
    total, notes = plural(len(complete), "run"), []
    if ids:
        notes.append(f"Times and memory of {len(ids)} of {total} are left out, since they are of another environment.")
    if without_weights:
        notes.append(f"No weights of {len(without_weights)} of these are kept, so that they cannot be measured again.")
    if len(without_weights) < len(ids):
        notes.append("`harness run` measures those with stored weights again.")
    if again := [row for row in complete if row.timed is not None and row.timed != row.environment]:
        metrics = (
            "Peak memory" if all(row.run.recipe.transfer is None for row in again) else "Peak memory, and `transfer_s`,"
        )
        runs_text = f"{len(again)} of {total}, whose times were measured again, is left out"
        notes.append(f"{metrics} of {runs_text}: it is only measured in training.")
    return notes
