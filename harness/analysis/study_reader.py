"""A study that is read, whether or not another process drives it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.claims import ClaimResult, evaluate_claims
from harness.config.space import Space
from harness.config.study import Study
from harness.config.study_checks import check_classes, check_sizes
from harness.config.study_file import StudyFile, build_space, load_study
from harness.data import DataInfo, identify, images_at_most
from harness.errors import DataError, NotFound
from harness.storage import Store
from harness.storage import load_study as load_trials
from harness.storage.data_changes import data_notes
from harness.storage.workspace import CLAIMS_FOLDER, Workspace
from harness.system.command_line import command_line

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, slots=True)
class StudyReader:
    """A study that is looked at."""

    file: StudyFile
    store: Store
    optuna_id: int
    """Optuna's number of the study."""
    trials: "list[FrozenTrial]"
    workspace: Workspace
    _known: list[DataInfo] = field(default_factory=list, repr=False)
    """The data set, once it was asked for: all questions about a study are about the same files."""

    def size(self) -> "StudySize":
        """How far it reaches; known without its data set as far as that goes."""
        try:
            space = self._space()
        except DataError:
            space = None
        return study_size(self.file.study, space, self.trials)

    def claims(self) -> tuple[ClaimResult, ...]:
        """The study's claims, judged on its runs. Raises `DataError` where its data set is not there."""
        return evaluate_claims(self.file.study, self._space(), self.store) if self.file.study.claims else ()

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
            self._known.append(_info_of(self.file, self.workspace.data_cache))
        return self._known[0]


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
def open_study_reader(path: Path, workspace: Workspace, *, is_quick: bool = False) -> Iterator[StudyReader]:
    """A study to look at, whether or not it is being driven. Raises `NotFound` where it was never started."""
    file = load_study(path, is_quick=is_quick)
    name = file.study.study
    remedy = _to_start(path, workspace, name, is_quick=is_quick)
    try:
        opened = Store.open(workspace.database, read_only=True)
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
                command = command_line("run", path, [*(["--quick"] if is_quick else []), *workspace.options])
                raise NotFound(
                    "the trials of the study must be there; another program has deleted them",
                    value=name,
                    place=store.location,
                    remedy=f"Bring it back: `{command}`. Its runs and their checkpoints are kept.",
                ) from error
            raise NotFound(
                "the study must have been started",
                value=name,
                place=store.location,
                remedy=f"{remedy} Studies there: {known}.",
            ) from error
        yield StudyReader(file, store, found._study_id, found.get_trials(deepcopy=False), workspace)


def _to_start(path: Path, workspace: Workspace, name: str, *, is_quick: bool) -> str:
    """How a study is started, and where its summary is where the results folder keeps one."""
    start = command_line("run", path, [*(["--quick"] if is_quick else []), *workspace.options])
    kept = workspace.results / CLAIMS_FOLDER / name / "summary.txt"
    return f"Start it: `{start}`." + (f" What was recorded of it before: {kept}." if kept.is_file() else "")


@dataclass(frozen=True, slots=True)
class StudySize:
    """How far a study reaches."""

    configurations: int | None
    """How many are to be trained: exact for a grid, as granted for a sampler; None where it cannot be known."""
    ruled_out: Mapping[str, int]
    """Those that a grid leaves out or a sampler proposed in vain, by the first rule or budget that each breaks."""


def study_size(study: Study, space: Space | None, trials: "list[FrozenTrial]") -> StudySize:
    """The extent of a study whose trials are these; without its data set there is no space, and a grid has no end."""
    if study.search.sampler != "grid":
        broken = [trial.constraints for trial in trials if "rejected" in trial.user_attrs]
        return StudySize(study.search.trials, Counter(next(iter(constraints), "a rule") for constraints in broken))
    if space is None:
        return StudySize(None, {})
    cells = list(space.grid())
    ruled_out = Counter(next(iter(cell.violations)) for cell in cells if not cell.is_feasible)
    return StudySize(len(cells) - ruled_out.total(), ruled_out)


def study_title(text: str) -> str | None:
    """What a study file says it is about: the first line of its first comment, if that is not for an editor."""
    comments = (line.strip().lstrip("#").strip() for line in text.splitlines() if line.strip().startswith("#"))
    return next((line for line in comments if line and not line.startswith("yaml-language-server:")), None)
