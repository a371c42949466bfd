"""The configurations of a search as observations: choices, when and how each was chosen, and its value.

The value of a configuration is the mean of the seeds that every configuration gets, so that no result decides how many
it is the mean of; where a pruner has left none of these, of those that it has. A grid that ended by its budget may have
given some configurations fewer seeds (`search.budget`): then those that all were given count.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.analysis.configuration_result import RunResult, of_one_environment, read_run_results, trial_choices
from harness.analysis.effect_cells import SpaceCells
from harness.analysis.formatting import format_value
from harness.analysis.limits import Limit, configuration_limit
from harness.analysis.objective import formula_value
from harness.analysis.proposal_origin import is_space_filling, is_whole_grid
from harness.analysis.reuse import study_environment, time_reference
from harness.analysis.run_status import OPEN, configuration_status, trial_status, trials_by_configuration
from harness.config.axes import Axis, Value
from harness.config.effects import level_index, varied_axes
from harness.config.formula import Formula
from harness.config.space import Space
from harness.config.study import Study
from harness.storage import Store
from harness.storage.rows import STUDY_GROWN
from harness.training.run import RunState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MOST_NAMED = 50
"""Number of values up to which the levels of an axis are checked for lost configurations."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration of a search."""

    params: Mapping[str, Value]
    trial: int
    """Number of its first trial."""
    draws: tuple[int, ...]
    """Numbers of the trials that drew it uniformly."""
    chosen: float
    """Number of the trial by which the sampler chose it first; infinite if it never did."""
    weight: float
    """1; of a whole grid, a multiple of its probability in a uniform draw."""
    value: float | None
    """The metric, as the mean over seeds."""
    state: str
    """As in `analysis.run_status`."""
    limit: Limit | None = None
    """The limit that it is at, if any."""

    @property
    def is_open(self) -> bool:
        """Whether it is not finished."""
        return self.state in OPEN

    @property
    def is_lost(self) -> bool:
        """Whether it ended without a value."""
        return self.value is None and not self.is_open


def read_configurations(
    study: Study, space: Space, store: Store, trials: Sequence["FrozenTrial"], formula: Formula
) -> list[Configuration]:
    """All configurations of a study, in the order of their first trials."""
    links = store.trial_runs(study.study)
    runs = read_run_results(store, {run_id for ids in links.values() for run_id in ids})
    reference = time_reference([run.row for run in runs.values()], study_environment(study))
    weights = _grid_weights(study, space, trials)
    drawn = drawn_trials(study, space, store, trials)
    seeds = _seeds_of_all(study, trials)
    configurations, done = [], []
    for name, group in trials_by_configuration(trials).items():
        uniform = {trial.number: trial.number in drawn for trial in group}
        uniform |= {group[0].number: True} if name in weights else {}
        screening = {trial.user_attrs.get("screening") for trial in group}
        ids = dict.fromkeys(run_id for trial in group for run_id in links.get(trial.number, ()) if run_id in runs)
        of_all = [of_one_environment(runs[run_id], reference) for run_id in ids]
        of_group = [run for run in of_all if run.row.run.seed not in screening]
        done.append([run.values for run in of_group if run.row.state == RunState.COMPLETE])
        configurations.append(
            Configuration(
                params=_params(group[0], study, space),
                trial=group[0].number,
                draws=tuple(number for number, is_drawn in uniform.items() if is_drawn),
                chosen=min((number for number, is_drawn in uniform.items() if not is_drawn), default=math.inf),
                weight=weights.get(name, 1.0),
                value=_value(of_group, seeds, formula),
                state=configuration_status([trial_status(trial) for trial in group]).state,
            )
        )
    tests = max(1, sum(map(bool, done)))
    limits = [configuration_limit(formula.names, values, tests=tests) for values in done]
    return [replace(one, limit=limit) for one, limit in zip(configurations, limits, strict=True)]


def drawn_trials(study: Study, space: Space, store: Store, trials: Sequence["FrozenTrial"]) -> frozenset[int]:
    """The numbers of the trials that are uniform draws from this space; cells of a whole grid are not among them."""
    has_grown = any(event.kind == STUDY_GROWN and "axes." in event.message for event in store.events(study.study))
    fingerprint = space.fingerprint()
    return frozenset(
        trial.number for trial in trials if is_space_filling(trial, study, fingerprint, has_grown=has_grown)
    )


def shared_seeds(study: Study) -> range:
    """The seeds that every configuration gets."""
    return range(study.search.seed, study.search.seed + study.search.seeds)


def lost_levels(space: Space, drawn: Sequence[Configuration]) -> Iterator[str]:
    """The levels of which at least half of the uniformly drawn configurations are lost, and more than one."""
    for name, axis in varied_axes(space).items():
        for i in range(len(axis) if len(axis) <= MOST_NAMED else 0):
            members = [one for one in drawn if name in one.params and level_index(axis, one.params[name]) == i]
            ended = [one for one in members if not one.is_open]
            lost = sum(one.is_lost for one in ended)
            if lost > 1 and 2 * lost >= len(ended):
                yield f"{lost} of {len(ended)} with {name}={format_value(axis.at(i))}"


def _grid_weights(study: Study, space: Space, trials: Sequence["FrozenTrial"]) -> dict[str, float]:
    """The probability of each cell of a whole grid in a uniform draw, the smallest being 1; empty for other studies."""
    if not is_whole_grid(study, space, trials):
        return {}
    cells = SpaceCells(space)
    probabilities = {cell.fingerprint: cells.probability(cell.params) for cell in space.grid() if cell.is_feasible}
    least = min(probabilities.values(), default=1.0)
    return {name: probability / least for name, probability in probabilities.items()}


def _params(trial: "FrozenTrial", study: Study, space: Space) -> dict[str, Value]:
    choices: dict[str, Value] = trial_choices(trial, study.axes)

    def choose(name: str, _: Axis) -> Value:
        return choices[name]

    return space.sample_params(choose)


def _seeds_of_all(study: Study, trials: Sequence["FrozenTrial"]) -> list[int]:
    """The seeds that every configuration gets, without those that a grid's budget left to some of them alone."""
    given = [
        {seed for trial in group for seed in trial.user_attrs.get("seeds", ())}
        for group in trials_by_configuration(trials).values()
    ]
    shared = set(shared_seeds(study))
    return sorted(shared.intersection(*given) or shared)


def _value(runs: Sequence[RunResult], seeds: Sequence[int], formula: Formula) -> float | None:
    by_seed = {
        run.row.run.seed: value
        for run in runs
        if run.row.state == RunState.COMPLETE
        and (value := formula_value(formula, run.row.run, run.curve, run.measures)) is not None
    }
    shared = [by_seed[seed] for seed in seeds if seed in by_seed]
    values = shared or list(by_seed.values())
    return statistics.fmean(values) if values else None
