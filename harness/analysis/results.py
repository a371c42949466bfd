"""The results of a study as values: one row per configuration, the best of them, and their uncertainty.

Pure functions of the store and Optuna's trials; nothing is rounded or printed here.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from harness.analysis.claims import ClaimResult
from harness.analysis.data_notes import data_lines
from harness.analysis.environments import OtherEnvironment, other_environments, time_notes
from harness.analysis.formatting import json_safe, plural
from harness.analysis.latency import LatencyResult, latency_result
from harness.analysis.limits import RunValues, common_limit, fewest_images, limits_of
from harness.analysis.noise import resampling_ways
from harness.analysis.objective import objective_value
from harness.analysis.reuse import study_environment, time_reference, without_other_times
from harness.analysis.run_status import configuration_status, trial_status
from harness.analysis.seeds import MissingSeed, missing_seeds, missing_seeds_text
from harness.analysis.statistics.limits import Limit, sampling_error
from harness.config.study import Study
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec
from harness.storage import FullScaleRow, FullScaleRuns, RunRow, Store
from harness.storage.rows import SEARCH_ENDED, TRIAL_ENDED
from harness.training.environment import Environment
from harness.training.run import Epoch, RunState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

AT = {Limit.CHANCE: "at chance", Limit.CEILING: "at the ceiling"}
"""Text that marks a configuration at a limit in every view."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run with its learning curve and metrics."""

    row: RunRow
    curve: tuple[Epoch, ...]
    measures: Mapping[str, float]
    lacks_times: bool = False
    """Whether times were left out, because they are of another environment than those of other runs."""
    is_of_reference: bool = True
    """Whether it was trained in the environment whose times are shown."""

    @property
    def values(self) -> RunValues:
        """The recorded curve and metrics of the run."""
        return RunValues(self.row.run, self.curve, self.measures)

    def value(self, metric: str) -> float | None:
        """The objective of a complete run; None for any other run."""
        if self.row.state != RunState.COMPLETE:
            return None
        return objective_value(metric, self.row.run, self.curve, self.measures)


@dataclass(frozen=True, slots=True)
class ConfigurationResult:
    """One configuration, with all its trials and runs."""

    trials: tuple[int, ...]
    """Numbers of the trials with this configuration; several if a sampler proposed it again."""
    params: dict[str, Any]
    """Its choices, without inactive axes."""
    spec: NetworkSpec
    state: str
    """`complete`, `diverged`, `over budget`, `pruned`, `failed`, `running` or `waiting`; see `analysis.run_status`."""
    reason: str | None
    """Reason why it is not complete, or which of its seeds are missing."""
    values: tuple[float, ...]
    """The objective of the complete runs, by seed."""
    seeds: tuple[int, ...]
    """The seeds of `values`."""
    mean: float | None
    """Mean of the objective over the seeds."""
    spread: float | None
    """Standard deviation over the seeds (n - 1); None for fewer than two."""
    runs: tuple[RunResult, ...]
    params_count: int
    """Parameters of the merged network."""
    macs: int
    """Nominal multiply-accumulates of the merged network, for one image of the proxy's resolution."""
    latency: LatencyResult | None
    """Latency of the merged network; the seeds of a configuration share one measurement."""
    wall_s: float | None
    """Mean training time of the complete runs of the environment whose times are shown."""
    missing: tuple[MissingSeed, ...] = ()
    """Seeds whose runs ended without a value."""
    is_on_front: bool = False
    """Whether no other complete configuration within the budgets has fewer MACs and a value at least as good."""
    limit: Limit | None = None
    """The limit from which its objective cannot be distinguished: chance, or the ceiling."""
    val_images: int | None = None
    """Number of validation images of each seed; the smallest of them."""

    @property
    def sampling_error(self) -> float | None:
        """The standard error of a seed's accuracy, in points, due to the number of validation images."""
        return None if self.mean is None or self.val_images is None else sampling_error(self.mean, self.val_images)

    @property
    def noise(self) -> float:
        """The larger of the spread between seeds and, for an accuracy, the sampling error; 0 if neither is known."""
        return max(self.spread or 0.0, self.sampling_error or 0.0)

    @property
    def latency_ms(self) -> float | None:
        """Median latency in milliseconds."""
        return None if self.latency is None else self.latency.median_ms


@dataclass(frozen=True, slots=True)
class StudyResults:
    """The results of a study so far."""

    study: str
    metric: str
    direction: str
    axes: tuple[str, ...]
    rows: tuple[ConfigurationResult, ...]
    """Complete configurations by the objective, best first; then the others by trial."""
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

    ended: str | None = None
    """Reason why a sampler ended before it used all of its trials, or the number of its repeated proposals."""
    resampling: tuple[tuple[str, bool], ...] = ()
    """How the runs' images were sampled, and whether they were generated; see `harness.analysis.noise`."""

    @property
    def limit(self) -> Limit | None:
        """The limit that all complete configurations are at, if any: they cannot be distinguished then."""
        return common_limit(configuration.limit for configuration in self.complete)

    @property
    def complete(self) -> tuple[ConfigurationResult, ...]:
        """The complete configurations within the budgets, best first."""
        return tuple(configuration for configuration in self.rows if configuration.state == "complete")

    @property
    def best(self) -> ConfigurationResult | None:
        """The complete configuration within the budgets with the best mean; None if all are at one limit."""
        return None if self.limit else next(iter(self.complete), None)

    @property
    def ranked_metric(self) -> ConfigurationResult | None:
        """The configuration with the best mean so far, even if seeds of it are not trained; None as for `best`."""
        if self.limit:
            return None
        running = [
            configuration
            for configuration in self.rows
            if configuration.values and configuration.state in ("complete", "running", "waiting")
        ]
        return min(running, key=lambda configuration: _rank(configuration, self.direction), default=None)

    @property
    def front(self) -> tuple[ConfigurationResult, ...]:
        """The Pareto front of the objective against MACs, cheapest first."""
        return tuple(
            sorted(
                (configuration for configuration in self.rows if configuration.is_on_front),
                key=lambda configuration: configuration.macs,
            )
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all values."""
        return tuple(sorted({seed for configuration in self.rows for seed in configuration.seeds}))

    def to_dict(self) -> dict[str, Any]:
        """All results as plain values, as `summary.json` holds them; numbers that are not finite are None."""
        from harness.analysis.summary import results_values  # which imports this module

        return cast("dict[str, Any]", json_safe(results_values(self)))

    def row_of(self, trial: int) -> ConfigurationResult | None:
        """The row of a trial."""
        return next((configuration for configuration in self.rows if trial in configuration.trials), None)

    def dominated_rows(self, configuration: ConfigurationResult) -> float:
        """The difference between a complete row's mean and the best mean; 0 for the best."""
        assert self.best is not None and self.best.mean is not None and configuration.mean is not None
        return abs(self.best.mean - configuration.mean)

    def unseparated(self) -> tuple[ConfigurationResult, ...]:
        """The rows that the spread over seeds does not separate from the best; both need at least two seeds."""
        if self.best is None or self.best.spread is None:
            return ()
        return tuple(
            configuration
            for configuration in self.complete[1:]
            if configuration.spread is not None
            and self.dominated_rows(configuration) <= max(configuration.noise, self.best.noise)
        )


def read_run_results(store: Store, run_ids: Iterable[str]) -> dict[str, RunResult]:
    """Read rows, learning curves and metrics of these runs from the store, in three queries."""
    ids = list(run_ids)
    curves, metrics = store.epochs_of_runs(ids), store.metrics_of_runs(ids)
    return {
        run_id: RunResult(row, tuple(curves.get(run_id, ())), metrics.get(run_id, {}))
        for run_id, row in store.runs(ids).items()
    }


def study_results(
    study: Study,
    store: Store,
    trials: Sequence["FrozenTrial"],
    rejected: Mapping[str, int],
    claims: tuple[ClaimResult, ...] = (),
    here: Environment | None = None,
    data: Sequence[str] = (),
) -> StudyResults:
    """The results of a study from its trials, their runs and the evaluated claims; `rejected` as counted by its space.

    Runs are compared with the environment `here`, by default that in which this machine would compute them. `data` has
    notes on the current data set.
    """
    here = here or study_environment(study)
    links = store.trial_runs(study.study)
    runs = read_run_results(store, {run_id for ids in links.values() for run_id in ids})
    stored = [facts.row for facts in runs.values()]
    reference = time_reference(stored, here)
    runs = {run_id: _of_one_environment(facts, reference) for run_id, facts in runs.items()}
    metric, direction = next(iter(study.objectives.items()))
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        if "fingerprint" in trial.user_attrs:
            groups.setdefault(trial.user_attrs["fingerprint"], []).append(trial)
    configurations = [
        _configuration_result(
            group, [runs[i] for trial in group for i in links.get(trial.number, ()) if i in runs], study, metric
        )
        for group in groups.values()
    ]
    configurations = _with_limits(configurations, metric)
    trained = [facts.row for facts in runs.values() if facts.row.device is not None]
    return StudyResults(
        study=study.study,
        metric=metric,
        direction=direction,
        axes=tuple(study.axes),
        rows=_with_front(sorted(configurations, key=lambda configuration: _order(configuration, direction)), direction),
        rejected=rejected,
        devices=tuple(sorted({row.device for row in trained if row.device})),
        versions={name: _versions(trained, name) for name in sorted({n for row in trained for n in row.versions})},
        claims=claims,
        full_scale=FullScaleRuns(store).of_study(study.study),
        is_training=study.proxy.epochs > 0,
        data=(*data, *data_lines(store, runs)),
        measures=(*study.proxy.measures, *([study.proxy.transfer.learns] if study.proxy.transfer else [])),
        environment=here,
        origins=other_environments(stored, here),
        time_notes=tuple(time_notes(stored, (run_id for run_id, facts in runs.items() if facts.lacks_times))),
        ended=_why_ended(store, study.study),
        resampling=resampling_ways(facts.row for facts in runs.values() if facts.row.state == RunState.COMPLETE),
    )


def trial_spec(trial: "FrozenTrial") -> NetworkSpec:
    """The network of a trial that was opened."""
    return NetworkSpec.from_mapping(json.loads(trial.user_attrs["spec"]))


def trial_choices(trial: "FrozenTrial", axes: Iterable[str]) -> dict[str, Any]:
    """The choices of a trial in the order of the axes; lists, which Optuna stores as text, become lists again."""
    params = trial.params
    return {name: _choice(params[name]) for name in axes if name in params}


def _why_ended(store: Store, study: str) -> str | None:
    """The reason for the end of the search that the driver stored, unless a trial has ended since."""
    events = store.events(study)
    last = max((i for i, event in enumerate(events) if event.kind == SEARCH_ENDED), default=None)
    if last is None or any(event.kind in TRIAL_ENDED for event in events[last:]):
        return None
    return events[last].message


def _of_one_environment(facts: RunResult, reference: Environment | None) -> RunResult:
    """The run without times of another environment than the reference, whose times are shown."""
    row = facts.row
    measures, lacks_times = without_other_times(row, facts.measures, reference)
    is_of_reference = row.environment is None if reference is None else row.is_of(reference)
    return replace(facts, measures=measures, lacks_times=lacks_times, is_of_reference=is_of_reference)


def _configuration_result(
    group: Sequence["FrozenTrial"], runs: Sequence[RunResult], study: Study, metric: str
) -> ConfigurationResult:
    """The result of the configuration that these trials share."""
    spec = trial_spec(group[0])
    status = configuration_status([trial_status(trial) for trial in group])
    screening = {trial.user_attrs.get("screening") for trial in group}
    seeds = [facts for facts in runs if facts.row.run.seed not in screening]
    by_seed = {facts.row.run.seed: value for facts in seeds if (value := facts.value(metric)) is not None}
    values = tuple(by_seed[seed] for seed in sorted(by_seed))
    over = {seed for trial in group if trial.state.is_finished() for seed in trial.user_attrs["seeds"]}
    missing = missing_seeds((facts.row for facts in seeds if facts.row.run.seed in over), tuple(by_seed))
    done = [facts for facts in seeds if facts.row.state == RunState.COMPLETE]
    walls_s = [facts.row.wall_s for facts in done if facts.is_of_reference]
    cost = network_cost(spec, study.proxy.resolution)
    return ConfigurationResult(
        trials=tuple(trial.number for trial in group),
        params=trial_choices(group[0], study.axes),
        spec=spec,
        state=status.state,
        reason=(missing_seeds_text(len(values), missing) if values else None) or status.reason,
        values=values,
        seeds=tuple(sorted(by_seed)),
        mean=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        runs=tuple(runs),
        params_count=cost.params,
        macs=cost.macs,
        latency=latency_result(facts.measures for facts in done),
        missing=missing if values else (),
        wall_s=statistics.fmean(walls_s) if walls_s else None,
    )


def _with_limits(configurations: Sequence[ConfigurationResult], metric: str) -> list[ConfigurationResult]:
    """The rows with the limits that they are at."""
    done = [
        [each.values for each in configuration.runs if each.value(metric) is not None]
        for configuration in configurations
    ]
    return [
        replace(configuration, limit=limit, val_images=fewest_images(runs) if metric == "top1" else None)
        for configuration, runs, limit in zip(configurations, done, limits_of(metric, done), strict=True)
    ]


def _choice(stored: Any) -> Any:
    return json.loads(stored) if isinstance(stored, str) and stored.startswith("[") else stored


def _rank(configuration: ConfigurationResult, direction: str) -> float:
    """Sort key by the mean, best first."""
    if configuration.mean is None or not math.isfinite(configuration.mean):
        return math.inf
    return -configuration.mean if direction == "maximize" else configuration.mean


def _order(configuration: ConfigurationResult, direction: str) -> tuple[bool, float, int, int]:
    """Sort key: complete rows first, by their mean and then by their MACs; the others by trial."""
    if configuration.state in ("complete", "over budget"):
        return False, _rank(configuration, direction), configuration.macs, configuration.trials[0]
    return True, 0.0, 0, configuration.trials[0]


def _with_front(configurations: Sequence[ConfigurationResult], direction: str) -> tuple[ConfigurationResult, ...]:
    """The rows, with those on the Pareto front marked."""
    sign = 1 if direction == "maximize" else -1
    ranked = [
        configuration
        for configuration in configurations
        if configuration.state == "complete" and configuration.mean is not None
    ]
    if common_limit(configuration.limit for configuration in ranked) is not None:
        return tuple(configurations)
    complete = [configuration for configuration in ranked if configuration.limit != Limit.CHANCE]
    front: set[tuple[int, ...]] = set()
    best = -math.inf
    for _, same_macs in groupby(
        sorted(complete, key=lambda configuration: configuration.macs), key=lambda configuration: configuration.macs
    ):
        gains = {
            configuration.trials: sign * configuration.mean
            for configuration in same_macs
            if configuration.mean is not None
        }
        top = max(gains.values())
        if top > best:
            best = top
            front |= {trials for trials, gain in gains.items() if gain == top}
    return tuple(replace(configuration, is_on_front=configuration.trials in front) for configuration in configurations)


def _versions(rows: Iterable[RunRow], name: str) -> tuple[str, ...]:
    return tuple(sorted({row.versions[name] for row in rows if name in row.versions}))


def results_limit_sentence(results: StudyResults) -> str:
    """Sentence for results at a limit: that nothing can be told apart, and why."""
    assert results.limit is not None
    images = min(
        (configuration.val_images for configuration in results.complete if configuration.val_images is not None),
        default=None,
    )
    return limit_sentence(results.limit, [len(configuration.values) for configuration in results.complete], images)


def limit_sentence(limit: Limit, seeds: Sequence[int], images: int | None) -> str:
    """Sentence that nothing can be told apart, and why; `seeds` has the number of complete runs per configuration."""
    several = "Both" if len(seeds) == 2 else f"All {len(seeds)}"
    all_of = "The configuration is" if len(seeds) == 1 else f"{several} configurations are"
    n = f"{plural(sum(seeds), 'run')}{'' if images is None else f' of {images:,} validation images'}"
    why, remedy = "next to no error", "Take harder images."
    if limit == Limit.CHANCE:
        why, remedy = "no better than a constant answer", "Train longer, or on easier images."
    return f"{all_of} {AT[limit]} ({why}, {n}): nothing can be told apart here. {remedy}"
