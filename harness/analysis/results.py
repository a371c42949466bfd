"""The results of a study as values: one row per configuration, the best of them, and their uncertainty.

Pure functions of the store and Optuna's trials; nothing is rounded or printed here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from harness.analysis.claims import ClaimResult
from harness.analysis.configuration_result import (
    ConfigurationResult,
    RunResult,
    configuration_result,
    of_one_environment,
    read_run_results,
)
from harness.analysis.formatting import json_safe
from harness.analysis.limits import CHANCE_METRICS, Limit, common_limit, fewest_images, limit_sentence, limits_of
from harness.analysis.objective import COST_OBJECTIVES, LATENCY
from harness.analysis.pareto import ParetoFront, pareto_front
from harness.analysis.prospects import claims_needing_seeds
from harness.analysis.racing import RaceResult, race_result
from harness.analysis.reuse import OtherEnvironment, other_environments, study_environment, time_notes, time_reference
from harness.analysis.run_status import OPEN, trials_by_configuration
from harness.analysis.study_budget import BudgetStatus, budget_status
from harness.config.measures import TRAIN_IMAGES, VAL_IMAGES
from harness.config.study import CURVES, Study
from harness.config.yaml_file import parse_stored
from harness.errors import NotFound
from harness.storage import FullScaleRow, FullScaleRuns, RunRow, Store
from harness.storage.rows import BUDGET_ENDED, REASONS_ENDED, TRIAL_ENDED
from harness.training.environment import Environment
from harness.training.run import RunState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from harness.analysis.effects import EffectsResult
    from harness.analysis.trust import TrustResult

COUNT_TITLES = {TRAIN_IMAGES: "training images", VAL_IMAGES: "validation images"}
TRAINING_SOURCES = "initial weights, order of the images and augmentation"
PER_SEED_SOURCES = {
    ("split", True): "training and validation images (each seed has its own)",
    ("split", False): "the split of the images into training and validation (each seed has its own)",
    ("bootstrap", False): "the choice of training and validation images (a bootstrap for each seed)",
}
SHARED_DATA_NOTE = "one data set only: all seeds share its training and validation images, which are not part of them"


@dataclass(frozen=True, slots=True)
class StudyResults:
    """The results of a study so far."""

    study: str
    metric: str
    direction: str
    axes: tuple[str, ...]
    rows: tuple[ConfigurationResult, ...]
    """Complete configurations by the objective, best first; then the others by trial. In a study with racing, complete
    ones are ordered by their pessimistic bounds."""
    rejected: Mapping[str, int]
    """Number of configurations that were rejected before training, by the rule or budget that they violate."""
    devices: tuple[str, ...]
    versions: Mapping[str, tuple[str, ...]]
    """All versions of each library among the runs."""
    claims: tuple[ClaimResult, ...] = ()
    """The study's claims, evaluated on its runs."""
    full_scale: tuple[FullScaleRow, ...] = ()
    """Trainings at full scale of its networks."""
    is_training: bool = True
    """Whether the networks are trained, and not only built and measured."""
    data: tuple[str, ...] = ()
    """Notes on the data: number of images, what is missing, and whether the folder holds other data now."""
    measures: tuple[str, ...] = ()
    """Measures that the study requests; a transfer is named by what it learns, `masks` or `boxes`."""
    environment: Environment | None = None
    """The environment in which this machine would compute the study's runs now."""
    origins: tuple[OtherEnvironment, ...] = ()
    """Complete runs of other environments."""
    time_notes: tuple[str, ...] = ()
    """Notes on times that are left out, with the reason."""

    search: Mapping[str, Any] = field(default_factory=dict)
    """The keys `search` of the study as it was run: sampler, with the digest of a plug-in, pruner, seeds, ..."""
    ended: str | None = None
    """Reason why a search ended before everything was trained, or the number of a sampler's repeated proposals."""
    is_out_of_budget: bool = False
    """Whether the study ended because `search.budget` is used up."""
    budget: BudgetStatus | None = None
    """The study's budget, with what is used of it; None without one."""
    open_by_budget: frozenset[str] = frozenset()
    """Claims that would get further seeds if the budget were not used up."""
    resampling: tuple[tuple[str, bool], ...] = ()
    """How the runs' images were sampled, and whether they were generated; see `resampling_ways`."""

    pareto: ParetoFront | None = None
    """The Pareto front of a study with several objectives."""
    race: RaceResult | None = None
    """How the best configuration was chosen, in a study with `search.racing`."""
    effects: "EffectsResult | None" = None
    """What each axis is worth, at the end of a search with space-filling trials; see `harness.analysis.effects`."""
    trust: "TrustResult | None" = None
    """How far the proxy may be trusted, at the end of a search that prunes or scores; see `harness.analysis.trust`."""

    @property
    def limit(self) -> Limit | None:
        """The limit that all complete configurations are at, if any: they cannot be distinguished then."""
        return common_limit(row.limit for row in self.complete)

    @property
    def complete(self) -> tuple[ConfigurationResult, ...]:
        """The complete configurations within the budgets, best first."""
        return tuple(row for row in self.rows if row.state == "complete")

    @property
    def best(self) -> ConfigurationResult | None:
        """The complete configuration within the budgets with the best mean; None if all are at one limit.

        In a study with racing, that with the largest pessimistic bound (with the smallest, if less is better). In one
        with several objectives, the knee of the front; without a knee, the best of the front in the first objective.
        """
        if self.pareto is not None:
            return None if self.limit or self.pareto.best is None else self.row_of(self.pareto.best)
        return None if self.limit else next(iter(self.complete), None)

    @property
    def ranked(self) -> tuple[ConfigurationResult, ...]:
        """The complete configurations, the best first; of several objectives, those of the front before the others."""
        if self.pareto is None or self.best is None:
            return self.complete
        return tuple(sorted(self.complete, key=lambda row: (row is not self.best, not row.is_on_front)))

    @property
    def objectives_text(self) -> str:
        """The objectives with their directions, as text."""
        objectives = {self.metric: self.direction} if self.pareto is None else self.pareto.objectives
        return ", ".join(f"{direction} {name}" for name, direction in objectives.items())

    @property
    def best_so_far(self) -> ConfigurationResult | None:
        """The configuration with the best mean so far, even if seeds of it are not trained; None as for `best`."""
        if self.limit or self.pareto is not None or (self.race is not None and self.race.has_bounds):
            return self.best
        running = [row for row in self.rows if row.values and row.state in ("complete", *OPEN)]
        return min(running, key=lambda row: _rank(row, self.direction), default=None)

    @property
    def front(self) -> tuple[ConfigurationResult, ...]:
        """The Pareto front of the objective against MACs, cheapest first; of several objectives, by the first one."""
        if self.pareto is not None:
            return tuple(row for row in self.rows if row.is_on_front)
        return tuple(sorted((row for row in self.rows if row.is_on_front), key=lambda row: row.macs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all values."""
        return tuple(sorted({seed for row in self.rows for seed in row.seeds}))

    @property
    def curve_metric(self) -> str:
        """The first objective that epochs have; if none has one, the first."""
        objectives = () if self.pareto is None else self.pareto.objectives
        return next((name for name in objectives if name in CURVES), self.metric)

    @property
    def further_columns(self) -> tuple[str, ...]:
        """The further objectives that have no column of their own in the table of every study."""
        names = () if self.pareto is None else list(self.pareto.objectives)[1:]
        return tuple(name for name in names if name not in (*COST_OBJECTIVES, LATENCY))

    def to_dict(self) -> dict[str, Any]:
        """All results as plain values, as `summary.json` holds them; numbers that are not finite are None."""
        from harness.analysis.summary import results_values  # which imports this module

        return cast("dict[str, Any]", json_safe(results_values(self)))

    def row_of(self, trial: int) -> ConfigurationResult | None:
        """The row of a trial."""
        return next((row for row in self.rows if trial in row.trials), None)

    def gap_to_best(self, row: ConfigurationResult) -> float:
        """The difference between a complete row's mean and the best mean; 0 for the best."""
        assert self.best is not None and self.best.mean is not None and row.mean is not None
        return abs(self.best.mean - row.mean)

    def unseparated(self) -> tuple[ConfigurationResult, ...]:
        """The rows that the spread over seeds does not separate from the best; both need at least two seeds."""
        best = self.best
        if best is None or best.spread is None:
            return ()
        others = (row for row in self.complete[1:] if row.spread is not None)
        return tuple(row for row in others if self.gap_to_best(row) <= max(row.noise, best.noise))


def study_results(
    study: Study,
    store: Store,
    trials: Sequence["FrozenTrial"],
    rejected: Mapping[str, int],
    claims: tuple[ClaimResult, ...] = (),
    environment: Environment | None = None,
    data: Sequence[str] = (),
) -> StudyResults:
    """The results of a study from its trials, their runs and the evaluated claims; `rejected` as counted by its space.

    Runs are compared with `environment`, by default that in which this machine would compute them. `data` has notes on
    the current data set.
    """
    environment = environment or study_environment(study)
    links = store.trial_runs(study.study)
    read = read_run_results(store, {run_id for ids in links.values() for run_id in ids})
    stored = [run.row for run in read.values()]
    reference = time_reference(stored, environment)
    runs = {run_id: of_one_environment(run, reference) for run_id, run in read.items()}
    metric, direction = study.objective, study.direction
    ended = _why_ended(store, study.study)
    rows = [
        configuration_result(
            group, [runs[i] for trial in group for i in links.get(trial.number, ()) if i in runs], study
        )
        for group in trials_by_configuration(trials).values()
    ]
    race = _race(study, rows)
    rows = sorted(_with_limits(_with_bounds(rows, race), study), key=lambda row: _order(row, direction))
    pareto = pareto_front(study, rows, rejected) if study.has_several_objectives else None
    trained = [row for row in stored if row.device is not None]
    return StudyResults(
        study=study.study,
        metric=metric,
        direction=direction,
        axes=tuple(study.axes),
        rows=_with_front(rows, direction) if pareto is None else _with_pareto_front(rows, pareto),
        pareto=pareto,
        rejected=rejected,
        devices=tuple(sorted({row.device for row in trained if row.device})),
        versions={name: _versions(trained, name) for name in sorted({n for row in trained for n in row.versions})},
        claims=claims,
        full_scale=FullScaleRuns(store).of_study(study.study),
        is_training=study.proxy.epochs > 0,
        data=(*data, *_data_lines(store, runs)),
        measures=(*study.proxy.measures, *([study.proxy.transfer.learns] if study.proxy.transfer else [])),
        environment=environment,
        origins=other_environments(stored, environment),
        time_notes=tuple(time_notes(stored, (run_id for run_id, run in runs.items() if run.lacks_times))),
        search=_search_values(study, store),
        ended="; ".join(ended.values()) or None,
        is_out_of_budget=BUDGET_ENDED in ended,
        budget=budget_status(study, store),
        open_by_budget=claims_needing_seeds(study, claims) if BUDGET_ENDED in ended else frozenset(),
        race=race,
        resampling=resampling_ways(row for row in stored if row.state == RunState.COMPLETE),
    )


def _search_values(study: Study, store: Store) -> dict[str, Any]:
    """The keys `search` of the study as it was run last; those of its file if the store has none."""
    try:
        stored = parse_stored(store.study(study.study).resolved).get("search") or {}
    except NotFound:
        stored = {}
    return {**study.search.model_dump(mode="json"), **stored}


def _why_ended(store: Store, study: str) -> dict[str, str]:
    """The stored reasons for the end of the search, by kind of event; none if it was continued since."""
    events = store.events(study)
    last = max((event.id for event in events if event.kind in TRIAL_ENDED), default=0)
    reasons = [event for event in events if event.kind in REASONS_ENDED and event.id > last]
    if not reasons or store.last_attempt(study) > reasons[-1].id:
        return {}
    return {event.kind: event.message for event in reasons}


def _data_lines(store: Store, runs: Mapping[str, RunResult]) -> tuple[str, ...]:
    """The number of training and validation images of the runs, for data read from disk; then notes on the data set."""
    counts = {name: _range([run.measures.get(name) for run in runs.values()]) for name in COUNT_TITLES}
    parts = [f"{count} {COUNT_TITLES[name]}" for name, count in counts.items() if count is not None]
    lines = [f"Every run uses {' and '.join(parts)}."] if parts else []
    return (*lines, *(f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in store.notes_of(runs)))


def _range(counts: Iterable[float | None]) -> str | None:
    """Text such as `32`, or `30 to 32` if runs differ."""
    distinct = sorted({round(count) for count in counts if count is not None})
    if not distinct:
        return None
    return f"{distinct[0]:,}" if len(distinct) == 1 else f"{distinct[0]:,} to {distinct[-1]:,}"


def _with_limits(rows: Sequence[ConfigurationResult], study: Study) -> list[ConfigurationResult]:
    """The rows with the limits that they are at: in the first objective that may have one."""
    tested = next((name for name in study.objectives if name in (*CURVES, *CHANCE_METRICS)), study.objective)
    done = [[run.values for run in row.runs if run.value(tested) is not None] for row in rows]
    return [
        replace(row, limit=limit, val_images=fewest_images(runs) if study.objective == "top1" else None)
        for row, runs, limit in zip(rows, done, limits_of(tested, done), strict=True)
    ]


def _race(study: Study, rows: Sequence[ConfigurationResult]) -> RaceResult | None:
    """How the best of the complete rows is chosen in a study with racing; None in other studies."""
    if study.search.racing is None:
        return None
    complete = [row for row in rows if row.state == "complete"]
    return race_result(
        study,
        {row.fingerprint: dict(zip(row.seeds, row.values, strict=True)) for row in complete},
        {row.fingerprint: len(row.values) + len(row.missing) for row in complete},
        {row.fingerprint: row.macs for row in complete},
    )


def _with_bounds(rows: Sequence[ConfigurationResult], race: RaceResult | None) -> list[ConfigurationResult]:
    """The rows with their pessimistic bounds in the race, if there is one."""
    if race is None or not race.has_bounds:
        return list(rows)
    bounds = {name: bound.bound for name, bound in race.bounds.items()}
    return [replace(row, bound=bounds.get(row.fingerprint)) for row in rows]


def _rank(row: ConfigurationResult, direction: str) -> float:
    """Sort key by the pessimistic bound of a race, else by the mean; best first."""
    value = row.mean if row.bound is None else row.bound
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if direction == "maximize" else value


def _order(row: ConfigurationResult, direction: str) -> tuple[bool, bool, float, int, int]:
    """Sort key: complete rows first, as `_rank` has them and then by their MACs; the others by trial."""
    if row.state in ("complete", "over budget"):
        return False, row.bound is None, _rank(row, direction), row.macs, row.trials[0]
    return True, True, 0.0, 0, row.trials[0]


def _with_front(rows: Sequence[ConfigurationResult], direction: str) -> tuple[ConfigurationResult, ...]:
    """The rows, with those on the Pareto front marked."""
    complete = [row for row in rows if row.state == "complete" and row.mean is not None]
    if common_limit(row.limit for row in complete) is not None:
        return tuple(rows)
    by_macs = sorted((row for row in complete if row.limit != Limit.CHANCE), key=lambda row: row.macs)
    front: set[tuple[int, ...]] = set()
    best = -math.inf
    for _, same_macs in groupby(by_macs, key=lambda row: row.macs):
        gains = {row.trials: -_rank(row, direction) for row in same_macs}
        top = max(gains.values())
        if top > best:
            best = top
            front |= {trials for trials, gain in gains.items() if gain == top}
    return tuple(replace(row, is_on_front=row.trials in front) for row in rows)


def _with_pareto_front(rows: Sequence[ConfigurationResult], pareto: ParetoFront) -> tuple[ConfigurationResult, ...]:
    """The rows, with those on the front of several objectives marked; none if all are at one limit."""
    if common_limit(row.limit for row in rows if row.state == "complete") is not None:
        return tuple(rows)
    return tuple(replace(row, is_on_front=row.trials[0] in pareto.front) for row in rows)


def _versions(rows: Iterable[RunRow], name: str) -> tuple[str, ...]:
    return tuple(sorted({row.versions[name] for row in rows if name in row.versions}))


def results_limit_sentence(results: StudyResults) -> str:
    """Sentence for results at a limit: that nothing can be told apart, and why."""
    assert results.limit is not None
    images = min((row.val_images for row in results.complete if row.val_images is not None), default=None)
    return limit_sentence(results.limit, [len(row.values) for row in results.complete], images)


def resampling_ways(rows: Iterable[RunRow]) -> tuple[tuple[str, bool], ...]:
    """How the images of these runs were sampled, and whether they were generated; all distinct combinations.

    Runs of earlier recipe revisions, before images were sampled for each seed, shared one data set.
    """
    trained = (row for row in rows if row.run.recipe.epochs > 0)
    ways = {
        (row.run.recipe.resample if row.id == row.run.id else "none", row.run.recipe.dataset == "shapes")
        for row in trained
    }
    return tuple(sorted(ways))


def noise_line(ways: Iterable[tuple[str, bool]]) -> str | None:
    """The sources of noise in spreads and intervals over seeds, as a sentence; None if nothing was trained."""
    lines = []
    for way in ways:
        per_seed = PER_SEED_SOURCES.get(way)
        lines.append(f"intervals hold {TRAINING_SOURCES}, {per_seed or f'of {SHARED_DATA_NOTE}'}")
    if len(lines) > 1:
        return f"Mixed: {'; some runs: '.join(lines)}."
    return f"{lines[0][0].upper()}{lines[0][1:]}." if lines else None
