"""Larger trainings of a study's networks that the database has, and whether the proxy orders them alike.

The same network is one with the same fingerprint, or for a training at full scale one that was trained with the choices
of a trial. A training is larger if it computes more: epochs times images times pixels.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.configuration_result import RunResult, read_run_results
from harness.analysis.statistics.rank_correlation import RankCorrelation, rank_correlation
from harness.analysis.trust_observations import Population, TrainedConfiguration, TrainedStudy
from harness.config.measures import TRAIN_IMAGES
from harness.config.recipes.proxy import ProxyRecipe
from harness.data.shapes.dataset import TRAIN_SIZE
from harness.storage import FullScaleRow, FullScaleRuns, Store
from harness.system.fingerprint import fingerprint
from harness.training.run import RunState

NAMED_KEYS = ("dataset", "rendering", "difficulty", "train_size", "resolution", "epochs")
"""Keys of a recipe whose values are named where they differ; other keys are only named."""

UNTRAINED_KEYS = ("root", "measures")
"""Keys that change no training."""

Values = Mapping[int, Mapping[int, float]]
"""Final values of networks by the number of their first trial and by seed; larger values are better."""


@dataclass(frozen=True, slots=True)
class LargerTrainings:
    """The trainings of several networks with one larger recipe."""

    title: str
    """How it differs from the proxy."""
    ratio: float | None
    """How much more it computes than the proxy; None where the number of images is not known."""
    seeds: tuple[int, ...]
    """The seeds that all of these networks were trained with."""
    by_population: Mapping[Population, RankCorrelation]
    """The correlation of the proxy's means with those of these trainings."""
    ceiling: RankCorrelation | None
    """The correlation of these trainings with themselves, between one seed and the others; None with one seed."""
    shares_seeds: bool
    """Whether a seed of the proxy is among theirs, with whose images both were trained."""


@dataclass(frozen=True, slots=True)
class LargerTable:
    """All larger trainings of a study's networks."""

    trainings: tuple[LargerTrainings, ...] = ()
    reason: str | None = None
    """Why none are compared."""


def larger_table(trained: TrainedStudy, store: Store, train_images: int | None) -> LargerTable:
    """The larger trainings of the study's networks, the largest last.

    `train_images` is the number of training images of the study's data set, if it is read from disk.
    """
    finished = trained.finished
    networks = {one.spec.fingerprint(): one for one in finished}
    if len(networks) < len(finished):
        return LargerTable(reason="several configurations have the same network, with recipes of their own")
    tables = [
        *_of_runs(trained, networks, store, train_images),
        *_at_full_scale(trained, networks, FullScaleRuns(store).all(), store),
    ]
    return LargerTable(tuple(sorted(tables, key=lambda table: (table.ratio is None, table.ratio or 0.0))))


def _of_runs(
    trained: TrainedStudy, networks: Mapping[str, TrainedConfiguration], store: Store, train_images: int | None
) -> Iterator[LargerTrainings]:
    """Those that are runs of studies, by recipe and data."""
    proxy = trained.study.proxy
    rows = [row for row in store.complete_runs_of(networks) if row.id == row.run.id]
    by_recipe: dict[tuple[str, str | None], list[str]] = {}
    for row in rows:
        if row.run.recipe.epochs > 0 and row.run.recipe.fingerprint() != proxy.fingerprint():
            by_recipe.setdefault((row.run.recipe.fingerprint(), row.run.data), []).append(row.id)
    runs = read_run_results(store, [run_id for ids in by_recipe.values() for run_id in ids])
    work = _work(proxy, train_images)
    for ids in by_recipe.values():
        of_recipe = [runs[run_id] for run_id in ids]
        recipe = of_recipe[0].row.run.recipe
        ratio = _ratio(_work(recipe, _train_images(of_recipe)), work)
        if ratio is None or ratio <= 1:
            continue
        values: dict[int, dict[int, float]] = {}
        for run in of_recipe:
            if (value := run.value(_metric(trained))) is not None:
                trial = networks[run.row.run.spec.fingerprint()].trials[0]
                values.setdefault(trial, {})[run.row.run.seed] = _sign(trained) * value
        yield from _compared(trained, _differences(recipe, proxy), ratio, values)


def _at_full_scale(
    trained: TrainedStudy, networks: Mapping[str, TrainedConfiguration], rows: Sequence[FullScaleRow], store: Store
) -> Iterator[LargerTrainings]:
    """Those with `harness train`, by recipe, with all seeds of it together."""
    by_trial = {trial: one for one in networks.values() for trial in one.trials}
    values: dict[str, dict[int, dict[int, float]]] = {}
    titles: dict[str, str] = {}
    for row in rows:
        is_own = row.study == trained.study.study and row.trial in by_trial
        network = networks.get(row.spec.fingerprint()) or (
            by_trial[row.trial] if is_own and row.trial is not None else None
        )
        last = FullScaleRuns(store).metrics(row.id).get(row.epochs, {})
        if network is None or row.state != RunState.COMPLETE or _metric(trained) not in last:
            continue
        base = "" if network.spec.fingerprint() == row.spec.fingerprint() else ", the same choices on a larger base"
        key = fingerprint([{name: value for name, value in row.recipe.items() if name != "seed"}, base])
        side = row.recipe.get("resolution")
        pixels = f", {side} px" if isinstance(side, int) else ""
        titles[key] = f"full scale, {row.recipe_name}: {row.epochs} epochs{pixels}{base}"
        seeds = values.setdefault(key, {}).setdefault(network.trials[0], {})
        seeds[int(row.recipe.get("seed") or 0)] = _sign(trained) * last[_metric(trained)]
    for key, of_recipe in values.items():
        yield from _compared(trained, titles[key], None, of_recipe)


def _compared(trained: TrainedStudy, title: str, ratio: float | None, values: Values) -> Iterator[LargerTrainings]:
    """The correlations of these values with the proxy's means; nothing if there are fewer than two."""
    if len(values) < 2:
        return
    by_population = {}
    for name, group in trained.populations().items():
        known = [one for one in group if one.trials[0] in values]
        if known:
            pair = [one.mean for one in known], [statistics.fmean(values[one.trials[0]].values()) for one in known]
            by_population[name] = rank_correlation(pair)
    common = set.intersection(*(set(of_network) for of_network in values.values()))
    seeds = tuple(sorted(common))
    yield LargerTrainings(
        title,
        ratio,
        seeds,
        by_population,
        _with_itself(values, seeds) if len(seeds) > 1 else None,
        shares_seeds=any(set(of_network) & set(trained.seeds) for of_network in values.values()),
    )


def _with_itself(values: Values, seeds: Sequence[int]) -> RankCorrelation:
    """One seed against the mean of the others, averaged over the seeds."""
    series = []
    for seed in seeds:
        others = [[by_seed[other] for other in seeds if other != seed] for by_seed in values.values()]
        series.append(([by_seed[seed] for by_seed in values.values()], [statistics.fmean(row) for row in others]))
    return rank_correlation(*series)


def _metric(trained: TrainedStudy) -> str:
    return trained.study.curve_objective


def _sign(trained: TrainedStudy) -> float:
    return 1.0 if trained.study.objectives[_metric(trained)] == "maximize" else -1.0


def _train_images(runs: Sequence[RunResult]) -> int | None:
    """The number of training images that a run recorded, of a data set that is read from disk."""
    counts = [run.measures[TRAIN_IMAGES] for run in runs if TRAIN_IMAGES in run.measures]
    return round(counts[0]) if counts else None


def _work(recipe: ProxyRecipe, train_images: int | None) -> float | None:
    """Epochs times images times pixels, for one network; None where the number of images is not known."""
    images = recipe.train_size or (TRAIN_SIZE if recipe.dataset == "shapes" else train_images)
    return None if images is None else float(recipe.epochs) * images * recipe.resolution**2


def _ratio(larger: float | None, proxy: float | None) -> float | None:
    return None if larger is None or not proxy else larger / proxy


def _differences(recipe: ProxyRecipe, proxy: ProxyRecipe) -> str:
    """The keys in which a recipe differs from the proxy, such as `epochs 40 instead of 4; also optimizer`."""
    ours, theirs = proxy.model_dump(mode="json"), recipe.model_dump(mode="json")
    changed = [key for key in theirs if key not in UNTRAINED_KEYS and theirs[key] != ours[key]]
    named = [f"{key} {_text(theirs[key])} instead of {_text(ours[key])}" for key in NAMED_KEYS if key in changed]
    others = [key for key in changed if key not in NAMED_KEYS]
    parts = [", ".join(named)] if named else []
    return "; ".join([*parts, f"also {', '.join(others)}"] if others else parts) or "other data"


def _text(value: Any) -> str:
    return "all" if value is None else str(value)
