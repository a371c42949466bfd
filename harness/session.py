"""A study as the door opens it: its file, its place among the results, and what a driver or a reader of it needs."""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from harness.data import describe
from harness.errors import DataError, NotFound, StudyError
from harness.fingerprint import fingerprint
from harness.run import Run
from harness.search import Driver, Inputs
from harness.search.claims import Judged, judge_claims
from harness.search.samplers import build_pruner, build_sampler
from harness.space import Space
from harness.store import DriverLock, RunRow, Store, fresh, open_study
from harness.store import load_study as load_trials
from harness.study import Study, StudyFile, build_space, load_study, resolved_yaml

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from harness.executors.base import Executor

DATABASE = "studies.db"
FREE_TO_CHANGE = ("resources", "full_scale", "search.trials", "quick")
"""Keys that decide how long and where a study is trained; all others decide what it says."""
WORDS = ("says", "paper")
"""Keys of a claim that decide nothing."""
REMEDY = (
    "Give the file another name under `study:` (runs that both need are taken from the store), "
    "or start this one anew with `--fresh`."
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

    def extent(self) -> "Extent":
        """How far it reaches; known without its data set as far as that goes."""
        try:
            space = open_space(self.file)
        except DataError:
            space = None
        return extent(self.file.study, space, self.trials)

    def claims(self) -> tuple[Judged, ...]:
        """The study's claims, judged on its runs. Raises `DataError` where its data set is not there."""
        return judge_claims(self.file.study, open_space(self.file), self.store) if self.file.study.claims else ()


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


def open_space(file: StudyFile) -> Space:
    """The search space on the study's data set. Raises `DataError`, naming the file's line, where that is not there."""
    try:
        info = describe(file.study.proxy)
    except DataError as error:
        if error.place is not None and error.place.startswith("proxy."):
            error.place = file.place(tuple(error.place.split(".")))
        raise
    return build_space(file, classes=info.classes, channels=info.channels)


@contextmanager
def driving(
    file: StudyFile,
    space: Space,
    place: Place,
    start_executor: "Callable[[], Executor]",
    *,
    is_fresh: bool = False,
) -> Iterator[Driven]:
    """All that drives a study, for as long as the block lasts, which holds the study's lock.

    Raises `UserError`s for a study that another process drives, and for a file that is no longer that of the study.
    """
    study = file.study
    resolved = resolved_yaml(file)
    with Store.open(place.database) as store, DriverLock(store, study.study):
        if is_fresh:
            _remove_files(fresh(store, study.study))
        _check_unchanged(file, store)
        store.save_study(study.study, fingerprint=fingerprint(identity(study_values(resolved))), resolved=resolved)
        folder = place.folder(study.study)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.yaml").write_text(resolved, encoding="utf-8")
        trials = open_study(store, study.study, directions=list(study.objectives.values()))
        with store.speaking():
            _describe(trials, file)
        trials.sampler = build_sampler(study.search.sampler, study.search.seed, len(trials.get_trials(deepcopy=False)))
        trials.pruner = build_pruner(study.search.pruner, study.proxy.epochs)
        yield Driven(Driver(Inputs(study, space, store, trials, folder, start_executor)), store, trials)


@contextmanager
def reading(path: Path, place: Place, *, is_quick: bool = False) -> Iterator[Reading]:
    """A study to look at, whether or not it is being driven. Raises `NotFound` where it was never started."""
    file = load_study(path, is_quick=is_quick)
    name = file.study.study
    with Store.open(place.database, read_only=True) as store:
        try:
            store.study(name)
            found = load_trials(store, name)
        except NotFound as error:
            known = ", ".join(study.name for study in store.studies()) or "none"
            raise NotFound(
                "the study must have been started",
                value=name,
                place=store.place,
                remedy=f"Start it: `harness run {path}{' --quick' if is_quick else ''}`. Studies there: {known}.",
            ) from error
        yield Reading(file, store, found._study_id, found.get_trials(deepcopy=False))


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


def study_values(resolved: str) -> dict[str, Any]:
    """A resolved study as plain values by dotted key; every axis, and every list, is one value.

    What a file of an earlier version does not say stands at its default; but its seeds shared one data set.
    """
    values = yaml.safe_load(resolved)
    if "resample" not in (values.get("proxy") or {}):
        values["proxy"] = (values.get("proxy") or {}) | {"resample": "none"}
    return dict(_flat(Study.model_validate(values).model_dump(mode="json")))


def identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that decide what a study says; of a claim, all but its words."""
    return {
        key: [_without_words(claim) for claim in value] if key == "claims" else value
        for key, value in values.items()
        if not any(key == free or key.startswith(f"{free}.") for free in FREE_TO_CHANGE)
    }


def _without_words(claim: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in claim.items() if key not in WORDS}


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


def _check_unchanged(file: StudyFile, store: Store) -> None:
    """Raise `StudyError` where a study of that name was started from a file that says something else."""
    name = file.study.study
    started = {row.name: row.resolved for row in store.studies()}.get(name)
    if started is None:
        return
    try:
        before = identity(study_values(started))
    except ValidationError as error:
        raise StudyError(
            f"the study `{name}` must have been started by a version whose files this one reads",
            place=store.place,
            remedy=REMEDY,
        ) from error
    now = identity(study_values(resolved_yaml(file)))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        was = ", ".join(f"`{key}` from {_shown(before.get(key))} to {_shown(now.get(key))}" for key in changed)
        raise StudyError(
            f"the study `{name}` must stay what it was started as; changed: {was}",
            place=str(file.path),
            remedy=REMEDY,
        )


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _remove_files(runs: list[RunRow]) -> None:
    """Delete what runs that are forgotten left on disk."""
    for row in runs:
        if row.folder is not None:
            for file in (row.folder / "logs" / f"{row.id}.log", row.folder / "checkpoints" / f"{row.id}.pt"):
                file.unlink(missing_ok=True)
