"""The configurations of a study as they were trained: learning curves, final values, and what was known before.

Values are those of the objective, with the sign that makes larger ones better, so that every rank correlation has the
same meaning: positive where the early or cheap number orders configurations as the final one does.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.analysis.configuration_result import (
    RunResult,
    of_one_environment,
    read_run_results,
    trial_choices,
    trial_recipe,
    trial_spec,
)
from harness.analysis.effect_observations import drawn_trials, shared_seeds
from harness.analysis.objective import curve_value
from harness.analysis.proposal_origin import PRUNING, SCREENING, is_whole_grid
from harness.analysis.reuse import study_environment, time_reference
from harness.analysis.run_status import OPEN, configuration_status, trial_status, trials_by_configuration
from harness.config.measures import SCORE_METRICS
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import Space
from harness.config.study import CURVES, Study
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec
from harness.storage import Store

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class Population(StrEnum):
    """Which configurations a rank correlation is of."""

    SPACE_FILLING = "space-filling"
    """Drawn uniformly from the space and trained to the end, whatever the results; or all cells of a grid."""
    SURVIVORS = "survivors"
    """All with a final value, in a study whose pruner stopped the others."""
    VISITED = "visited"
    """All with a final value, which a sampler chose by its results."""


@dataclass(frozen=True, slots=True)
class TrainedConfiguration:
    """A configuration, with all that its runs recorded."""

    trials: tuple[int, ...]
    params: Mapping[str, Any]
    spec: NetworkSpec
    recipe: ProxyRecipe
    state: str
    """As in `analysis.run_status`."""
    is_drawn: bool
    """Whether it is a uniform draw that no pruner could stop."""
    curves: Mapping[int, tuple[float, ...]]
    """The objective after each epoch of its complete runs, by seed; empty for objectives that epochs do not have."""
    values: Mapping[int, float]
    """The objective of its complete runs, by seed, of the seeds that every configuration gets."""
    screening: tuple[float, ...]
    """The objective after each epoch of its screening run."""
    scores: Mapping[str, float]
    """Its scores before training, each as the mean over its runs."""

    @property
    def mean(self) -> float:
        """The mean of its final values."""
        return statistics.fmean(self.values.values())


@dataclass(frozen=True, slots=True)
class TrainedStudy:
    """The configurations of a study, and the seeds that each of them gets."""

    study: Study
    configurations: tuple[TrainedConfiguration, ...]
    seeds: tuple[int, ...]

    @property
    def finished(self) -> tuple[TrainedConfiguration, ...]:
        """The configurations that have a final value with every seed."""
        return tuple(one for one in self.configurations if one.values.keys() >= set(self.seeds))

    def populations(self) -> dict[Population, tuple[TrainedConfiguration, ...]]:
        """The finished configurations: those that were drawn uniformly, and all where that is another set."""
        finished = self.finished
        drawn = tuple(one for one in finished if one.is_drawn)
        chosen = Population.VISITED if self.study.search.pruner == "none" else Population.SURVIVORS
        groups = {Population.SPACE_FILLING: drawn, chosen: finished if len(finished) > len(drawn) else ()}
        return {name: group for name, group in groups.items() if group}

    def lost(self) -> dict[str, int]:
        """The numbers of uniform draws that ended without a final value, by state."""
        lost: dict[str, int] = {}
        known = {one.trials for one in self.finished}
        for one in self.configurations:
            if one.is_drawn and one.trials not in known and one.state not in OPEN:
                lost[one.state] = lost.get(one.state, 0) + 1
        return lost


def read_trained_study(study: Study, space: Space, store: Store, trials: Sequence["FrozenTrial"]) -> TrainedStudy:
    """All configurations of a study, in the order of their first trials."""
    links = store.trial_runs(study.study)
    runs = read_run_results(store, {run_id for ids in links.values() for run_id in ids})
    reference = time_reference([run.row for run in runs.values()], study_environment(study))
    drawn = drawn_trials(study, space, store, trials)
    is_whole = is_whole_grid(study, space, trials)
    configurations = []
    for group in trials_by_configuration(trials).values():
        ids = dict.fromkeys(run_id for trial in group for run_id in links.get(trial.number, ()) if run_id in runs)
        of_group = [of_one_environment(runs[run_id], reference) for run_id in ids]
        is_unselected_cell = is_whole and not any(set(PRUNING) & trial.user_attrs.keys() for trial in group)
        is_drawn = is_unselected_cell or any(trial.number in drawn for trial in group)
        configurations.append(_configuration(study, group, of_group, is_drawn=is_drawn))
    return TrainedStudy(study, tuple(configurations), tuple(shared_seeds(study)))


def _configuration(
    study: Study, group: Sequence["FrozenTrial"], runs: Sequence[RunResult], *, is_drawn: bool
) -> TrainedConfiguration:
    """The configuration of these trials."""
    metric = study.curve_objective
    sign = 1.0 if study.objectives[metric] == "maximize" else -1.0
    spec, recipe = trial_spec(group[0]), trial_recipe(group[0], study)
    screening_seeds = {trial.user_attrs[SCREENING] for trial in group if SCREENING in trial.user_attrs}
    shared = shared_seeds(study)
    full = {run.row.run.seed: run for run in runs if run.row.run.seed in shared}
    values = {seed: sign * value for seed, run in full.items() if (value := run.value(metric)) is not None}
    screening = [run for run in runs if run.row.run.seed in screening_seeds]
    return TrainedConfiguration(
        trials=tuple(trial.number for trial in group),
        params=trial_choices(group[0], study.axes),
        spec=spec,
        recipe=recipe,
        state=configuration_status([trial_status(trial) for trial in group]).state,
        is_drawn=is_drawn,
        curves={seed: _curve(full[seed], metric, sign) for seed in values if metric in CURVES},
        values=values,
        screening=_curve(screening[0], metric, sign) if screening and metric in CURVES else (),
        scores=dict(_scores(spec, recipe, [*(full[seed] for seed in sorted(full)), *screening])),
    )


def _curve(run: RunResult, metric: str, sign: float) -> tuple[float, ...]:
    values = [curve_value(metric, epoch) for epoch in run.curve]
    return tuple(sign * value for value in values if value is not None)


def _scores(spec: NetworkSpec, recipe: ProxyRecipe, runs: Sequence[RunResult]) -> Iterator[tuple[str, float]]:
    """The scores, of the seeds that are in its mean; of a configuration that was stopped, of its screening run."""
    yield "macs", float(network_cost(spec, recipe.resolution).macs)
    for name in SCORE_METRICS:
        values = [run.measures[name] for run in runs if name in run.measures]
        if values:
            yield name, statistics.fmean(values)
