"""The plan of a study: the configurations it would train, their cost and time, and the runs already in the store."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.analysis.claims import evaluate_claims
from harness.analysis.reuse import ReuseRule
from harness.config.census import SpaceCensus, take_census
from harness.config.claim_arms import arm_choices
from harness.config.measures import MEASURES, PASSES
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import Candidate, Space
from harness.config.study import Study, screening_epochs
from harness.config.study_growth import StudyChanges, seeds_of
from harness.data.resampling import final_val_size
from harness.data.shapes.dataset import TRAIN_SIZE, val_sizes
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec
from harness.storage import Store
from harness.storage.transitions import SETTLED
from harness.system.machine import has_gpu
from harness.training.environment import Environment
from harness.training.run import Run

MAX_SAMPLED = 200
"""Maximum number of configurations of a sampler that are shown."""
MACS_PER_S_PER_THREAD = 7e9
"""Rough estimate for recipes without timed runs: multiply-accumulates per second of a CPU thread.

The five networks of `kernel_size.yaml` do 5.9 to 11.5 billion on one thread of an AMD EPYC with AVX2 (n = 3 runs each).
"""
MACS_PER_S_PER_GPU = 1e12
"""Rough estimate for a GPU, a guess: nothing has been timed on one."""
LATENCY_IMAGES = 35
"""Forward passes of the measure `latency`, with its warm-up."""
OVERHEAD_S = 2.0
"""Additional time of a run: building, checkpoints."""


@dataclass(frozen=True, slots=True)
class PlannedConfiguration:
    """One configuration of a plan and its seeds."""

    candidate: Candidate
    seeds: tuple[int, ...]
    stored_seeds: tuple[int, ...]
    """Seeds with a run that is already in the store."""
    run_s: float | None
    """Estimated seconds of one run."""


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


def plan_study(
    study: Study,
    space: Space,
    store: Store | None,
    *,
    workers: int,
    rule: ReuseRule | None = None,
    growth: StudyChanges | None = None,
    done: TrialsDone = TrialsDone(),
) -> StudyPlan:
    """Plan a study; `store` is None if there is no database yet, and `rule` decides which stored runs are reused.

    For a sampler, `done` is what it has tried, the runs are those that follow, and at most `MAX_SAMPLED` example
    configurations are listed, so that any number is planned quickly.
    """
    rejected: Counter[str] = Counter()
    is_sample = study.search.sampler != "grid"
    census = take_census(space) if is_sample else None
    candidates = list(_cells(space, rejected) if census is None else _sample(study, census, done))
    seeds = tuple(range(study.search.seed, study.search.seed + study.search.seeds))
    runs = {
        (c.fingerprint, seed): Run(_spec(c), study.proxy, seed, space.data).id for c in candidates for seed in seeds
    }
    tried = {run_id for ids in store.trial_runs(study.study).values() for run_id in ids} if store and census else set()
    stored = store.runs({*runs.values(), *tried}).values() if store else ()
    fates = {row.id: rule.decide(row) if rule else "take" for row in stored if row.state in SETTLED}
    reusable = {run_id for run_id, fate in fates.items() if fate != "train"}
    seconds = RunTimeEstimator(study, store, space.data, rule.environment if rule else None)
    rows = tuple(
        PlannedConfiguration(
            candidate,
            seeds,
            tuple(seed for seed in seeds if runs[candidate.fingerprint, seed] in reusable),
            seconds.of(candidate),
        )
        for candidate in candidates
    )
    trials_left = configurations = max(0, (study.search.trials or 0) - done.trials)
    if census is not None:
        most = len(_untried(census, done)) if census.is_complete else census.size
        configurations = min(trials_left, most)
    for_claims = _for_claims(study, space, store)
    return StudyPlan(
        study=study.study,
        axes=tuple(space.axes),
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
        mean_run_s=_mean_run_s(rows, census, seconds) if census is not None else None,
        runs_of_trials=sum(max(0, len(seeds) - n) for n in done.seeds.values())
        + sum(fates.get(run_id) == "train" for run_id in tried),
        notes=(
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
    runs = {Run(_spec(arm), study.proxy, seed, space.data).id: arm for arm in arms.values() for seed in later}
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


class RunTimeEstimator:
    """Estimates the seconds of a run from stored runs of the same recipe, or from the rough estimate."""

    def __init__(self, study: Study, store: Store | None, data: str | None, environment: Environment | None) -> None:
        self._study = study
        self._store = store
        self._data = data
        self._environment = environment
        walls = store.wall_times(study.proxy, data=data, environment=environment) if store else []
        self._mean = sum(walls) / len(walls) if walls else None
        self._images = images_per_run(study.proxy)
        gpus = study.resources.gpus if has_gpu() else 0.0
        self._speed = gpus * MACS_PER_S_PER_GPU if gpus else study.resources.cpus * MACS_PER_S_PER_THREAD
        device = (
            f"{gpus:g} GPU" if gpus else "thread" if study.resources.cpus == 1 else f"{study.resources.cpus} threads"
        )
        if walls:
            self.basis = f"the wall times of {len(walls)} stored runs of this recipe"
        elif self._images is None:
            self.basis = "nothing: no run of this recipe has been timed, and the number of images is not known yet"
        else:
            rule = "3 x MACs x training images" if study.proxy.epochs else "MACs x images that are measured"
            self.basis = (
                f"a rough rule, since no run was timed: {rule}, "
                f"at {self._speed / 1e9:g} GMAC/s on one {device}, and {OVERHEAD_S:g} s more per run"
            )

    def of(self, candidate: Candidate) -> float | None:
        """Estimated seconds for one run of a configuration."""
        spec = _spec(candidate)
        if self._store is not None and self._mean is not None:
            walls_s = self._store.wall_times(self._study.proxy, spec, data=self._data, environment=self._environment)
            return sum(walls_s) / len(walls_s) if walls_s else self._mean
        if self._images is None:
            return None
        return network_cost(spec, self._study.proxy.resolution).macs * self._images / self._speed + OVERHEAD_S


def images_per_run(recipe: ProxyRecipe) -> float | None:
    """Number of images that a run passes through the network; training images count three times. None if unknown.

    Includes those of a transfer, at the cost of its backbone alone, and those of measures on the merged network.
    """
    is_shapes = recipe.dataset == "shapes"
    train = recipe.train_size or (TRAIN_SIZE if is_shapes else None)
    val, final = val_sizes(recipe) if is_shapes else (recipe.val_size, final_val_size(recipe))
    measured = measured_images(recipe, final or 0)
    if recipe.epochs == 0 and recipe.transfer is None:
        return measured
    if train is None or val is None or final is None:
        return None
    transfer = 0 if recipe.transfer is None else recipe.transfer.epochs * PASSES * train + final
    last = final - val if recipe.epochs else 0
    return recipe.epochs * (PASSES * train + val) + last + transfer + measured


def measured_images(recipe: ProxyRecipe, val: int) -> int:
    """Number of images that measures pass through the network on a CPU; see `harness.config.measures`."""
    return LATENCY_IMAGES + sum(MEASURES[name].images(recipe, val) for name in recipe.measures)


def _spec(candidate: Candidate) -> NetworkSpec:
    assert candidate.spec is not None, "a feasible candidate is a network"
    return candidate.spec
