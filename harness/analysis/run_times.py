"""How long runs take: from stored runs of the study's recipes, or by a rough rule from MACs and images."""

from collections.abc import Iterator
from statistics import fmean

from harness.analysis.formatting import plural
from harness.config.measures import MEASURES, PASSES
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import Candidate, Space
from harness.config.study import Study
from harness.data.resampling import final_val_size
from harness.data.shapes.dataset import TRAIN_SIZE, val_sizes
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec
from harness.storage import Store
from harness.system.machine import has_gpu
from harness.training.environment import Environment
from harness.training.run import RunState

MACS_PER_S_PER_THREAD = 3e10
"""Rough estimate for recipes without timed runs: multiply-accumulates per second of a CPU thread, without `PIXEL_S`.

With `PIXEL_S`, the runs of the five networks of `kernel_size.yaml` are estimated at 1.1 to 1.5 times the 38 to 53 s
that they took on one thread of an AMD EPYC with AVX-512 (n = 3 to 6 each), and a training step of RepLKNet-31B at 224
pixels at 0.8 times (two threads, AVX2).
"""
PIXEL_S = 2e-7
"""Time of a CPU for each pixel of an image that passes a network, whatever its MACs (memory traffic)."""
MACS_PER_S_PER_GPU = 1e12
"""Rough estimate for a GPU, a guess: nothing has been timed on one."""
LATENCY_IMAGES = 35
"""Forward passes of the measure `latency`, with its warm-up."""
OVERHEAD_S = 2.0
"""Additional time of a run: building, checkpoints."""


class RunTimeEstimator:
    """Estimates the seconds of a run: from stored runs of its recipe or of the study's other ones, or by a rough rule.

    The time of a run with another recipe is scaled by `relative_work`.
    """

    def __init__(self, study: Study, store: Store | None, space: Space, environment: Environment | None) -> None:
        self._study = study
        self._store = store
        self._space = space
        self._environment = environment
        self._walls: dict[str, list[float]] = {}
        """Seconds of the complete runs of each recipe, by its fingerprint."""
        gpus = study.resources.gpus if has_gpu() else 0.0
        self._speed = gpus * MACS_PER_S_PER_GPU if gpus else study.resources.cpus * MACS_PER_S_PER_THREAD
        self._pixel_s = 0.0 if gpus else PIXEL_S
        self._device = f"{gpus:g} GPU" if gpus else plural(study.resources.cpus, "thread")
        timed = list(self._timed_runs()) if store is not None and space.has_recipe_axes else []
        self._by_network: dict[str, list[float]] = {}
        """Seconds for each unit of `relative_work`, of the study's own runs, by the network's fingerprint."""
        for network, seconds in timed:
            self._by_network.setdefault(network, []).append(seconds)
        self.seconds_per_work = [seconds for _, seconds in timed] or self._walls_of(study.proxy)
        """Seconds of runs for each unit of `relative_work`."""

    @property
    def basis(self) -> str:
        """What the estimates so far are based on, as text."""
        runs = max(len(self.seconds_per_work), sum(map(len, self._walls.values())))
        if runs and self._space.has_recipe_axes:
            return f"the wall times of {plural(runs, 'stored run')}; other recipes by their epochs, images and pixels"
        if runs:
            return f"the wall times of {runs} stored runs of this recipe"
        if images_per_run(self._study.proxy) is None:
            return "nothing: no run of this recipe has been timed, and the number of images is not known yet"
        rule = "3 x MACs x training images" if self._study.proxy.epochs else "MACs x images that are measured"
        return (
            f"a rough rule, since no run was timed: {rule}, at {self._speed / 1e9:g} GMAC/s on {self._device}, "
            f"{1e6 * self._pixel_s:g} µs more for each pixel of each image, and {OVERHEAD_S:g} s more per run"
        )

    def of(self, candidate: Candidate) -> float | None:
        """Estimated seconds for one run of a configuration."""
        spec, recipe = candidate.trained
        walls = self._walls_of(recipe)
        own = self._walls_of_network(spec, recipe) if walls else []
        of_network = self._by_network.get(spec.fingerprint(), [])
        if own or (walls and not of_network):
            return fmean(own or walls)
        if seconds := of_network or self.seconds_per_work:
            return fmean(seconds) * self.work_of(recipe)
        images = images_per_run(recipe)
        if images is None:
            return None
        macs, pixels = network_cost(spec, recipe.resolution).macs, recipe.resolution**2
        return rough_seconds(macs, pixels, images, self._speed, self._pixel_s)

    def work_of(self, recipe: ProxyRecipe) -> float:
        """What a run computes with this recipe, relative to the study's proxy."""
        return relative_work(recipe, self._study.proxy, self._space.train_images)

    def _walls_of(self, recipe: ProxyRecipe) -> list[float]:
        if self._store is None:
            return []
        key = recipe.fingerprint()
        if key not in self._walls:
            walls = self._store.wall_times(recipe, data=self._space.data, environment=self._environment)
            self._walls[key] = walls
        return self._walls[key]

    def _walls_of_network(self, spec: NetworkSpec, recipe: ProxyRecipe) -> list[float]:
        assert self._store is not None
        return self._store.wall_times(recipe, spec, data=self._space.data, environment=self._environment)

    def _timed_runs(self) -> Iterator[tuple[str, float]]:
        """The network, and the seconds for each unit of work, of every complete run of the study."""
        assert self._store is not None
        ids = {run_id for ids in self._store.trial_runs(self._study.study).values() for run_id in ids}
        for row in self._store.runs(ids).values():
            is_own = self._environment is None or row.is_of(self._environment)
            if row.state == RunState.COMPLETE and is_own:
                yield row.run.spec.fingerprint(), row.wall_s / self.work_of(row.run.recipe)


def rough_seconds(
    macs: float, pixels: int, images: float, speed: float = MACS_PER_S_PER_THREAD, pixel_s: float = PIXEL_S
) -> float:
    """Estimated seconds of a run of this number of images (`images_per_run`), each of these MACs and pixels."""
    return images * (macs / speed + pixels * pixel_s) + OVERHEAD_S


def relative_work(recipe: ProxyRecipe, proxy: ProxyRecipe, train_images: int | None = None) -> float:
    """What a run of one network computes with a recipe, relative to the proxy: its images, each by its pixels.

    `train_images` is the number of images of the data set; where that of validation images is not known, those of
    training are compared alone.
    """
    area = (recipe.resolution / proxy.resolution) ** 2
    images = [images_per_run(each) for each in (recipe, proxy)]
    if images[0] is None or images[1] is None:
        images = [max(1, each.epochs) * float(each.train_size or train_images or 1) for each in (recipe, proxy)]
    assert images[0] is not None and images[1] is not None
    return area * images[0] / images[1]


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
