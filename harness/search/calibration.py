"""Drives a calibration: stages of seeds for the candidate recipes of a proxy, fewer candidates in each stage.

Every candidate is a study of its own in a database of the calibration, so that it is resumed, shown and locked like any
other. What a stage does follows from the first seeds of the candidates alone: a calibration that is called again takes
the same decisions, and trains only what is missing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.analysis.calibration import (
    CandidateResult,
    Contrast,
    best_of,
    contrasts_of,
    promising,
    ranked,
    read_candidate,
    runs_of,
    strictest_plan,
)
from harness.analysis.run_times import images_per_run, rough_seconds
from harness.analysis.statistics import Plan
from harness.analysis.study_reader import open_space
from harness.config.calibration_candidates import CalibrationPlan, CandidateRecipe
from harness.config.space import Space
from harness.config.study_file import StudyFile
from harness.config.study_growth import study_values
from harness.errors import NotFound, StudyError
from harness.models.cost import network_cost
from harness.storage import RunRow, Store
from harness.storage.transitions import SETTLED
from harness.storage.workspace import Workspace
from harness.training.run import Run, RunState

CALIBRATIONS_FOLDER = "calibrations"
"""Subfolder of a results folder with the calibrations, one folder each, with a database of its own."""
Train = Callable[[StudyFile, Workspace], object]
"""Trains a study to its end in a workspace."""


def calibration_workspace(results: Path, study: str) -> Workspace:
    """The place of a study's calibration."""
    return Workspace(results / CALIBRATIONS_FOLDER / study)


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins."""

    number: int
    seeds: int
    candidates: int


@dataclass(frozen=True, slots=True)
class CandidateStarted:
    """A candidate gets its further seeds."""

    recipe: CandidateRecipe
    position: int
    candidates: int
    runs: int
    """Number of runs to train; 0 if all are stored."""


@dataclass(frozen=True, slots=True)
class CandidateMeasured:
    """A candidate has all seeds of the stage."""

    result: CandidateResult
    position: int
    candidates: int


@dataclass(frozen=True, slots=True)
class CandidateLeftOut:
    """A candidate is not trained in this stage, because the budget of core-hours does not allow it."""

    recipe: CandidateRecipe
    core_hours: float
    """What its runs would take."""
    left: float
    """What is left of the budget."""


CalibrationEvent = StageStarted | CandidateStarted | CandidateMeasured | CandidateLeftOut


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """The outcome of a calibration."""

    plan: CalibrationPlan
    contrasts: tuple[Contrast, ...]
    results: tuple[CandidateResult, ...]
    """Every candidate with its largest number of seeds, best first."""
    left_out: tuple[CandidateRecipe, ...]
    """The candidates that were never trained, for lack of budget."""
    core_minutes: float
    """Core-minutes of all runs."""

    @property
    def best(self) -> CandidateResult | None:
        """The recommended candidate; None if every one is at a limit or cannot decide."""
        return best_of(self.results)

    @property
    def own(self) -> CandidateResult | None:
        """The proxy as written."""
        return next((result for result in self.results if not result.recipe.change.values), None)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A candidate with its space and the seconds of a run by the rough rule, relative to others."""

    recipe: CandidateRecipe
    file: StudyFile
    space: Space
    work_s: float

    def runs(self, seeds: int) -> dict[str, list[Run]]:
        """The runs of each arm."""
        return runs_of(self.recipe, self.file.study, self.space, seeds)


@dataclass(slots=True)
class Calibration:
    """Compares the candidates of a plan: iterate over `events()`, then take `result()`."""

    plan: CalibrationPlan
    workspace: Workspace
    budget_hours: float | None = None
    """Core-hours of all runs; None for no limit."""
    contrasts: tuple[Contrast, ...] = ()
    claim_plan: Plan = field(default=Plan(1, 2))
    _candidates: list[_Candidate] = field(default_factory=list)
    _results: dict[str, CandidateResult] = field(default_factory=dict)

    def __post_init__(self) -> None:
        study = self.plan.file.study
        self.contrasts = contrasts_of(study, self.plan.arm_of)
        if not self.contrasts:
            rule = "a claim must compare something that varies between seeds, for a proxy to be calibrated"
            remedy = "Parameters and MACs follow from the network."
            raise StudyError(rule, place=self.plan.file.place(("claims",)), remedy=remedy)
        self.claim_plan = strictest_plan(study, sum(contrast.is_own for contrast in self.contrasts))
        self._candidates = list(self._possible())

    @property
    def recipes(self) -> tuple[CandidateRecipe, ...]:
        """The candidates that are possible with the study's data; the first is the proxy as written."""
        return tuple(candidate.recipe for candidate in self._candidates)

    def events(self, train: Train) -> Iterator[CalibrationEvent]:
        """Train stage by stage."""
        left = self._candidates
        for number, seeds in enumerate(self.plan.stages, 1):
            if not left:
                return
            yield StageStarted(number, seeds, len(left))
            for position, candidate in enumerate(left, 1):
                yield from self._measure(candidate, train, seeds, (position, len(left)))
            stage = [result for result in self._results.values() if result.seeds == seeds]
            names = {result.recipe.name for result in promising(stage)}
            left = [candidate for candidate in left if candidate.recipe.name in names]

    def result(self) -> CalibrationResult:
        """The outcome so far."""
        tried = self._results.keys()
        left_out = tuple(recipe for recipe in self.recipes if recipe.name not in tried)
        ordered = tuple(ranked(self._results.values()))
        return CalibrationResult(self.plan, self.contrasts, ordered, left_out, self._spent_s() / 60)

    def missing_runs(self, seeds: int) -> dict[str, int]:
        """Number of runs of each candidate, by its name, that are not stored yet."""
        return {each.recipe.name: len(self._missing(each, seeds)) for each in self._candidates}

    def estimate_s(self, seeds: int) -> float:
        """Estimated core-seconds of the missing runs of all candidates."""
        return sum(len(self._missing(each, seeds)) * self._run_s(each) for each in self._candidates)

    def study(self, recipe: CandidateRecipe, seeds: int) -> StudyFile:
        """A candidate's study with at least these seeds: it cannot have fewer than it was started with."""
        return recipe.study(max(seeds, self._stored_seeds(recipe)))

    def _possible(self) -> Iterator[_Candidate]:
        """The candidates; of the default changes, those for which the data set has the images."""
        for recipe in self.plan.candidates:
            try:
                yield self._opened(recipe)
            except StudyError:
                if recipe.change.lines or not recipe.change.values:
                    raise

    def _opened(self, recipe: CandidateRecipe) -> _Candidate:
        file = recipe.study(self.plan.settings.seeds)
        space = open_space(file, self.workspace.data_cache)
        images = images_per_run(file.study.proxy) or 0.0
        resolution = file.study.proxy.resolution
        macs = [network_cost(spec, resolution).macs for spec in recipe.networks.values()]
        return _Candidate(recipe, file, space, rough_seconds(sum(macs) / len(macs), resolution**2, images))

    def _measure(
        self, candidate: _Candidate, train: Train, seeds: int, position: tuple[int, int]
    ) -> Iterator[CalibrationEvent]:
        """Train what is missing of a candidate, within the budget, and read what it comes to."""
        missing = self._missing(candidate, seeds)
        if missing and self.budget_hours is not None:
            needed, left = len(missing) * self._run_s(candidate) / 3600, self.budget_hours - self._spent_s() / 3600
            if needed > left:
                yield CandidateLeftOut(candidate.recipe, needed, max(0.0, left))
                return
        yield CandidateStarted(candidate.recipe, *position, len(missing))
        if missing:
            train(self.study(candidate.recipe, seeds), self.workspace)
        with Store.open(self.workspace.database, read_only=True) as store:
            cpus = candidate.file.study.resources.cpus
            runs = candidate.runs(seeds)
            result = read_candidate(candidate.recipe, runs, store, self.contrasts, self.claim_plan, cpus)
        self._results[candidate.recipe.name] = result
        yield CandidateMeasured(result, *position)

    def _missing(self, candidate: _Candidate, seeds: int) -> list[str]:
        """The runs that are not settled."""
        ids = [run.id for of_arm in candidate.runs(seeds).values() for run in of_arm]
        try:
            with Store.open(self.workspace.database, read_only=True) as store:
                settled = {row.id for row in store.runs(ids).values() if row.state in SETTLED}
        except NotFound:
            return ids
        return [run_id for run_id in ids if run_id not in settled]

    def _stored_seeds(self, recipe: CandidateRecipe) -> int:
        """The number of seeds that a candidate's study was started with, which it must keep; 0 if it was not."""
        try:
            with Store.open(self.workspace.database, read_only=True) as store:
                stored = {row.name: row.resolved for row in store.studies()}
        except NotFound:
            return 0
        return int(study_values(stored[recipe.name])["search.seeds"]) if recipe.name in stored else 0

    def _run_s(self, candidate: _Candidate) -> float:
        """Estimated core-seconds of a run: from its own runs, or by the rough rule, scaled to all measured runs."""
        own = self._times(candidate)
        if own:
            return sum(own) / len(own)
        pairs = [(time, each.work_s) for each in self._candidates for time in self._times(each)]
        scale = sum(time for time, _ in pairs) / sum(work for _, work in pairs) if pairs else 1.0
        return scale * candidate.work_s

    def _times(self, candidate: _Candidate) -> list[float]:
        """Core-seconds of the complete runs of a candidate."""
        cpus = candidate.file.study.resources.cpus
        return [row.wall_s * cpus for row in self._rows(candidate) if row.state == RunState.COMPLETE]

    def _spent_s(self) -> float:
        """Core-seconds of all runs of all candidates, whatever they came to."""
        cpus = self.plan.file.study.resources.cpus
        return sum(row.wall_s * cpus for each in self._candidates for row in self._rows(each))

    def _rows(self, candidate: _Candidate) -> Sequence[RunRow]:
        ids = [run.id for of_arm in candidate.runs(self.plan.stages[-1]).values() for run in of_arm]
        try:
            with Store.open(self.workspace.database, read_only=True) as store:
                return list(store.runs(ids).values())
        except NotFound:
            return []
