"""The answer of a study, as values: one row per configuration, the best of them, and how far that can be believed.

Pure functions of what the store and Optuna's trials hold; nothing is rounded or printed here.
"""

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from harness.claims.limits import Limit, sampling_error
from harness.cost import network_cost
from harness.report.noise import resampling_of
from harness.run import Epoch, RunState
from harness.search.claims import Judged
from harness.search.limits import RunValues, images_of, limit_of_runs
from harness.search.objective import final_value
from harness.spec import NetworkSpec
from harness.store import FullRow, FullRuns, RunRow, Store
from harness.study import Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LATENCY = "latency_ms_p50"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run with all that it said."""

    row: RunRow
    curve: tuple[Epoch, ...]
    measures: Mapping[str, float]

    @property
    def values(self) -> RunValues:
        """What it recorded."""
        return RunValues(self.row.run, self.curve, self.measures)

    def value(self, metric: str) -> float | None:
        """The objective of a complete run; None for any other run."""
        if self.row.state != RunState.COMPLETE:
            return None
        return final_value(metric, self.row.run, self.curve, self.measures)


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration, with all its trials and runs."""

    trials: tuple[int, ...]
    """Numbers of the trials that had this configuration; more than one where a sampler came back to it."""
    params: dict[str, Any]
    """Its choices; an axis that did not count is not among them."""
    spec: NetworkSpec
    state: str
    """`complete`, `over budget`, `pruned`, `failed`, `running` or `waiting`."""
    reason: str | None
    values: tuple[float, ...]
    """The objective by seed, of the complete runs."""
    seeds: tuple[int, ...]
    """The seeds behind `values`."""
    mean: float | None
    """Mean of the objective over the seeds."""
    spread: float | None
    """Standard deviation over the seeds (n - 1); None for fewer than two."""
    runs: tuple[RunFacts, ...]
    params_count: int
    """Parameters of the merged network."""
    macs: int
    """Nominal multiply-accumulates of the merged network, for one image of the proxy's resolution."""
    latency_ms: float | None
    """Median over the runs of their median."""
    wall_s: float | None
    """Mean training time of a complete run."""
    is_on_front: bool = False
    """Whether no other complete configuration within the budgets has fewer MACs and a value at least as good."""
    limit: Limit | None = None
    """What its objective cannot be told from: chance, or the most that there is."""
    val_images: int | None = None
    """Validation images behind the value of each seed; the fewest."""

    @property
    def sampling_error(self) -> float | None:
        """The standard error of a seed's accuracy, in points, that comes from the number of validation images."""
        return None if self.mean is None or self.val_images is None else sampling_error(self.mean, self.val_images)

    @property
    def noise(self) -> float:
        """The larger of the spread between seeds and, of an accuracy, the sampling error; 0 where nothing is known."""
        return max(self.spread or 0.0, self.sampling_error or 0.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a study says so far."""

    study: str
    metric: str
    direction: str
    axes: tuple[str, ...]
    rows: tuple[Row, ...]
    """The complete ones by the objective, best first; then the others by trial."""
    rejected: Mapping[str, int]
    """Configurations that were never trained, by the rule or budget that they break."""
    devices: tuple[str, ...]
    versions: Mapping[str, tuple[str, ...]]
    """All versions of each library among the runs."""
    claims: tuple[Judged, ...] = ()
    """The study's claims, judged on its runs."""
    full_scale: tuple[FullRow, ...] = ()
    """What was trained at full scale on its advice."""
    is_training: bool = True
    """Whether the networks are trained, and not only built and measured."""
    measures: tuple[str, ...] = ()
    """What is measured because the study asks for it; a transfer by what it learns, `masks` or `boxes`."""

    resampling: tuple[tuple[str, bool], ...] = ()
    """How the runs' images were drawn, and whether they were generated; see `harness.report.noise`."""

    @property
    def limit(self) -> Limit | None:
        """The limit that all complete configurations are at, if they are: nothing can be told apart then."""
        limits = {row.limit for row in self.complete}
        return limits.pop() if len(limits) == 1 else None

    @property
    def complete(self) -> tuple[Row, ...]:
        """The complete configurations within the budgets, best first."""
        return tuple(row for row in self.rows if row.state == "complete")

    @property
    def best(self) -> Row | None:
        """The complete configuration within the budgets with the best mean; None where all are at one limit."""
        return None if self.limit else next(iter(self.complete), None)

    @property
    def leading(self) -> Row | None:
        """The best mean so far, also of a configuration whose seeds are not all trained yet; None as for `best`."""
        if self.limit:
            return None
        running = [row for row in self.rows if row.values and row.state in ("complete", "running", "waiting")]
        return min(running, key=lambda row: _rank(row, self.direction), default=None)

    @property
    def front(self) -> tuple[Row, ...]:
        """The Pareto front of the objective against MACs, cheapest first."""
        return tuple(sorted((row for row in self.rows if row.is_on_front), key=lambda row: row.macs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds behind the values."""
        return tuple(sorted({seed for row in self.rows for seed in row.seeds}))

    def row_of(self, trial: int) -> Row | None:
        """The row of a trial."""
        return next((row for row in self.rows if trial in row.trials), None)

    def behind(self, row: Row) -> float:
        """By how much a complete row is worse than the best; 0 for the best."""
        assert self.best is not None and self.best.mean is not None and row.mean is not None
        return abs(self.best.mean - row.mean)

    def unseparated(self) -> tuple[Row, ...]:
        """The rows that the seeds' spread does not separate from the best; needs two seeds on both sides."""
        if self.best is None or self.best.spread is None:
            return ()
        return tuple(
            row
            for row in self.complete[1:]
            if row.spread is not None and self.behind(row) <= max(row.noise, self.best.noise)
        )


def read_runs(store: Store, run_ids: Iterable[str]) -> dict[str, RunFacts]:
    """All that the store knows of these runs, in three questions."""
    ids = list(run_ids)
    curves, figures = store.curves(ids), store.figures(ids)
    return {
        run_id: RunFacts(row, tuple(curves.get(run_id, ())), figures.get(run_id, {}))
        for run_id, row in store.runs(ids).items()
    }


def answer(
    study: Study,
    store: Store,
    trials: Sequence["FrozenTrial"],
    rejected: Mapping[str, int],
    claims: tuple[Judged, ...] = (),
) -> Answer:
    """The answer of a study from its trials and their runs; `rejected` as its space counts them, claims as judged."""
    links = store.trial_runs(study.study)
    runs = read_runs(store, {run_id for ids in links.values() for run_id in ids})
    metric, direction = next(iter(study.objectives.items()))
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        if "fingerprint" in trial.user_attrs:
            groups.setdefault(trial.user_attrs["fingerprint"], []).append(trial)
    rows = [
        _row(group, [runs[i] for trial in group for i in links.get(trial.number, ()) if i in runs], study, metric)
        for group in groups.values()
    ]
    rows = _with_limits(rows, metric)
    trained = [facts.row for facts in runs.values() if facts.row.device is not None]
    return Answer(
        study=study.study,
        metric=metric,
        direction=direction,
        axes=tuple(study.axes),
        rows=_with_front(sorted(rows, key=lambda row: _order(row, direction)), direction),
        rejected=rejected,
        devices=tuple(sorted({row.device for row in trained if row.device})),
        versions={name: _versions(trained, name) for name in sorted({n for row in trained for n in row.versions})},
        claims=claims,
        full_scale=FullRuns(store).of_study(study.study),
        is_training=study.proxy.epochs > 0,
        measures=(*study.proxy.measures, *([study.proxy.transfer.learns] if study.proxy.transfer else [])),
        resampling=resampling_of(facts.row for facts in runs.values() if facts.row.state == RunState.COMPLETE),
    )


def spec_of(trial: "FrozenTrial") -> NetworkSpec:
    """The network of a trial that was opened."""
    return NetworkSpec.from_mapping(json.loads(trial.user_attrs["spec"]))


def choices_of(trial: "FrozenTrial", axes: Iterable[str]) -> dict[str, Any]:
    """What a trial chose, in the order of the axes; lists, which Optuna keeps as text, as lists again."""
    params = trial.params
    return {name: _choice(params[name]) for name in axes if name in params}


def state_of(trial: "FrozenTrial") -> tuple[str, str | None]:
    """How a trial stands, and why."""
    failures = trial.user_attrs.get("failures") or {}
    reason = next(iter(failures.values()), None)
    match trial.state.name:
        case "COMPLETE":
            over = [name for name, violation in trial.constraints.items() if violation > 0]
            return ("over budget", f"over the budget of {', '.join(over)}") if over else ("complete", reason)
        case "PRUNED" if "rejected" in trial.user_attrs:
            return "rejected", trial.user_attrs["rejected"]
        case "PRUNED" if "diverged" in trial.constraints:
            return "failed", reason or "diverged"
        case "PRUNED":
            steps = trial.intermediate_values
            return "pruned", reason or (f"behind the others after epoch {max(steps)}" if steps else None)
        case "FAIL":
            return "failed", reason
    return trial.state.name.lower(), None


def rejections(trials: Iterable["FrozenTrial"]) -> Counter[str]:
    """Proposals that a sampler made in vain, by reason."""
    return Counter(trial.user_attrs["rejected"] for trial in trials if "rejected" in trial.user_attrs)


def _row(group: Sequence["FrozenTrial"], runs: Sequence[RunFacts], study: Study, metric: str) -> Row:
    """The configuration that these trials share."""
    spec = spec_of(group[0])
    states = [state_of(trial) for trial in group]
    state, reason = next((each for each in states if each[0] == "complete"), states[-1])
    by_seed = {facts.row.run.seed: value for facts in runs if (value := facts.value(metric)) is not None}
    values = tuple(by_seed[seed] for seed in sorted(by_seed))
    done = [facts for facts in runs if facts.row.state == RunState.COMPLETE]
    latencies = [facts.measures[LATENCY] for facts in done if LATENCY in facts.measures]
    cost = network_cost(spec, study.proxy.resolution)
    return Row(
        trials=tuple(trial.number for trial in group),
        params=choices_of(group[0], study.axes),
        spec=spec,
        state=state,
        reason=reason,
        values=values,
        seeds=tuple(sorted(by_seed)),
        mean=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        runs=tuple(runs),
        params_count=cost.params,
        macs=cost.macs,
        latency_ms=statistics.median(latencies) if latencies else None,
        wall_s=statistics.fmean(facts.row.wall_s for facts in done) if done else None,
    )


def _with_limits(rows: Sequence[Row], metric: str) -> list[Row]:
    """The rows with the limits that they are at."""
    done = [[each.values for each in row.runs if each.value(metric) is not None] for row in rows]
    tests = max(1, sum(map(bool, done)))
    return [
        replace(
            row,
            limit=limit_of_runs((metric,), runs, tests=tests),
            val_images=_fewest_images(runs) if metric == "top1" else None,
        )
        for row, runs in zip(rows, done, strict=True)
    ]


def _fewest_images(runs: Sequence[RunValues]) -> int | None:
    known = [images for each in runs if (images := images_of(each.run, each.measures)) is not None]
    return min(known, default=None)


def _choice(stored: Any) -> Any:
    return json.loads(stored) if isinstance(stored, str) and stored.startswith("[") else stored


def _rank(row: Row, direction: str) -> float:
    """By the mean, best first."""
    if row.mean is None or not math.isfinite(row.mean):
        return math.inf
    return -row.mean if direction == "maximize" else row.mean


def _order(row: Row, direction: str) -> tuple[bool, float, int, int]:
    """Complete rows first, by their mean and, where that is equal, by their MACs; the others by trial."""
    if row.state in ("complete", "over budget"):
        return False, _rank(row, direction), row.macs, row.trials[0]
    return True, 0.0, 0, row.trials[0]


def _with_front(rows: Sequence[Row], direction: str) -> tuple[Row, ...]:
    """The rows, those on the Pareto front marked."""
    sign = 1 if direction == "maximize" else -1
    ranked = [row for row in rows if row.state == "complete" and row.mean is not None]
    limits = {row.limit for row in ranked}
    if len(limits) == 1 and None not in limits:
        return tuple(rows)
    complete = [row for row in ranked if row.limit != Limit.CHANCE]
    front: set[tuple[int, ...]] = set()
    best = -math.inf
    for _, same_macs in groupby(sorted(complete, key=lambda row: row.macs), key=lambda row: row.macs):
        gains = {row.trials: sign * row.mean for row in same_macs if row.mean is not None}
        top = max(gains.values())
        if top > best:
            best = top
            front |= {trials for trials, gain in gains.items() if gain == top}
    return tuple(replace(row, is_on_front=row.trials in front) for row in rows)


def _versions(rows: Iterable[RunRow], name: str) -> tuple[str, ...]:
    return tuple(sorted({row.versions[name] for row in rows if name in row.versions}))
