"""Reopens finished trials that no longer agree with their runs, before a study is driven.

Runs can change after a trial has ended: rows are deleted, a database is replaced, another environment or another study
computes them again. A run that failed may succeed when it is trained again. There is one rule for all causes: every
seed of a finished trial has a settled run, and the trial's values are those of its runs. A trial that violates it
returns to Optuna's queue with its number, parameters and seeds; the driver takes the finished runs from the store, and
trains the others. What is done about the open trials of a killed driver is in docs/architecture.md, "After a kill".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.configuration_result import RunResult, of_one_environment, read_run_results
from harness.analysis.reuse import ReuseDecision, ReuseRule
from harness.config.measures import is_of_machine
from harness.search.trial import FURTHER_OBJECTIVES
from harness.storage import Store
from harness.storage.transitions import SETTLED

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

REOPENED = "trial reopened"
"""Kind of the stored event whose message is the reason."""
LACKS_RUN = "the database lacks a run of it"
OTHER_VALUES = "its runs have other values now"
TIMES_ELSEWHERE = "its times are of another environment"


class ReopenedTrials(NamedTuple):
    """Result of `reopen_outdated`."""

    trials: int
    failed: frozenset[str]
    """Ids of the failed runs of reopened trials, which are trained again."""


@dataclass(frozen=True, slots=True)
class _FinishedTrial:
    """A finished trial and the runs of its seeds, without its screening run, which does not count for its value."""

    trial: "FrozenTrial"
    runs: Sequence[RunResult]
    fates: Mapping[str, ReuseDecision]
    """How each settled run is reused, by its id."""

    @property
    def failed(self) -> list[RunResult]:
        """Runs without a final outcome; diverged runs have one."""
        return [run for run in self.runs if run.row.state not in SETTLED]

    def is_to_train(self) -> bool:
        """Whether one of its runs must be trained again in this environment."""
        return "train" in self.fates.values()


def reopen_outdated(rule: ReuseRule, trials: "optuna.Study") -> ReopenedTrials:
    """Put the study's finished trials that violate the rule above back into the queue.

    Runs of another environment that `rule` does not reuse are reset first, which reopens their trials in all studies.
    To be called under the study's `DriverLock`; open `trials` again if any trial was reopened.
    """
    from harness.storage.reopening import reopen_trials

    store, study = rule.store, rule.study.study
    for row in store.reopen_incomplete(study):
        store.event(study, "run reopened", f"{row.cause}", run_id=row.id)
    checked = _checked_trials(rule, trials)
    to_train = [entry for entry in checked if entry.is_to_train()]
    if to_train:
        ids = {run_id for entry in to_train for run_id, fate in entry.fates.items() if fate == "train"}
        rule.reset_for_training(sorted(ids))
    rest = {entry.trial.number: entry for entry in checked if not entry.is_to_train()}
    known_good = {entry.trial.user_attrs["fingerprint"] for entry in checked if entry.trial.state.name != "FAIL"}
    reasons = {
        number: reason for number, entry in rest.items() if (reason := _reopening_cause(entry, rule, known_good))
    }
    with store.session() as session:
        reopen_trials(session.connection(), ((study, number) for number in reasons), is_anew=False)
    for number, reason in reasons.items():
        store.event(study, REOPENED, reason, trial=number)
    failed = frozenset(run.row.id for number in reasons for run in rest[number].failed)
    return ReopenedTrials(len(reasons) + len(to_train), failed)


def reopen_paused(store: Store, study: str, numbers: Sequence[int]) -> None:
    """Put trials that ended paused back into the queue, since a study whose file has changed may promote them."""
    from harness.storage.reopening import reopen_trials

    with store.session() as session:
        reopen_trials(session.connection(), ((study, number) for number in numbers), is_anew=False)
    for number in numbers:
        store.event(study, REOPENED, "the study file has changed, so that it may be promoted", trial=number)


def _checked_trials(rule: ReuseRule, trials: "optuna.Study") -> list[_FinishedTrial]:
    """The finished trials that had seeds, with their runs; read in four queries."""
    finished = [
        trial
        for trial in trials.get_trials(deepcopy=False)
        if trial.state.is_finished() and "seeds" in trial.user_attrs
    ]
    links = rule.store.trial_runs(rule.study.study)
    runs = read_run_results(rule.store, {run_id for trial in finished for run_id in links.get(trial.number, ())})
    fates = {run.row.id: rule.decide(run.row, run.measures) for run in runs.values() if run.row.state in SETTLED}
    checked = []
    for trial in finished:
        linked = [runs[run_id] for run_id in links.get(trial.number, ()) if run_id in runs]
        of_seeds = [run for run in linked if run.row.run.seed in trial.user_attrs["seeds"]]
        own_fates = {run.row.id: fates[run.row.id] for run in of_seeds if run.row.id in fates}
        checked.append(_FinishedTrial(trial, of_seeds, own_fates))
    return checked


def _reopening_cause(checked: _FinishedTrial, rule: ReuseRule, known_good: set[str]) -> str | None:
    """The reason to reopen a trial; None if it stays finished.

    A failed trial stays finished if its configuration is in `known_good`: another trial of it did not fail.
    """
    trial = checked.trial
    if "time" in checked.fates.values():
        return TIMES_ELSEWHERE
    if trial.state.name == "FAIL" and trial.user_attrs["fingerprint"] not in known_good:
        return _unfinished_cause(checked)
    if trial.state.name != "COMPLETE" or "values" not in trial.user_attrs:
        return None
    if reason := _unfinished_cause(checked):
        return reason
    stored = {rule.study.objective: trial.user_attrs["values"]} | trial.user_attrs.get(FURTHER_OBJECTIVES, {})
    is_same = all(
        sorted(_values(checked.runs, rule, metric)) == sorted(stored.get(metric, ()))
        for metric in rule.study.objectives
    )
    return None if is_same and not _has_other_times(checked, rule) else OTHER_VALUES


def _unfinished_cause(checked: _FinishedTrial) -> str | None:
    """The reason to train a seed: its run does not exist, or failed; None if there is no such seed."""
    if {run.row.run.seed for run in checked.runs} < set(checked.trial.user_attrs["seeds"]):
        return LACKS_RUN
    named = [f"seed {run.row.run.seed} {str(run.row.state).replace('_', ' ')}" for run in checked.failed]
    return f"{', '.join(named)}: trained again" if named else None


def _has_other_times(checked: _FinishedTrial, rule: ReuseRule) -> bool:
    """Whether the times of a trial differ from those of its first run."""
    if not checked.runs:
        return False
    first = checked.runs[0]
    current = of_one_environment(first, rule.environment).measures
    return any(
        is_of_machine(name) and name in first.measures and current.get(name) != value
        for name, value in checked.trial.user_attrs.items()
    )


def _values(runs: Iterable[RunResult], rule: ReuseRule, metric: str) -> list[float]:
    values = (of_one_environment(run, rule.environment).value(metric) for run in runs)
    return [value for value in values if value is not None]
