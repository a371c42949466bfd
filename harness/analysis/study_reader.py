"""Opens a study for reading, whether or not another process drives it, and finds its best network."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.claims import ClaimResult, evaluate_claims
from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.results import StudyResults, results_limit_sentence, study_results
from harness.config.space import Space
from harness.config.study import Study
from harness.config.study_checks import check_classes, check_sizes
from harness.config.study_file import StudyFile, build_space, load_study
from harness.data import DataInfo, identify, images_at_most
from harness.errors import DataError, NotFound, UserError
from harness.storage import Store
from harness.storage import load_study as load_trials
from harness.storage.data_changes import data_notes
from harness.storage.workspace import CLAIMS_FOLDER, DEFAULT_RESULTS, Workspace
from harness.system.command_line import command_line

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, slots=True)
class StudyReader:
    """A study that is open for reading."""

    file: StudyFile
    store: Store
    optuna_id: int
    """Optuna's id of the study."""
    trials: "list[FrozenTrial]"
    workspace: Workspace
    options: list[str]
    """The command-line options that select the study, for commands in messages."""
    _cached_info: list[DataInfo] = field(default_factory=list, repr=False)
    """The data set after its first use, so that all methods use the same files."""

    def size(self) -> "StudySize":
        """The size of the study; without its data set, only what does not depend on it."""
        try:
            space = self.space()
        except DataError:
            space = None
        return study_size(self.file.study, space, self.trials)

    def claims(self) -> tuple[ClaimResult, ...]:
        """Evaluate the study's claims on its runs. Raises `DataError` if its data set is not there."""
        return evaluate_claims(self.file.study, self.space(), self.store) if self.file.study.claims else ()

    def results(self) -> StudyResults:
        """The results so far, with the claims and notes on the data. Raises `DataError` as `claims` does."""
        ruled_out, claims, data = self.size().ruled_out, self.claims(), self.data_notes()
        return study_results(self.file.study, self.store, self.trials, ruled_out, claims, data=data)

    def find_winner(self, trial: int | None) -> tuple[ConfigurationResult, StudyResults]:
        """The best configuration, or that of the given trial; and all results.

        Raises `NotFound` if there is no such configuration, and `UserError` if all configurations are at one limit.
        """
        results, path = study_results(self.file.study, self.store, self.trials, {}), self.file.path
        configuration = results.best if trial is None else results.row_of(trial)
        if configuration is not None:
            return configuration, results
        if trial is None and results.limit is not None:
            rule = "a study must tell its configurations apart to have a best one"
            remedy = f"{results_limit_sentence(results)} Or name one: `--trial N`."
            raise UserError(rule, value=f"all at {results.limit}", place=str(path), remedy=remedy)
        look = f"See its status: `{command_line('status', path, self.options)}`."
        if trial is not None:
            raise NotFound("the trial must be one of the study's that were trained", value=trial, remedy=look)
        rule = "a study must have a complete configuration to have a best one"
        raise NotFound(rule, place=str(path), remedy=look)

    def data_notes(self) -> tuple[str, ...]:
        """Notes if runs were trained on other data than the folder holds now; none if the data set is not there."""
        study = self.file.study
        try:
            return tuple(data_notes(self.store, study.study, self._info()))
        except DataError:
            return ()

    def space(self) -> Space:
        """The search space on the study's data set. Raises `DataError` if it is not there."""
        return _space_on(self.file, self._info())

    def _info(self) -> DataInfo:
        if not self._cached_info:
            self._cached_info.append(_info_of(self.file, self.workspace.data_cache))
        return self._cached_info[0]


def open_space(file: StudyFile, cache: Path | None = None) -> Space:
    """The search space on the study's data set, which is identified by its content.

    `cache` is the folder of prepared data sets, whose stored digests avoid reading the files again. Raises `DataError`,
    which names the file's line, if the data set is not there, and `StudyError` if it lacks what the study needs.
    """
    return _space_on(file, _info_of(file, cache))


def _space_on(file: StudyFile, info: DataInfo) -> Space:
    check_classes(file.study, info.names, file.document)
    check_sizes(file.study, images_at_most(file.study.proxy, info), file.document)
    images = images_at_most(file.study.proxy.model_copy(update={"train_size": None}), info)[0]
    return build_space(file, classes=info.classes, channels=info.channels, data=info.digest, train_images=images)


def _info_of(file: StudyFile, cache: Path | None) -> DataInfo:
    """The data set of a study. Raises `DataError`, which names the file's line, if it is not there."""
    with naming_lines(file):
        return identify(file.study.proxy, cache)


@contextmanager
def naming_lines(file: StudyFile) -> Iterator[None]:
    """Add the line in the study file to errors about a key of the proxy."""
    try:
        yield
    except DataError as error:
        if error.place is not None and error.place.startswith("proxy."):
            error.place = file.place(tuple(error.place.split(".")))
        raise


@contextmanager
def open_study_reader(path: Path, workspace: Workspace, *, is_quick: bool = False) -> Iterator[StudyReader]:
    """Open a study for reading, whether or not it has a driver. Raises `NotFound` if it was never started."""
    file = load_study(path, is_quick=is_quick)
    name = file.study.study
    options = [*(["--quick"] if is_quick else []), *workspace.options]
    start = f"`{command_line('run', path, options)}`."
    kept = workspace.results / CLAIMS_FOLDER / name / "summary.txt"
    remedy = f"Start it: {start}" + (f" What was recorded of it before: {kept}." if kept.is_file() else "")
    try:
        opened = Store.open(workspace.database, read_only=True)
    except NotFound as error:
        error.remedy = remedy
        raise
    with opened as store:
        try:
            store.study(name)
            trials = load_trials(store, name)
        except NotFound as error:
            names = [study.name for study in store.studies()]
            if name in names:
                rule = "the trials of the study must be there; another program has deleted them"
                remedy = f"Bring it back: {start} Its runs and their checkpoints are kept."
            else:
                rule = "the study must have been started"
                remedy = f"{remedy} Studies there: {', '.join(names) or 'none'}."
            raise NotFound(rule, value=name, place=store.location, remedy=remedy) from error
        yield StudyReader(file, store, trials._study_id, trials.get_trials(deepcopy=False), workspace, options)


def load_results(
    study: str | Path, *, quick: bool = False, results: str | Path = DEFAULT_RESULTS, storage: str | None = None
) -> StudyResults:
    """The results so far of the study in a file; reads only, also while another process runs the study.

    `results` is the folder of all studies, `storage` the URL of their database if it is not in that folder. Raises
    `NotFound` if the study was never started, and `DataError` if claims need a data set that is not there.
    """
    with open_study_reader(Path(study), Workspace(Path(results), storage), is_quick=quick) as reader:
        return reader.results()


@dataclass(frozen=True, slots=True)
class StudySize:
    """The number of configurations of a study."""

    configurations: int | None
    """Number of configurations to train: exact for a grid, the number of trials for a sampler; None if unknown."""
    ruled_out: Mapping[str, int]
    """Number of rejected grid cells or proposals, by the first rule or budget that each violates."""


def study_size(study: Study, space: Space | None, trials: "list[FrozenTrial]") -> StudySize:
    """The size of a study with these trials; without its data set, `space` is None, and a grid's size unknown."""
    if study.search.sampler != "grid":
        return StudySize(study.search.trials, rejected_proposals(trials))
    if space is None:
        return StudySize(None, {})
    cells = list(space.grid())
    ruled_out = Counter(next(iter(cell.violations)) for cell in cells if not cell.is_feasible)
    return StudySize(len(cells) - ruled_out.total(), ruled_out)


def rejected_proposals(trials: "Sequence[FrozenTrial]") -> Counter[str]:
    """The number of proposals that were never trained, by the first rule or budget that each violates."""
    rejected = [trial.constraints for trial in trials if "rejected" in trial.user_attrs]
    return Counter(next(iter(constraints), "a rule") for constraints in rejected)


def study_title(text: str) -> str | None:
    """The title of a study file: the first line of its first comment that is not for an editor."""
    comments = (line.strip().lstrip("#").strip() for line in text.splitlines() if line.strip().startswith("#"))
    return next((line for line in comments if line and not line.startswith("yaml-language-server:")), None)
