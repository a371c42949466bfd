"""A study as the door opens it: its file, its place among the results, and what a driver or a reader of it needs."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from harness.analysis.claims import Judged, judge_claims, paired_seeds
from harness.analysis.plan_history import pending_change
from harness.analysis.reuse import Reusable, Reuse, environment_of
from harness.config.space import Space
from harness.config.study import Study
from harness.config.study_checks import check_classes, check_sizes
from harness.config.study_file import StudyFile, build_space, load_study, resolved_yaml
from harness.config.study_growth import Growth, growth, identity, study_values
from harness.data import DataInfo, check, identify, images_at_most
from harness.errors import DataError, NotFound, StudyError
from harness.report.console import verb, without_password
from harness.search import Driver, Inputs
from harness.search.reopening import reopen_outdated
from harness.search.samplers import build_pruner, build_sampler
from harness.search.trial import distribution_of
from harness.storage import DriverLock, RunRow, Store, fresh, open_study, require_study, widen_distributions
from harness.storage import load_study as load_trials
from harness.storage.data_changes import data_notes, require_same_data, write_description
from harness.system.fingerprint import fingerprint
from harness.training.run import Run

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from harness.executors.base import Executor

DATABASE = "studies.db"
DEFAULT_RESULTS = Path("results")
KEPT = "claims"
"""Folder of a results folder that keeps the summaries of claim studies, a folder each."""
ANOTHER = (
    "Give the file another name under `study:` (runs that both need are taken from the store), or start this one anew "
    "with `--fresh`."
)
REMEDY = (
    f"Seeds, trials, values of an axis and claims can be added. For anything else: {ANOTHER[0].lower()}{ANOTHER[1:]}"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a study is kept."""

    results: Path
    storage: str | None = None
    """URL of the database, where it is not in the results folder."""

    @property
    def database(self) -> str | Path:
        """What the store opens."""
        return self.storage or self.results / DATABASE

    @property
    def data_cache(self) -> Path:
        """Where prepared data sets are kept for all studies."""
        return self.results / "data"

    @property
    def options(self) -> list[str]:
        """The options of a command that means this place, as far as it is not the default one."""
        results = [] if self.results == DEFAULT_RESULTS else ["--results", str(self.results)]
        return results + ([] if self.storage is None else ["--storage", without_password(self.storage)])

    def folder(self, study: str) -> Path:
        """The study's own folder: its resolved file, logs, checkpoints and summary."""
        return self.results / study


@dataclass(frozen=True, slots=True)
class Driven:
    """A study that this process drives."""

    driver: Driver
    store: Store
    optuna: "optuna.Study"

    def trials(self) -> "list[FrozenTrial]":
        """Optuna's trials as they are now."""
        return self.optuna.get_trials(deepcopy=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """A study that is looked at."""

    file: StudyFile
    store: Store
    optuna_id: int
    """Optuna's number of the study."""
    trials: "list[FrozenTrial]"
    place: Place
    _known: list[DataInfo] = field(default_factory=list, repr=False)
    """The data set, once it was asked for: all questions about a study are about the same files."""

    def extent(self) -> "Extent":
        """How far it reaches; known without its data set as far as that goes."""
        try:
            space = self._space()
        except DataError:
            space = None
        return extent(self.file.study, space, self.trials)

    def claims(self) -> tuple[Judged, ...]:
        """The study's claims, judged on its runs. Raises `DataError` where its data set is not there."""
        return judge_claims(self.file.study, self._space(), self.store) if self.file.study.claims else ()

    def data_notes(self) -> tuple[str, ...]:
        """Whether its runs were trained on the data that the folder holds now; nothing where that is not there."""
        study = self.file.study
        try:
            return tuple(data_notes(self.store, study.study, self._info()))
        except DataError:
            return ()

    def _space(self) -> Space:
        return _space_on(self.file, self._info())

    def _info(self) -> DataInfo:
        if not self._known:
            self._known.append(_info_of(self.file, self.place.data_cache))
        return self._known[0]


def run_of(path: Path, place: Place) -> Run:
    """The run of a checkpoint, as its study's database knows it. Raises `NotFound`."""
    try:
        with Store.open(place.database, read_only=True) as store:
            return store.run(path.stem).run
    except NotFound as error:
        raise NotFound(
            f"the run of a checkpoint must be known to a database, which tells its network ({error.place})",
            place=str(path),
            remedy="Leave it in its study's folder, as results/STUDY/checkpoints/RUN.pt, or give `--storage URL`; or "
            "name its network: `harness weights import FILE --network NETWORK --output OUT.safetensors`.",
        ) from error


def trial_of(path: Path, study: str, place: Place) -> int | None:
    """The first trial of a study that owns the run of a checkpoint; None where none does."""
    with Store.open(place.database, read_only=True) as store:
        links = store.trial_runs(study)
    return next((trial for trial, runs in links.items() if path.stem in runs), None)


def open_space(file: StudyFile, cache: Path | None = None) -> Space:
    """The search space on the study's data set, which is identified by its content.

    `cache` is the folder of prepared data sets, whose digests of files save reading them again. Raises `DataError`,
    naming the file's line, where the data set is not there, and `StudyError` for what it cannot yield.
    """
    return _space_on(file, _info_of(file, cache))


def _space_on(file: StudyFile, info: DataInfo) -> Space:
    check_classes(file.study, info.names, file.document)
    check_sizes(file.study, images_at_most(file.study.proxy, info), file.document)
    return build_space(file, classes=info.classes, channels=info.channels, data=info.digest)


def same_data(file: StudyFile, store: Store, place: Place, digest: str | None) -> DataInfo:
    """The data set of a study, which has that digest. Raises `StudyError` where the study has runs on other data."""
    study = file.study
    info = replace(identify(study.proxy, place.data_cache), digest=digest)
    require_same_data(store, study.study, info, study.proxy, place.folder(study.study))
    return info


def check_data(file: StudyFile, cache: Path, digest: str | None) -> tuple[str, ...]:
    """Notes on the images of a study, whose data set has that digest; see `harness.data.check`.

    Raises `DataError`, naming the file's line, for what its runs could not be trained on.
    """
    with _naming_lines(file):
        return check(file.study.proxy, cache, digest)


def _info_of(file: StudyFile, cache: Path | None) -> DataInfo:
    """The data set of a study. Raises `DataError`, naming the file's line, where it is not there."""
    with _naming_lines(file):
        return identify(file.study.proxy, cache)


@contextmanager
def _naming_lines(file: StudyFile) -> Iterator[None]:
    """Let errors about a key of the proxy name its line in the study file."""
    try:
        yield
    except DataError as error:
        if error.place is not None and error.place.startswith("proxy."):
            error.place = file.place(tuple(error.place.split(".")))
        raise


@contextmanager
def driving(
    file: StudyFile,
    space: Space,
    place: Place,
    start_executor: "Callable[[], Executor]",
    *,
    is_fresh: bool = False,
    reuse: Reusable = "any",
    is_cluster: bool = False,
) -> Iterator[Driven]:
    """All that drives a study, for as long as the block lasts, which holds the study's lock.

    `reuse` is what is taken of runs of another environment; with `is_cluster`, the workers' is not this machine's.

    Raises `UserError`s for a study that another process drives, and for a file that is no longer that of the study.
    """
    study = file.study
    resolved = resolved_yaml(file)
    with Store.open(place.database) as store, DriverLock(store, study.study):
        if is_fresh:
            _remove_files(fresh(store, study.study))
        added = grown(file, store).added
        info = same_data(file, store, place, space.data)
        change = pending_change(study, store, paired_seeds(study, space, store), added)
        store.save_study(
            study.study,
            fingerprint=fingerprint(identity(study_values(resolved))),
            resolved=resolved,
            change=None if change is None else change.text(),
        )
        if added:
            store.event(study.study, "study grown", "; ".join(added))
        folder = place.folder(study.study)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.yaml").write_text(resolved, encoding="utf-8")
        write_description(folder, info)
        trials = open_study(store, study.study, directions=list(study.objectives.values()))
        rule = Reuse(study, store, environment_of(study, is_cluster=is_cluster), reuse, is_cluster)
        reopened = reopen_outdated(rule, trials)
        if reopened.trials:
            trials = open_study(store, study.study, directions=list(study.objectives.values()))
        with store.speaking():
            widen_distributions(trials, {name: distribution_of(axis) for name, axis in space.axes.items()})
            _describe(trials, file)
        trials.sampler = build_sampler(study.search.sampler, study.search.seed, len(trials.get_trials(deepcopy=False)))
        trials.pruner = build_pruner(study.search.pruner, study.proxy.epochs)
        inputs = Inputs(study, space, store, trials, folder, start_executor, rule, reopened.failed)
        yield Driven(Driver(inputs), store, trials)
        require_study(store, trials)


@contextmanager
def reading(path: Path, place: Place, *, is_quick: bool = False) -> Iterator[Reading]:
    """A study to look at, whether or not it is being driven. Raises `NotFound` where it was never started."""
    file = load_study(path, is_quick=is_quick)
    name = file.study.study
    remedy = _to_start(path, place, name, is_quick=is_quick)
    try:
        opened = Store.open(place.database, read_only=True)
    except NotFound as error:
        error.remedy = remedy
        raise
    with opened as store:
        try:
            store.study(name)
            found = load_trials(store, name)
        except NotFound as error:
            known = ", ".join(study.name for study in store.studies() if study.name != name) or "none"
            if any(study.name == name for study in store.studies()):
                command = verb("run", path, [*(["--quick"] if is_quick else []), *place.options])
                raise NotFound(
                    "the trials of the study must be there; another program has deleted them",
                    value=name,
                    place=store.place,
                    remedy=f"Bring it back: `{command}`. Its runs and their checkpoints are kept.",
                ) from error
            raise NotFound(
                "the study must have been started",
                value=name,
                place=store.place,
                remedy=f"{remedy} Studies there: {known}.",
            ) from error
        yield Reading(file, store, found._study_id, found.get_trials(deepcopy=False), place)


def _to_start(path: Path, place: Place, name: str, *, is_quick: bool) -> str:
    """How a study is started, and where its summary is where the results folder keeps one."""
    start = verb("run", path, [*(["--quick"] if is_quick else []), *place.options])
    kept = place.results / KEPT / name / "summary.txt"
    return f"Start it: `{start}`." + (f" What was recorded of it before: {kept}." if kept.is_file() else "")


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a study reaches."""

    configurations: int | None
    """How many are to be trained: exact for a grid, as granted for a sampler; None where it cannot be known."""
    ruled_out: Mapping[str, int]
    """Those that a grid leaves out or a sampler proposed in vain, by the first rule or budget that each breaks."""


def extent(study: Study, space: Space | None, trials: "list[FrozenTrial]") -> Extent:
    """The extent of a study whose trials are these; without its data set there is no space, and a grid has no end."""
    if study.search.sampler != "grid":
        broken = [trial.constraints for trial in trials if "rejected" in trial.user_attrs]
        return Extent(study.search.trials, Counter(next(iter(constraints), "a rule") for constraints in broken))
    if space is None:
        return Extent(None, {})
    cells = list(space.grid())
    ruled_out = Counter(next(iter(cell.violations)) for cell in cells if not cell.is_feasible)
    return Extent(len(cells) - ruled_out.total(), ruled_out)


def _describe(trials: "optuna.Study", file: StudyFile) -> None:
    """Say in Optuna's dashboard what is studied."""
    from optuna.exceptions import ExperimentalWarning

    study = file.study
    facts = {
        "question": question_of(file.text) or "",
        "file": str(file.path),
        "objective": ", ".join(f"{direction} {name}" for name, direction in study.objectives.items()),
        "proxy": study.proxy.model_dump(mode="json"),
        "search": study.search.model_dump(mode="json"),
    }
    known = trials.user_attrs
    for name, value in facts.items():
        if known.get(name) != value:
            trials.set_user_attr(name, value)
    if trials.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            trials.set_metric_names(list(study.objectives))


def question_of(text: str) -> str | None:
    """What a study file says it is about: the first line of its first comment, if that is not for an editor."""
    comments = (line.strip().lstrip("#").strip() for line in text.splitlines() if line.strip().startswith("#"))
    return next((line for line in comments if line and not line.startswith("yaml-language-server:")), None)


def grown(file: StudyFile, store: Store) -> Growth:
    """What the file adds to the study of that name, if there is one.

    Raises `StudyError` where it takes away or changes what the runs so far were trained for.
    """
    name = file.study.study
    started = {row.name: row.resolved for row in store.studies()}.get(name)
    if started is None:
        return Growth()
    try:
        found = growth(started, resolved_yaml(file))
    except ValidationError as error:
        raise StudyError(
            f"the study `{name}` must have been started by a version whose files this one reads",
            place=store.place,
            remedy=REMEDY,
        ) from error
    if found.refused:
        raise StudyError(
            f"the study `{name}` may grow, but must keep what it was started as; changed: {', '.join(found.refused)}",
            place=file.place(found.key),
            remedy=REMEDY,
        )
    _require_present_meaning(name, store)
    return found


def _require_present_meaning(name: str, store: Store) -> None:
    """Raise `StudyError` where the study has runs from before a change of what the same recipe gives.

    Their ids are others than a run of the same values has now (`harness.config.recipes.proxy.REVISION`): further runs
    of the study would be of another kind, with the two in one table.
    """
    ids = [run_id for ids in store.trial_runs(name).values() for run_id in ids]
    earlier = [row.id for row in store.runs(ids).values() if row.id != row.run.id]
    if earlier:
        raise StudyError(
            f"all runs of the study `{name}` must be of one meaning of its recipe, and {len(earlier)} of {len(ids)} "
            f"are of an earlier one (for example {earlier[0]}), such as other images from the same recipe",
            place=store.place,
            remedy=ANOTHER,
        )


def _remove_files(runs: list[RunRow]) -> None:
    """Delete what runs that are forgotten left on disk."""
    for row in runs:
        if row.folder is not None:
            for file in (row.folder / "logs" / f"{row.id}.log", row.folder / "checkpoints" / f"{row.id}.pt"):
                file.unlink(missing_ok=True)
