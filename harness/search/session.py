"""Opens a study for its driver: checks the study file and the data, and prepares the store, Optuna and the driver."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from harness.analysis.claims import paired_seeds
from harness.analysis.plan import TrialsDone
from harness.analysis.plan_history import pending_change
from harness.analysis.racing import RACE_ROUND
from harness.analysis.reuse import ReuseMode, ReuseRule, study_environment
from harness.analysis.study_reader import naming_lines, study_title
from harness.config.space import Space
from harness.config.study import Study
from harness.config.study_file import StudyFile, recipe_of_most_images, resolved_yaml
from harness.config.study_growth import StudyChanges, compare_studies, identity, study_values
from harness.data import DataInfo, check, identify
from harness.errors import NotFound, StudyError
from harness.search.driver import Driver, DriverContext
from harness.search.enqueue import Enqueued, enqueued_configurations
from harness.search.history import StudyHistory
from harness.search.promotion import paused_trials
from harness.search.reopening import reopen_outdated, reopen_paused
from harness.search.samplers import build_sampler, pruner_of
from harness.search.search_log import log_start
from harness.search.trial import distribution_of, suggest
from harness.storage import (
    DriverLock,
    RunRow,
    Store,
    delete_study,
    load_study,
    open_study,
    require_study,
    widen_distributions,
)
from harness.storage.data_changes import require_same_data, write_description
from harness.storage.rows import STUDY_GROWN
from harness.storage.workspace import Workspace
from harness.system.fingerprint import fingerprint

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from harness.executors.base import Executor

RENAME_REMEDY = (
    "Give the file another name under `study:` (runs that both need are taken from the store), or start this one again "
    "with `--fresh`."
)
CHANGE_REMEDY = (
    f"Seeds, trials, values of an axis and claims can be added. For anything else: "
    f"{RENAME_REMEDY[0].lower()}{RENAME_REMEDY[1:]}"
)


@dataclass(frozen=True, slots=True)
class DrivenStudy:
    """A study that this process drives."""

    driver: Driver
    store: Store
    optuna: "optuna.Study"

    def trials(self) -> "list[FrozenTrial]":
        """Optuna's trials in their current state."""
        return self.optuna.get_trials(deepcopy=False)


def same_data(file: StudyFile, store: Store, workspace: Workspace, digest: str | None) -> DataInfo:
    """The data set of a study, with this digest. Raises `StudyError` if the study has runs on other data."""
    study = file.study
    info = replace(identify(study.proxy, workspace.data_cache), digest=digest)
    require_same_data(store, study.study, info, study.proxy, workspace.folder(study.study))
    return info


def check_data(file: StudyFile, cache: Path, digest: str | None) -> tuple[str, ...]:
    """Check the images of a study, whose data set has this digest; returns notes, see `harness.data.check`.

    Raises `DataError`, which names the file's line, for data that its runs cannot be trained on.
    """
    with naming_lines(file):
        return check(recipe_of_most_images(file), cache, digest)


@contextmanager
def open_for_driving(
    file: StudyFile,
    space: Space,
    workspace: Workspace,
    start_executor: "Callable[[], Executor]",
    *,
    is_fresh: bool = False,
    reuse: ReuseMode = "any",
    is_cluster: bool = False,
    enqueued: Sequence[Enqueued] | None = None,
) -> Iterator[DrivenStudy]:
    """Open a study to drive it; the `with` block holds the study's lock.

    `reuse` decides how runs of another environment are used; with `is_cluster`, the workers' environment is not that of
    this machine. `enqueued` are the configurations that are tried first; by default, those that the file lists.

    Raises `UserError`s if another process drives the study, and if the file no longer matches the study.
    """
    study = file.study
    resolved = resolved_yaml(file)
    with Store.open(workspace.database) as store, DriverLock(store, study.study):
        if is_fresh:
            _remove_files(delete_study(store, study.study))
        enqueued = enqueued_configurations(file, space, store) if enqueued is None else enqueued
        added = study_changes(file, store).added
        is_changed = any(row.name == study.study and row.resolved != resolved for row in store.studies())
        info = same_data(file, store, workspace, space.data)
        change = pending_change(study, store, paired_seeds(study, space, store), added)
        store.save_study(
            study.study,
            fingerprint=fingerprint(identity(study_values(resolved))),
            resolved=resolved,
            change=None if change is None else change.text(),
        )
        if added:
            store.event(study.study, STUDY_GROWN, "; ".join(added))
        folder = workspace.folder(study.study)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.yaml").write_text(resolved, encoding="utf-8")
        _keep_plugin(file, folder)
        write_description(folder, info)
        trials = open_study(store, study.study, directions=list(study.objectives.values()))
        rule = ReuseRule(study, store, study_environment(study, is_cluster=is_cluster), reuse, is_cluster)
        reopened = reopen_outdated(rule, trials)
        if reopened.trials:
            trials = open_study(store, study.study, directions=list(study.objectives.values()))
        if is_changed and (paused := paused_trials(trials.get_trials(deepcopy=False))):
            reopen_paused(store, study.study, paused)
            trials = open_study(store, study.study, directions=list(study.objectives.values()))
        with store.translate_errors():
            widen_distributions(trials, {name: distribution_of(axis) for name, axis in space.axes.items()})
            _describe(trials, file)
        earlier = trials.get_trials(deepcopy=False)
        log_start(store, study, resolved, enqueued, trials=len(earlier), reopened=reopened.trials)
        searched = sum(RACE_ROUND not in trial.user_attrs for trial in earlier)

        def sampler_of(count: int) -> "BaseSampler":
            return build_sampler(study.search, space, count, file.plugin)

        trials.sampler = sampler_of(searched)
        trials.pruner = pruner_of(study.search, study.proxy.epochs)
        inputs = DriverContext(
            study, space, store, trials, folder, start_executor, rule, enqueued, reopened.failed, sampler_of
        )
        yield DrivenStudy(Driver(inputs), store, trials)
        require_study(store, trials)


def check_sampler(file: StudyFile, space: Space) -> None:
    """Raise `StudyError`, with the file's line, for a plug-in sampler that cannot be built; writes nothing.

    Also for one that refuses several objectives, if the study has them.
    """
    if file.plugin is None:
        return
    try:
        sampler = build_sampler(file.study.search, space, 0, file.plugin)
        if file.study.has_several_objectives:
            _require_several_objectives(sampler, file.study, space)
    except StudyError as error:
        error.place = error.place or file.place(("search", "sampler"))
        raise


def _require_several_objectives(sampler: "BaseSampler", study: Study, space: Space) -> None:
    """Raise `StudyError` if a sampler refuses several objectives, as Optuna's do at the second trial."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        trials = optuna.create_study(directions=list(study.objectives.values()), sampler=sampler)
        for _ in range(2):
            trial = trials.ask()
            space.sample(suggest(trial))
            trials.tell(trial, [0.0] * len(study.objectives))
    except ValueError as error:
        rule = f"the sampler must take the {len(study.objectives)} objectives of the study: {error}"
        remedy = "Keep one objective, or search with tpe, gp or nsga2."
        raise StudyError(rule, value=study.search.sampler, remedy=remedy) from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _keep_plugin(file: StudyFile, folder: Path) -> None:
    """Copy the file of a plug-in sampler next to the resolved study file, which refers to it in the same way."""
    if file.plugin is not None and file.plugin.is_file:
        copy = folder / file.plugin.module
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.plugin.source)


def _describe(trials: "optuna.Study", file: StudyFile) -> None:
    """Set the user attributes that describe the study in Optuna's dashboard."""
    from optuna.exceptions import ExperimentalWarning

    study = file.study
    facts = {
        "question": study_title(file.text) or "",
        "file": str(file.path),
        "objective": ", ".join(f"{direction} {name}" for name, direction in study.objectives.items()),
        "proxy": study.proxy.model_dump(mode="json"),
        "search": study.search.model_dump(mode="json"),
    }
    stored = trials.user_attrs
    for name, value in facts.items():
        if stored.get(name) != value:
            trials.set_user_attr(name, value)
    if trials.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            trials.set_metric_names(list(study.objectives))


def trials_done(store: Store, study: Study) -> TrialsDone:
    """The finished trials of a stored study with a sampler; none if there is no such study."""
    try:
        trials = load_study(store, study.study).get_trials(deepcopy=False)
    except NotFound:
        return TrialsDone()
    history = StudyHistory()
    history.read(trial for trial in trials if trial.state.is_finished())
    return TrialsDone(history.trials, history.seeds_used)


def study_changes(file: StudyFile, store: Store) -> StudyChanges:
    """The additions of the file to the study with its name; empty if there is no such study.

    Raises `StudyError` if the file removes or changes anything that the existing runs were trained for.
    """
    name = file.study.study
    started = {row.name: row.resolved for row in store.studies()}.get(name)
    if started is None:
        return StudyChanges()
    try:
        changes = compare_studies(started, resolved_yaml(file))
    except ValidationError as error:
        rule = f"the study `{name}` must have been started by a version whose files this one reads"
        raise StudyError(rule, place=store.location, remedy=CHANGE_REMEDY) from error
    if changes.refused:
        raise StudyError(
            f"the study `{name}` may grow, but must keep what it was started as; changed: {', '.join(changes.refused)}",
            place=file.place(changes.key),
            remedy=CHANGE_REMEDY,
        )
    _require_present_meaning(name, store)
    return changes


def _require_present_meaning(name: str, store: Store) -> None:
    """Raise `StudyError` if the study has runs from before a change in the meaning of the same recipe.

    Their ids differ from those of runs with the same values now (`harness.config.recipes.proxy.REVISION`): further runs
    of the study would not be comparable with them, but in the same table.
    """
    ids = [run_id for ids in store.trial_runs(name).values() for run_id in ids]
    earlier = [row.id for row in store.runs(ids).values() if row.id != row.run.id]
    if earlier:
        raise StudyError(
            f"all runs of the study `{name}` must be of one meaning of its recipe, and {len(earlier)} of {len(ids)} "
            f"are of an earlier one (for example {earlier[0]}), such as other images from the same recipe",
            place=store.location,
            remedy=RENAME_REMEDY,
        )


def _remove_files(runs: list[RunRow]) -> None:
    """Delete the logs and checkpoints of deleted runs."""
    for row in runs:
        if row.folder is not None:
            for file in (row.folder / "logs" / f"{row.id}.log", row.folder / "checkpoints" / f"{row.id}.pt"):
                file.unlink(missing_ok=True)
