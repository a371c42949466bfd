"""What a study would train, and for how long: its configurations, their cost, and the runs that the store has."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.cost import network_cost
from harness.data.shapes import FINAL, TRAIN_SIZE, val_sizes
from harness.machine import has_gpu
from harness.recipe import Recipe
from harness.run import Run
from harness.search.proposals import PROPOSALS_PER_TRIAL
from harness.space import Candidate, Space, random_chooser
from harness.spec import NetworkSpec
from harness.store import Store
from harness.store.records import SETTLED
from harness.study import Study
from harness.study.arms import arm_choices

MACS_PER_S_PER_THREAD = 7e9
"""The rough rule for recipes that nobody has timed: multiply-accumulates that a CPU thread does in a second.

The five networks of `kernel_size.yaml` do 5.9 to 11.5 billion on one thread of an AMD EPYC with AVX2 (n = 3 runs each).
"""
MACS_PER_S_PER_GPU = 1e12
"""A guess: nothing has been timed on a GPU."""
MEASURED_CALLS = 5
"""Of a measure of time: two that warm up, and three or more."""
OVERHEAD_S = 2.0
"""What a run costs besides: building, checkpoints."""
PASSES = 3
"""A training step costs the forward pass three times over, the backward pass being twice as dear."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One configuration and its runs."""

    candidate: Candidate
    seeds: tuple[int, ...]
    known: tuple[int, ...]
    """The seeds whose run is in the store already."""
    run_s: float | None
    """Estimated seconds of one run."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be trained."""

    study: str
    axes: tuple[str, ...]
    rows: tuple[Planned, ...]
    is_sample: bool
    """Whether the rows are only like those that the sampler will choose."""
    rejected: Mapping[str, int]
    """Configurations left out, by the first rule or budget that they break."""
    basis: str
    """What the estimated time rests on."""
    workers: int
    is_training: bool = True
    """Whether the runs are trained, and not only built and measured."""
    runs_for_claims: int = 0
    """Runs that undecided claims may ask for besides, at most."""

    @property
    def runs_left(self) -> int:
        """Runs that would be trained."""
        return sum(len(row.seeds) - len(row.known) for row in self.rows)

    @property
    def total_s(self) -> float | None:
        """Estimated time from start to end; None where nothing is known of the data."""
        times = [(row.run_s, len(row.seeds) - len(row.known)) for row in self.rows]
        if any(run_s is None for run_s, left in times if left):
            return None
        return sum((run_s or 0.0) * left for run_s, left in times) / self.workers


def plan(study: Study, space: Space, store: Store | None, *, workers: int) -> Plan:
    """The plan of a study; `store` is None where there is no database yet."""
    rejected: Counter[str] = Counter()
    candidates = list(_candidates(study, space, rejected))
    seeds = tuple(range(study.search.seed, study.search.seed + study.search.seeds))
    runs = {(c.fingerprint, seed): Run(_spec(c), study.proxy, seed).id for c in candidates for seed in seeds}
    known = {run_id for run_id, row in store.runs(runs.values()).items() if row.state in SETTLED} if store else set()
    seconds = _Estimate(study, store)
    rows = tuple(
        Planned(
            candidate,
            seeds,
            tuple(seed for seed in seeds if runs[candidate.fingerprint, seed] in known),
            seconds.of(candidate),
        )
        for candidate in candidates
    )
    is_sample = study.search.sampler != "grid"
    axes, is_training = tuple(space.axes), study.proxy.epochs > 0
    return Plan(
        study.study, axes, rows, is_sample, rejected, seconds.basis, workers, is_training, _for_claims(study, space)
    )


def _for_claims(study: Study, space: Space) -> int:
    arms = {space.candidate(arm_choices(arm, space)).fingerprint for claim in study.claims for arm in claim.contrast}
    return len(arms) * max(0, (study.search.max_seeds or 0) - study.search.seeds)


def _candidates(study: Study, space: Space, rejected: Counter[str]) -> Iterator[Candidate]:
    """The cells of a grid, or as many different configurations as a sampler is granted; those left out are counted."""
    if study.search.sampler == "grid":
        wanted, source = space.size, space.grid()
    else:
        choose = random_chooser(study.search.seed)
        wanted = study.search.trials or 0
        source = (space.sample(choose) for _ in range(PROPOSALS_PER_TRIAL * wanted))
    seen: set[str] = set()
    feasible = (each for each in source if _is_new(each, seen, rejected))
    yield from itertools.islice(feasible, wanted)


def _is_new(candidate: Candidate, seen: set[str], rejected: Counter[str]) -> bool:
    if candidate.fingerprint in seen:
        return False
    seen.add(candidate.fingerprint)
    if not candidate.is_feasible:
        rejected[next(iter(candidate.violations))] += 1
    return candidate.is_feasible


class _Estimate:
    """Seconds of a run: as runs of the same recipe took, or by the rough rule."""

    def __init__(self, study: Study, store: Store | None) -> None:
        self._study = study
        self._store = store
        walls = store.wall_times(study.proxy) if store else []
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
            self.basis = (
                f"a rough rule, for want of a timed run: {_rule(study.proxy)}, "
                f"at {self._speed / 1e9:g} GMAC/s on one {device}, and {OVERHEAD_S:g} s per run besides"
            )

    def of(self, candidate: Candidate) -> float | None:
        """Estimated seconds for one run of a configuration."""
        spec = _spec(candidate)
        if self._store is not None and self._mean is not None:
            own = self._store.wall_times(self._study.proxy, spec)
            return sum(own) / len(own) if own else self._mean
        if self._images is None:
            return None
        return network_cost(spec, self._study.proxy.resolution).macs * self._images / self._speed + OVERHEAD_S


def images_per_run(recipe: Recipe) -> float | None:
    """Images that a run passes forward, those of training counted threefold; None where their number is not known.

    Those of a transfer too, at the cost of its backbone alone; those of measures on the merged network.
    """
    is_shapes = recipe.dataset == "shapes"
    train = recipe.train_size or (TRAIN_SIZE if is_shapes else None)
    val, final = val_sizes(recipe) if is_shapes else _val_sizes(recipe)
    measured = measured_images(recipe, final or 0)
    if recipe.epochs == 0 and recipe.transfer is None:
        return measured
    if train is None or val is None or final is None:
        return None
    transfer = 0 if recipe.transfer is None else recipe.transfer.epochs * PASSES * train + final
    last = final - val if recipe.epochs else 0
    return recipe.epochs * (PASSES * train + val) + last + transfer + measured


def _val_sizes(recipe: Recipe) -> tuple[int | None, int | None]:
    """As `shapes.val_sizes`, of a folder, which may have fewer."""
    return recipe.val_size, recipe.final_val_size or (None if recipe.val_size is None else FINAL * recipe.val_size)


def measured_images(recipe: Recipe, val: int) -> int:
    """Images that a run's measures pass forward on a CPU, a gradient counted as two more; see `harness.measures`.

    Those that a receptive field is seen on count by their pixels: they are four times as large, up to 1024 a side.
    """
    latency, in_float64, side, seen = 35, 2, recipe.resolution, min(32, val or 32)
    on_demand = {
        "erf": round(seen * (1 + 2 * 2) * (max(side, min(4 * side, 1024)) / side) ** 2),
        "merge_error": 4 * 3 * in_float64,
        "shape_bias": val,
        "throughput": 32 * MEASURED_CALLS,
        "train_step": recipe.batch_size * PASSES * (MEASURED_CALLS + 1),
    }
    return latency + sum(on_demand[name] for name in recipe.measures)


def _rule(recipe: Recipe) -> str:
    return "3 x MACs x training images" if recipe.epochs else "MACs x images that are measured"


def _spec(candidate: Candidate) -> NetworkSpec:
    assert candidate.spec is not None, "a feasible candidate is a network"
    return candidate.spec
