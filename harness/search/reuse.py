"""What a study takes from the store of runs that another environment computed, and what it has computed again.

Accuracy is a draw of the same distribution in any environment, and is taken by default. Times and memory are not: they
are measured again on the stored weights, or left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.environment import Environment, describe_difference, differs, environment_here, of_cluster
from harness.formula import Formula
from harness.metrics import is_of_machine
from harness.run import Epoch, Job, RunState
from harness.search.objective import objective_value
from harness.store import RunRow, Store
from harness.study import Study

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

Reusable = Literal["any", "same"]
"""`any`: complete runs of every environment are taken; `same`: those of another one are trained again."""
Fate = Literal["take", "time", "train"]
"""Of a settled run: taken as it is, with its times measured again, or trained again."""
SETTLED = (RunState.COMPLETE, RunState.DIVERGED)


def environment_of(study: Study, *, is_cluster: bool = False) -> Environment:
    """What would compute a run of the study on this machine; of a cluster, only what can be known from here."""
    here = environment_here(study.proxy, threads=study.resources.cpus, gpus=study.resources.gpus)
    return of_cluster(here) if is_cluster else here


def current_figures(row: RunRow, figures: Mapping[str, float], here: Environment) -> dict[str, float]:
    """What was measured on a run, without times and memory of another environment."""
    is_current = not differs(row.timed, here)
    return {name: value for name, value in figures.items() if is_current or not is_of_machine(name)}


def time_reference(rows: Sequence[RunRow], here: Environment) -> Environment | None:
    """The environment whose times an answer shows: `here` if any run has such, else that of the most runs.

    None stands for times of an unknown environment; those of two environments never stand side by side.
    """
    timed = [row.timed for row in rows if row.state == RunState.COMPLETE]
    if any(not differs(each, here) for each in timed):
        return here
    return max(timed, key=timed.count, default=here)


def without_other_times(
    row: RunRow, figures: Mapping[str, float], reference: Environment | None
) -> tuple[dict[str, float], bool]:
    """What was measured on a run, without times that are not of the reference; and whether any were left out."""
    is_of_reference = row.timed is None if reference is None else not differs(row.timed, reference)
    kept = {name: value for name, value in figures.items() if is_of_reference or not is_of_machine(name)}
    return kept, len(kept) < len(figures)


def needs_times(study: Study) -> bool:
    """Whether an objective, a budget or a claim of the study rests on a time or on memory."""
    names = {*study.objectives, *(name for claim in study.claims for name in Formula(claim.metric).names)}
    return study.budgets.latency_ms is not None or any(map(is_of_machine, names))


@dataclass(frozen=True, slots=True)
class Reuse:
    """The rule by which a driver takes settled runs from its store."""

    study: Study
    store: Store
    here: Environment
    mode: Reusable = "any"
    is_cluster: bool = False

    def fate(self, row: RunRow, figures: Mapping[str, float] | None = None) -> Fate:
        """What is to become of a settled run; `figures` is what was measured on it, if that has been read."""
        if self.mode == "same" and not row.is_of(self.here):
            return "train"
        if row.state != RunState.COMPLETE or not differs(row.timed, self.here):
            return "take"
        if not any(map(is_of_machine, self.store.measures(row.id) if figures is None else figures)):
            return "take"
        if row.folder is not None and (self.is_cluster or Job(row.run, row.folder).has_weights):
            return "time"
        return "train" if needs_times(self.study) else "take"

    def is_mixture(self, row: RunRow) -> bool:
        """Whether an unfinished run must begin anew, because another environment trained its first epochs."""
        is_begun = row.state not in (*SETTLED, RunState.QUEUED, RunState.RUNNING) and row.owner is None
        return self.mode == "same" and is_begun and not row.is_of(self.here)

    def figures(self, run_id: str) -> dict[str, float]:
        """What was measured on a run in this environment, and all that does not depend on it."""
        return current_figures(self.store.run(run_id), self.store.measures(run_id), self.here)

    def train_again(self, run_ids: list[str], *, is_open: bool = False) -> None:
        """Have these runs trained from their first epoch on; see `replace_runs`."""
        from harness.store.reopening import replace_runs

        for row in replace_runs(self.store, self.study.study, run_ids, is_open=is_open):
            was = "; ".join(describe_difference(each, self.here) or "this environment" for each in row.environments)
            message = f"trained again in this environment; it was of: {was}. Its record is kept"
            self.store.event(self.study.study, "replaced", message, run_id=row.id)

    def take_back(self, trials: "optuna.Study") -> int:
        """Put the study's finished trials that do not hold here back into Optuna's queue; gives how many.

        Trials do not hold that rest on a run to be trained again, on times of another environment, or on values that
        their runs do not have any longer. `trials` is to be opened again after any.
        """
        from harness.store.reopening import reopen_trials

        finished = {trial.number: trial for trial in trials.get_trials(deepcopy=False) if trial.state.is_finished()}
        links = {
            number: [run_id for run_id in ids if run_id in finished[number].user_attrs.get("runs", ids)]
            for number, ids in self.store.trial_runs(self.study.study).items()
            if number in finished
        }  # a screening run gives its trial no value
        runs = self._read({run_id for ids in links.values() for run_id in ids})
        fates = {
            run_id: self.fate(each.row, each.figures) for run_id, each in runs.items() if each.row.state in SETTLED
        }
        again = [run_id for run_id, fate in fates.items() if fate == "train"]
        if again:
            self.train_again(again)
        stale = [
            number
            for number, ids in links.items()
            if any(fates.get(run_id) == "time" for run_id in ids)
            or self._is_outdated(finished[number], [runs[run_id] for run_id in ids if run_id in runs])
        ]
        with self.store.session() as session:
            owners = [(self.study.study, number) for number in stale]
            count = reopen_trials(session.connection(), owners, is_anew=False)
        return count + sum(any(run_id in again for run_id in ids) for ids in links.values())

    def _read(self, run_ids: set[str]) -> dict[str, "_Stored"]:
        """All that the store has of these runs, in three questions."""
        curves, figures = self.store.curves(run_ids), self.store.figures(run_ids)
        return {
            run_id: _Stored(row, curves.get(run_id, []), figures.get(run_id, {}))
            for run_id, row in self.store.runs(run_ids).items()
        }

    def _is_outdated(self, trial: "FrozenTrial", runs: Sequence["_Stored"]) -> bool:
        """Whether a complete trial has another value, or other times, than its runs."""
        if trial.state.name != "COMPLETE" or "values" not in trial.user_attrs or not runs:
            return False
        if sorted(self._values(runs)) != sorted(trial.user_attrs["values"]):
            return True
        first = runs[0]
        current = current_figures(first.row, first.figures, self.here)
        return any(
            is_of_machine(name) and name in first.figures and current.get(name) != value
            for name, value in trial.user_attrs.items()
        )

    def _values(self, runs: Sequence["_Stored"]) -> Iterator[float]:
        metric = next(iter(self.study.objectives))
        for each in runs:
            if each.row.state == RunState.COMPLETE:
                figures = current_figures(each.row, each.figures, self.here)
                value = objective_value(metric, each.row.run, each.curve, figures)
                if value is not None:
                    yield value


@dataclass(frozen=True, slots=True)
class _Stored:
    """A run with all that the store has of it."""

    row: RunRow
    curve: Sequence[Epoch]
    figures: Mapping[str, float]
