"""The plan of a study: the configurations it would train, their cost and time, and the runs already in the store."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from harness.analysis.claims import evaluate_claims
from harness.analysis.formatting import plural
from harness.analysis.reuse import ReuseRule
from harness.analysis.run_times import RunTimeEstimator
from harness.analysis.study_budget import BudgetStatus, Spending, budget_status
from harness.config.axes import Value
from harness.config.census import SpaceCensus, take_census
from harness.config.claim_arms import arm_choices
from harness.config.space import Candidate, Space, axis_value
from harness.config.study import Study, screening_epochs
from harness.config.study_growth import StudyChanges, seeds_of
from harness.storage import Store
from harness.storage.transitions import SETTLED
from harness.training.run import Run

MAX_SAMPLED = 200
"""Maximum number of configurations of a sampler that are shown."""


@dataclass(frozen=True, slots=True)
class PlannedConfiguration:
    """One configuration of a plan and its seeds."""

    candidate: Candidate
    seeds: tuple[int, ...]
    stored_seeds: tuple[int, ...]
    """Seeds with a run that is already in the store."""
    run_s: float | None
    """Estimated seconds of one run."""
    derived: Mapping[str, Value] = field(default_factory=dict)
    """Its values on the derived axes."""


@dataclass(frozen=True, slots=True)
class TrialsDone:
    """The finished trials of a study with a sampler."""

    trials: int = 0
    seeds: Mapping[str, int] = field(default_factory=dict)
    """Number of seeds of each configuration, by its fingerprint."""


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """The configurations and runs that a study would train, with the estimated time."""

    study: str
    axes: tuple[str, ...]
    rows: tuple[PlannedConfiguration, ...]
    is_sample: bool
    """Whether the rows are only examples of what the sampler may choose."""
    rejected: Mapping[str, int]
    """Number of configurations left out, by the first rule or budget that they violate."""
    basis: str
    """Basis of the estimated time, as text."""
    workers: int
    is_training: bool = True
    """Whether the runs are trained, and not only built and measured."""
    runs_for_claims: int = 0
    """Maximum number of additional runs for undecided claims."""
    claims_s: float | None = None
    """Estimated time of these runs; None if unknown."""
    runs_to_time: int = 0
    """Stored runs whose times would be measured again, because they are of another environment."""
    screening: tuple[int, int] = (0, 1)
    """Epochs of the screening run of each configuration (0 without a pruner), and epochs of a full run."""

    gives_up_seeds: bool = False
    """Whether the pruner may give up the further seeds of a configuration."""

    configurations: int | None = None
    """Maximum number of configurations that would be trained, if the rows are a sample of them."""
    repeats: int = 0
    """Number of trials that can only repeat a network, each for one further seed of it."""
    trials_done: int = 0
    """Number of trials of a sampler that are finished."""
    runs_of_trials: int = 0
    """Number of further runs of finished trials: missing seeds, and stored runs that are trained again."""
    mean_run_s: float | None = None
    """Estimated seconds of a run, over the rows of a sampler, or over what it has tried if there are none."""
    notes: tuple[str, ...] = ()
    """Notes on the changes of the study file, and on the number of feasible networks."""
    budget: BudgetStatus | None = None
    """The study's budget and what is used of it; None without one."""
    budget_runs: int | None = None
    """Number of further runs that the budget allows, at the estimated time of a run; None if it does not limit them."""

    @property
    def runs(self) -> int:
        """Number of runs of the study, including stored ones."""
        rows = sum(len(planned.seeds) for planned in self.rows)
        if self.configurations is None:
            return rows
        return self.configurations * (rows // max(1, len(self.rows))) + self.repeats + self.runs_of_trials

    @property
    def runs_stored(self) -> int:
        """Number of runs that are already in the store."""
        return sum(len(planned.stored_seeds) for planned in self.rows)

    @property
    def runs_left(self) -> int:
        """Number of runs that would be trained."""
        return self.runs - self.runs_stored

    @property
    def total_s(self) -> float | None:
        """Estimated time from start to end; None if the number of images is unknown."""
        share = self.screening[0] / max(1, self.screening[1])
        if self.configurations is not None:
            runs = self.runs_left + share * self.configurations
            return None if self.mean_run_s is None else runs * self.mean_run_s / self.workers
        times = [(planned.run_s, len(planned.seeds) - len(planned.stored_seeds)) for planned in self.rows]
        if any(run_s is None for run_s, left in times if left):
            return None
        return sum((run_s or 0.0) * (n + (share if n else 0.0)) for run_s, n in times) / self.workers


def _planned_budget(
    study: Study, store: Store | None, rows: Sequence[PlannedConfiguration], mean_run_s: float | None
) -> dict[str, Any]:
    """The fields of a plan about the budget. A run has the mean cost of those that are left to train."""
    limits = study.search.budget
    if limits is None:
        return {}
    status = (budget_status(study, store) if store is not None else None) or BudgetStatus(limits, Spending())
    left = [planned for planned in rows for _ in range(len(planned.seeds) - len(planned.stored_seeds))]
    times = [planned.run_s for planned in left if planned.run_s is not None]
    run_s = fmean(times) if times else mean_run_s
    epochs = fmean([planned.candidate.trained[1].epochs for planned in left] or [study.proxy.epochs])
    core_s = None if run_s is None else run_s * max(1, study.resources.cpus)
    return {"budget": status, "budget_runs": status.runs_left(epochs, core_s)}


def plan_study(
    study: Study,
    space: Space,
    store: Store | None,
    *,
    workers: int,
    rule: ReuseRule | None = None,
    growth: StudyChanges | None = None,
    done: TrialsDone = TrialsDone(),
    is_fresh: bool = False,
) -> StudyPlan:
    """Plan a study; `store` is None if there is no database yet, and `rule` decides which stored runs are reused.

    For a sampler, `done` is what it has tried, the runs are those that follow, and at most `MAX_SAMPLED` example
    configurations are listed, so that any number is planned quickly. With `is_fresh`, the study starts again, and
    nothing of its budget is used.
    """
    rejected: Counter[str] = Counter()
    is_sample = study.search.sampler != "grid"
    census = take_census(space) if is_sample else None
    candidates = list(_cells(space, rejected) if census is None else _sample(study, census, done))
    seeds = tuple(range(study.search.seed, study.search.seed + study.search.seeds))
    runs = {(c.fingerprint, seed): Run(*c.trained, seed, space.data).id for c in candidates for seed in seeds}
    tried = {run_id for ids in store.trial_runs(study.study).values() for run_id in ids} if store and census else set()
    stored = store.runs({*runs.values(), *tried}).values() if store else ()
    fates = {row.id: rule.decide(row) if rule else "take" for row in stored if row.state in SETTLED}
    reusable = {run_id for run_id, fate in fates.items() if fate != "train"}
    seconds = RunTimeEstimator(study, store, space, rule.environment if rule else None)
    rows = tuple(
        PlannedConfiguration(
            candidate,
            seeds,
            tuple(seed for seed in seeds if runs[candidate.fingerprint, seed] in reusable),
            seconds.of(candidate),
            {name: axis_value(name, *candidate.trained) for name in space.derived},
        )
        for candidate in candidates
    )
    trials_left = configurations = max(0, (study.search.trials or 0) - done.trials)
    if census is not None:
        most = len(_untried(census, done)) if census.is_complete else census.size
        configurations = min(trials_left, most)
    for_claims = _for_claims(study, space, store)
    mean_run_s = _mean_run_s(rows, census, seconds) if census is not None else None
    return StudyPlan(
        study=study.study,
        axes=(*space.axes, *space.derived),
        rows=rows,
        is_sample=is_sample,
        rejected=rejected,
        basis=seconds.basis,
        workers=workers,
        is_training=study.proxy.epochs > 0,
        runs_for_claims=len(for_claims),
        claims_s=_total_s([seconds.of(arm) for arm in for_claims], workers),
        runs_to_time=sum(fate == "time" for fate in fates.values()),
        screening=(screening_epochs(study.search.pruner, study.proxy.epochs), study.proxy.epochs),
        gives_up_seeds=study.search.pruner == "wilcoxon",
        configurations=configurations if is_sample else None,
        repeats=trials_left - configurations if census is not None and not census.is_scarce else 0,
        trials_done=done.trials,
        mean_run_s=mean_run_s,
        **_planned_budget(study, None if is_fresh else store, rows, mean_run_s),
        runs_of_trials=sum(max(0, len(seeds) - n) for n in done.seeds.values())
        + sum(fates.get(run_id) == "train" for run_id in tried),
        notes=(
            *_limit_notes(study, rows),
            *_racing_notes(study),
            *([census.text()] if census is not None and not census.is_whole else []),
            *_growth_notes(study, space, store, growth),
        ),
    )


def _for_claims(study: Study, space: Space, store: Store | None) -> list[Candidate]:
    """The networks of the runs that undecided claims may ask for, at most and without stored ones; one for each run."""
    candidates = (space.candidate(arm_choices(text, space)) for claim in study.claims for text in claim.contrast)
    arms = {arm.fingerprint: arm for arm in candidates}
    first, most = seeds_of(study.search)
    later = range(study.search.seed + first, study.search.seed + most)
    runs = {Run(*arm.trained, seed, space.data).id: arm for arm in arms.values() for seed in later}
    settled = {row.id for row in store.runs(list(runs)).values() if row.state in SETTLED} if store else set()
    return [arm for run_id, arm in runs.items() if run_id not in settled]


def _total_s(run_times: Sequence[float | None], workers: int) -> float | None:
    """The time of these runs with this number of workers; None if that of a run is unknown."""
    known = [run_s for run_s in run_times if run_s is not None]
    return sum(known) / workers if len(known) == len(run_times) else None


def _cells(space: Space, rejected: Counter[str]) -> Iterator[Candidate]:
    """The feasible cells of a grid; the others are counted in `rejected`."""
    for candidate in space.grid():
        if candidate.is_feasible:
            yield candidate
        else:
            rejected[next(iter(candidate.violations))] += 1


def _sample(study: Study, census: SpaceCensus, done: TrialsDone) -> Iterator[Candidate]:
    """Networks that a sampler may choose."""
    untried = _untried(census, done)
    count = min(max(0, (study.search.trials or 0) - done.trials), MAX_SAMPLED, len(untried))
    step = len(untried) / max(1, count)
    return (untried[int(i * step)] for i in range(count))


def _mean_run_s(rows: Sequence[PlannedConfiguration], census: SpaceCensus, seconds: "RunTimeEstimator") -> float | None:
    times = [planned.run_s for planned in rows] or [seconds.of(network) for network in census.feasible[:MAX_SAMPLED]]
    run_times = [run_s for run_s in times if run_s is not None]
    return sum(run_times) / len(run_times) if run_times else None


def _untried(census: SpaceCensus, done: TrialsDone) -> list[Candidate]:
    return [candidate for candidate in census.feasible if candidate.fingerprint not in done.seeds]


def _limit_notes(study: Study, rows: Sequence[PlannedConfiguration]) -> Iterator[str]:
    """A note on configurations whose runs would be ended by the time limit, if the estimate is right."""
    limit_s = 60 * study.resources.minutes_per_run
    over = sum(planned.run_s is not None and planned.run_s > limit_s for planned in rows)
    if over:
        yield (
            f"a run of {over} of {plural(len(rows), 'configuration')} would take longer than "
            f"`resources.minutes_per_run` ({study.resources.minutes_per_run:g}) by this estimate, and be ended"
        )


def _racing_notes(study: Study) -> Iterator[str]:
    """A note on the further seeds of a race."""
    racing = study.search.racing
    if racing is not None:
        is_kept = study.search.budget is not None and study.search.sampler != "grid" and racing.share > 0
        kept = f"; {racing.share:.3g} of the budget is kept for it" if is_kept else ""
        yield (
            f"then a race gives further seeds, up to {racing.most}, to the configurations that may be the best; their "
            f"number follows from the results{kept}"
        )


def _growth_notes(study: Study, space: Space, store: Store | None, growth: StudyChanges | None) -> Iterator[str]:
    """Notes on what a study file adds to its study, and on the effect of it, or of a new study, on claims' verdicts."""
    if growth is None or store is None:
        return
    if growth.added:
        yield f"the study grows: {'; '.join(growth.added)}; what the store has is not trained again"
    elif study.study in {row.name for row in store.studies()}:
        return
    for result in evaluate_claims(study, space, store):
        name = result.claim.name
        if result.exploratory is not None:
            yield f"{name}: its verdict would be exploratory, since {result.exploratory.reason}"
        elif result.note is not None:
            yield f"{name}: {result.note}"
