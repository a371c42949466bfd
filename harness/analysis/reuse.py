"""Rules for the reuse of stored runs that another environment computed, and notes on them.

Accuracy is a sample of the same distribution in any environment, and is reused by default. Times and memory are not:
they are measured again on the stored weights, or left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.analysis.formatting import plural
from harness.config.formula import Formula
from harness.config.measures import is_of_machine
from harness.config.study import Study
from harness.storage import RunRow, Store
from harness.storage.transitions import SETTLED
from harness.training.environment import (
    Environment,
    cluster_environment,
    describe_difference,
    differs,
    local_environment,
)
from harness.training.run import Job, RunState

ReuseMode = Literal["any", "same"]
"""`any`: complete runs of every environment are reused; `same`: those of another one are trained again."""
ReuseDecision = Literal["take", "time", "train"]
"""How a settled run is reused: unchanged, with its times measured again, or not at all: it is trained again."""


def study_environment(study: Study, *, is_cluster: bool = False) -> Environment:
    """The environment of a run of the study on this machine; for a cluster, only the parts known on this machine."""
    environment = local_environment(study.proxy, threads=study.resources.cpus, gpus=study.resources.gpus)
    return cluster_environment(environment) if is_cluster else environment


def time_reference(rows: Sequence[RunRow], current: Environment) -> Environment | None:
    """The environment whose times the results show: `current` if any run has times of it, else that of the most runs.

    None means times of an unknown environment. Times of two environments are never shown together.
    """
    timed = [row.timed for row in rows if row.state == RunState.COMPLETE]
    if any(not differs(environment, current) for environment in timed):
        return current
    return max(timed, key=timed.count, default=current)


def without_other_times(
    row: RunRow, metrics: Mapping[str, float], reference: Environment | None
) -> tuple[dict[str, float], bool]:
    """The metrics of a run, without times that are not of the reference; and whether any were left out."""
    is_of_reference = row.timed is None if reference is None else not differs(row.timed, reference)
    kept = {name: value for name, value in metrics.items() if is_of_reference or not is_of_machine(name)}
    return kept, len(kept) < len(metrics)


def needs_times(study: Study) -> bool:
    """Whether an objective, a budget or a claim of the study uses times or memory."""
    names = {*study.objectives, *(name for claim in study.claims for name in Formula(claim.metric).names)}
    return study.budgets.latency_ms is not None or any(map(is_of_machine, names))


@dataclass(frozen=True, slots=True)
class ReuseRule:
    """The rule by which a driver reuses settled runs from its store."""

    study: Study
    store: Store
    environment: Environment
    mode: ReuseMode = "any"
    is_cluster: bool = False

    def decide(self, row: RunRow, metrics: Mapping[str, float] | None = None) -> ReuseDecision:
        """Decide how a settled run is reused; `metrics` are its stored metrics, if they have been read."""
        if self.mode == "same" and not row.is_of(self.environment):
            return "train"
        if row.state != RunState.COMPLETE or not differs(row.timed, self.environment):
            return "take"
        if not any(map(is_of_machine, self.store.metrics(row.id) if metrics is None else metrics)):
            return "take"
        if row.folder is not None and (self.is_cluster or Job(row.run, row.folder).has_weights):
            return "time"
        return "train" if needs_times(self.study) else "take"

    def is_mixture(self, row: RunRow) -> bool:
        """Whether an unfinished run must start again, because another environment trained its first epochs."""
        is_begun = row.state not in (*SETTLED, RunState.QUEUED, RunState.RUNNING) and row.owner is None
        return self.mode == "same" and is_begun and not row.is_of(self.environment)

    def current_metrics(self, run_id: str) -> dict[str, float]:
        """The metrics of a run that were measured in this environment, or do not depend on it."""
        return without_other_times(self.store.run(run_id), self.store.metrics(run_id), self.environment)[0]

    def reset_for_training(self, run_ids: list[str], *, is_open: bool = False) -> None:
        """Reset these runs so that they are trained from the first epoch; see `replace_runs`."""
        from harness.storage.reopening import replace_runs

        for row in replace_runs(self.store, self.study.study, run_ids, is_open=is_open):
            was = "; ".join(
                describe_difference(environment, self.environment) or "this environment"
                for environment in row.environments
            )
            message = f"trained again in this environment; it was of: {was}. Its record is kept"
            self.store.event(self.study.study, "replaced", message, run_id=row.id)


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
