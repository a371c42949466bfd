"""The result of one configuration as values: its runs, its latency, and the seeds that have no value."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.analysis.formatting import format_milliseconds
from harness.analysis.limits import Limit, RunValues, sampling_error
from harness.analysis.objective import LATENCY, LATENCY_BOUND, objective_value, spread_of
from harness.analysis.proposal_origin import ENQUEUED_AS
from harness.analysis.reuse import without_other_times
from harness.analysis.run_status import TrialStatus, configuration_status, trial_status
from harness.config.recipe_axes import with_changes
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import axis_value
from harness.config.study import Study
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec
from harness.storage import RunRow, Store
from harness.training.environment import Environment
from harness.training.run import Epoch, RunState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

PENDING = (RunState.QUEUED, RunState.RUNNING)


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


def read_run_results(store: Store, run_ids: Iterable[str]) -> dict[str, RunResult]:
    """Read rows, learning curves and metrics of these runs from the store, in three queries."""
    ids = list(run_ids)
    curves, metrics = store.epochs_of_runs(ids), store.metrics_of_runs(ids)
    rows = store.runs(ids).items()
    return {run_id: RunResult(row, tuple(curves.get(run_id, ())), metrics.get(run_id, {})) for run_id, row in rows}


def of_one_environment(run: RunResult, reference: Environment | None) -> RunResult:
    """The run without times of another environment than the reference, whose times are shown."""
    row = run.row
    measures, lacks_times = without_other_times(row, run.measures, reference)
    is_of_reference = row.environment is None if reference is None else row.is_of(reference)
    return replace(run, measures=measures, lacks_times=lacks_times, is_of_reference=is_of_reference)


class LatencyResult(NamedTuple):
    """A latency measurement; those of earlier versions have only the median."""

    median_ms: float
    low_ms: float | None
    """Lower end of the median's 95 % interval."""
    high_ms: float | None
    n: int | None
    """Number of samples."""
    is_quiet: bool
    """Whether no other work on the device was recorded during the measurement."""

    @property
    def text(self) -> str:
        """Text such as `5.91 [5.88, 5.95]`; with `~` if other work disturbed it."""
        median = f"{'' if self.is_quiet else '~'}{format_milliseconds(self.median_ms)}"
        if self.low_ms is None or self.high_ms is None:
            return median
        return f"{median} [{format_milliseconds(self.low_ms)}, {format_milliseconds(self.high_ms)}]"


def latency_result(runs: Iterable[Mapping[str, float]]) -> LatencyResult | None:
    """The measurement of a configuration's complete runs; of several different ones, that with the middle median."""
    distinct = {_latency(measures) for measures in runs if LATENCY in measures}
    measurements = sorted(distinct, key=lambda measurement: measurement.median_ms)
    return measurements[(len(measurements) - 1) // 2] if measurements else None


def latency_values(latency: LatencyResult | None) -> dict[str, Any]:
    """The latency as plain values for JSON."""
    names = ("latency_ms_p50", "latency_ms_low", "latency_ms_high", "latency_ms_n", "latency_is_quiet")
    return dict.fromkeys(names) if latency is None else dict(zip(names, latency, strict=True))


def _latency(measures: Mapping[str, float]) -> LatencyResult:
    n = measures.get("latency_ms_n")
    return LatencyResult(
        measures[LATENCY],
        measures.get("latency_ms_low"),
        measures.get(LATENCY_BOUND),
        None if n is None else int(n),
        is_quiet="latency_ms_disturbed" not in measures,
    )


class MissingSeed(NamedTuple):
    """A seed whose run ended without a value."""

    seed: int
    state: str
    """State such as `diverged` or `out of memory`; `stopped` if an earlier version pruned it."""
    cause: str | None

    @property
    def text(self) -> str:
        """Text such as `seed 2 diverged: the training loss is nan`."""
        state = "was stopped by the pruner" if self.state == "stopped" else self.state
        return f"seed {self.seed} {state}{f': {self.cause}' if self.cause else ''}"


def missing_seeds(rows: Iterable[RunRow], seeds: Sequence[int]) -> tuple[MissingSeed, ...]:
    """The ended runs that have no value, by seed; `seeds` are those that have one."""
    ended = {row.run.seed: row for row in rows if row.state not in PENDING and row.run.seed not in seeds}
    return tuple(
        MissingSeed(seed, str(row.state).replace("_", " "), row.cause if row.state != RunState.STOPPED else None)
        for seed, row in sorted(ended.items())
    )


def seeds_text(values: int, missing: Sequence[MissingSeed]) -> str:
    """The n of a mean as text: `4`, or `3 of 4` if one is missing."""
    return f"{values} of {values + len(missing)}" if missing else str(values)


def missing_seeds_text(values: int, missing: Sequence[MissingSeed]) -> str | None:
    """Text such as `3 of 4 seeds: seed 2 diverged: the training loss is nan`; None if no seed is missing."""
    if not missing:
        return None
    return f"{seeds_text(values, missing)} seeds: {'; '.join(seed.text for seed in missing)}"


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
    """The first objective of the complete runs, by seed."""
    seeds: tuple[int, ...]
    """The seeds of `values`."""
    mean: float | None
    """Mean of the first objective over the seeds."""
    spread: float | None
    """Standard deviation over the seeds (n - 1); None for fewer than two."""
    runs: tuple[RunResult, ...]
    recipe: ProxyRecipe
    """The study's proxy with its choices on axes of the recipe."""
    fingerprint: str
    """Fingerprint of the network, with its recipe if the recipe varies."""
    derived: dict[str, Any]
    """Its values on the derived axes."""
    params_count: int
    """Parameters of the merged network."""
    macs: int
    """Nominal multiply-accumulates of the merged network, for one image of the recipe's resolution."""
    latency: LatencyResult | None
    """Latency of the merged network; the seeds of a configuration share one measurement."""
    wall_s: float | None
    """Mean training time of the complete runs of the environment whose times are shown."""
    enqueued_as: str | None = None
    """The entry of `search.enqueue` that lists it; None if the search proposed it."""
    missing: tuple[MissingSeed, ...] = ()
    """Seeds whose runs ended without a value."""
    is_on_front: bool = False
    """Whether no other complete configuration within the budgets has fewer MACs and a value at least as good; of
    several objectives, whether none is at least as good in all of them and better in one."""
    limit: Limit | None = None
    """The limit from which its objective cannot be distinguished: chance, or the ceiling."""
    bound: float | None = None
    """Its pessimistic bound, by which a study with `search.racing` ranks it; None in other studies."""
    further: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The further objectives of a study with several: by name, the values of the complete runs, by seed."""
    val_images: int | None = None
    """Number of validation images of each seed; the smallest of them."""

    @property
    def means(self) -> tuple[float, ...]:
        """The mean of each objective; only for a configuration with values."""
        assert self.mean is not None
        return (self.mean, *(statistics.fmean(values) for values in self.further.values()))

    @property
    def spreads(self) -> tuple[float | None, ...]:
        """The standard deviation over the seeds of each objective (n - 1); None for fewer than two seeds."""
        return (self.spread, *(spread_of(values) for values in self.further.values()))

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


def trial_spec(trial: "FrozenTrial") -> NetworkSpec:
    """The network of a trial that was opened."""
    return NetworkSpec.from_mapping(json.loads(trial.user_attrs["spec"]))


def trial_recipe(trial: "FrozenTrial", study: Study) -> ProxyRecipe:
    """The recipe of a trial that was opened: the study's proxy with its choices, and what was adapted to them."""
    changes = trial.user_attrs.get("recipe")
    return study.proxy if changes is None else with_changes(study.proxy, json.loads(changes))


def trial_choices(trial: "FrozenTrial", axes: Iterable[str]) -> dict[str, Any]:
    """The choices of a trial in the order of the axes; lists, which Optuna stores as text, become lists again."""
    params = trial.params
    return {name: _choice(params[name]) for name in axes if name in params}


def _choice(stored: Any) -> Any:
    if isinstance(stored, float):  # of a range, which Optuna computes as low + n * step
        return round(stored, 12)
    return json.loads(stored) if isinstance(stored, str) and stored.startswith("[") else stored


def _reason(status: TrialStatus, values: int, missing: Sequence[MissingSeed]) -> str | None:
    """The reason why a configuration is not complete; of one that was given up after some seeds, that of the pruner."""
    if values and not (status.state == "pruned" and status.reason):
        return missing_seeds_text(values, missing) or status.reason
    return status.reason


def _objectives_of(run: RunResult, study: Study) -> list[float] | None:
    """The objectives of a complete run; None if it lacks one."""
    known = [value for metric in study.objectives if (value := run.value(metric)) is not None]
    return known if len(known) == len(study.objectives) else None


def configuration_result(
    group: Sequence["FrozenTrial"], runs: Sequence[RunResult], study: Study
) -> ConfigurationResult:
    """The result of the configuration that these trials share."""
    spec, recipe = trial_spec(group[0]), trial_recipe(group[0], study)
    status = configuration_status([trial_status(trial) for trial in group])
    screening = {trial.user_attrs.get("screening") for trial in group}
    full = [run for run in runs if run.row.run.seed not in screening]
    by_seed = {run.row.run.seed: known for run in full if (known := _objectives_of(run, study)) is not None}
    seeds = tuple(sorted(by_seed))
    values, *others = [tuple(by_seed[seed][i] for seed in seeds) for i in range(len(study.objectives))]
    over = {seed for trial in group if trial.state.is_finished() for seed in trial.user_attrs["seeds"]}
    missing = missing_seeds((run.row for run in full if run.row.run.seed in over), seeds)
    done = [run for run in full if run.row.state == RunState.COMPLETE]
    walls_s = [run.row.wall_s for run in done if run.is_of_reference]
    cost = network_cost(spec, recipe.resolution)
    return ConfigurationResult(
        trials=tuple(trial.number for trial in group),
        params=trial_choices(group[0], study.axes),
        spec=spec,
        state=status.state,
        reason=_reason(status, len(values), missing),
        values=values,
        seeds=seeds,
        mean=statistics.fmean(values) if values else None,
        spread=spread_of(values),
        runs=tuple(runs),
        recipe=recipe,
        fingerprint=group[0].user_attrs["fingerprint"],
        derived={name: axis_value(name, spec, recipe) for name, raw in study.axes.items() if isinstance(raw, str)},
        params_count=cost.params,
        macs=cost.macs,
        latency=latency_result(run.measures for run in done),
        enqueued_as=next((trial.user_attrs[ENQUEUED_AS] for trial in group if ENQUEUED_AS in trial.user_attrs), None),
        missing=missing if values else (),
        further=dict(zip(list(study.objectives)[1:], others, strict=True)),
        wall_s=statistics.fmean(walls_s) if walls_s else None,
    )
