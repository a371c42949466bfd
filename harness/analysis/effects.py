"""What each choice of a search is worth: the effects of its axes and pairs on a metric, from the stored runs.

An effect is a difference with all else equal, averaged over the networks within rules and budgets (`effect_cells`), and
its interval takes into account that a sampler visits good regions more often: it rests on the space-filling trials
(`proposal_origin`), and on the others by way of a model (`statistics.effects`). A configuration without a value is
missing because of its outcome: it is counted with its level.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.analysis.effect_cells import SpaceCells
from harness.analysis.effect_estimators import CostEstimator, EffectEstimator, EffectResult, RunEstimator, effect_result
from harness.analysis.effect_observations import Configuration, lost_levels, read_configurations, shared_seeds
from harness.analysis.effect_terms import effect_terms
from harness.analysis.importances import Importances, importances
from harness.analysis.limits import AT, Limit, common_limit
from harness.analysis.objective import COST_OBJECTIVES
from harness.analysis.proposal_origin import earlier_draws, has_uniform_draws
from harness.analysis.statistics.effects import LEAST_IN_CELL
from harness.config.effects import varied_axes
from harness.config.formula import Formula
from harness.config.measures import is_among, metrics_of
from harness.config.space import Space
from harness.config.study import Study
from harness.config.study_file import StudyFile
from harness.errors import StudyError, UserError, did_you_mean
from harness.storage import Store

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LEAST_DRAWS = 8
"""Smallest number of space-filling configurations with a value for effects."""
MOST_DRAWS = 2_000
"""Number of draws that effects are estimated from; later ones are for the model alone."""


@dataclass(frozen=True, slots=True)
class EffectsResult:
    """The effects of a study on one metric."""

    study: str
    metric: str
    sampler: str
    effects: tuple[EffectResult, ...]
    importances: Importances | None
    configurations: int
    """Number of configurations with a value."""
    draws: int
    """Number of space-filling configurations with a value."""
    lost: Mapping[str, int]
    """Number of space-filling configurations that ended without a value, by state."""
    open: int
    """Number of those that are not finished."""
    diverged: int
    """Number of space-filling configurations with a value and a seed that diverged."""
    at_limit: Mapping[str, int]
    """Number of space-filling configurations with a value that are at chance or at the ceiling, by the limit."""
    lost_levels: tuple[str, ...]
    """Levels of which at least half of the space-filling configurations are lost, with their numbers."""
    explained: float | None
    """Share of the variance of the space-filling values that the model predicts; None for costs."""
    sample: int
    """Number of configurations that the averages are taken over."""
    is_whole: bool
    """Whether these are all of the space."""
    seeds: tuple[int, ...]
    """The seeds that a configuration's value is the mean of."""
    earlier: int
    """Number of draws from an earlier, smaller form of the space, which only the model uses."""


def study_effects(
    file: StudyFile, space: Space, store: Store, trials: Sequence["FrozenTrial"], metric: str | None = None
) -> EffectsResult:
    """The effects of a study's axes on a metric or a formula of metrics, by default its objective.

    Raises `UserError` for a study with no choice, for a metric that its runs do not have, for one whose trials are no
    sample of its space, or too few, and for one whose configurations are all at chance, or all at the ceiling.
    """
    study = file.study
    formula = _formula(metric or next(iter(study.objectives)), study)
    if not varied_axes(space):
        rule = "a study must have an axis with at least two values for effects"
        raise UserError(rule, value=dict(study.axes), place=file.place(("axes",)), remedy="Add values.")
    configurations = list(_with_first_draws(read_configurations(study, space, store, trials, formula)))
    drawn = [one for one in configurations if one.draws]
    is_cost = formula.names <= set(COST_OBJECTIVES)
    if not is_cost:
        _require_draws(file, configurations, drawn)
        _require_differences(configurations, study)
    terms = effect_terms(space, study.effects)
    cells = SpaceCells(space)
    cells.sample([contrast for term in terms for _, contrast in term.parts])
    if is_cost:
        estimator: EffectEstimator = CostEstimator(cells, formula)
    else:
        estimator = RunEstimator(cells, configurations, is_whole=study.search.sampler == "grid")
    lost = [one for one in drawn if one.value is None]
    return EffectsResult(
        study=study.study,
        metric=formula.text,
        sampler=study.search.sampler,
        effects=tuple(effect_result(term, estimator) for term in terms),
        importances=importances(study, trials, _values(configurations), formula.text),
        configurations=len(_values(configurations)),
        draws=len(drawn) - len(lost),
        lost=Counter(one.state for one in lost if one.is_lost),
        open=sum(one.is_open for one in lost),
        diverged=sum(one.value is not None and one.state == "diverged" for one in drawn),
        at_limit={} if is_cost else Counter(AT[one.limit] for one in drawn if one.limit and one.value is not None),
        lost_levels=tuple(lost_levels(space, drawn)),
        explained=estimator.explained,
        sample=cells.size,
        is_whole=cells.is_whole,
        seeds=tuple(shared_seeds(study)),
        earlier=earlier_draws(trials, space.fingerprint()),
    )


def _with_first_draws(configurations: Sequence[Configuration]) -> Iterator[Configuration]:
    """The configurations with the first `MOST_DRAWS` draws alone, for each of which counterparts are built."""
    draws = sorted(number for one in configurations for number in one.draws)
    last = draws[MOST_DRAWS - 1] if len(draws) > MOST_DRAWS else math.inf
    for one in configurations:
        kept = tuple(number for number in one.draws if number <= last)
        later = (float(number) for number in one.draws if number > last)
        yield replace(one, draws=kept, chosen=min((one.chosen, *later)))


def effects_of_ended(
    file: StudyFile, space: Space, store: Store, trials: Sequence["FrozenTrial"]
) -> EffectsResult | None:
    """The effects on the objective for the answer of a study; None where it has none, or too few trials."""
    if not has_uniform_draws(file.study) or not varied_axes(space):
        return None
    try:
        return study_effects(file, space, store, trials)
    except UserError:  # `harness effects` states the reason
        return None


def _formula(text: str, study: Study) -> Formula:
    """The formula. Raises `UserError` for one that the study's runs do not have."""
    try:
        formula = Formula(text)
        formula.require_value()
    except StudyError as error:
        raise UserError(f"`--metric` {error.rule}", value=error.value, remedy=error.remedy) from error
    names = metrics_of(study.proxy)
    unknown = next((name for name in sorted(formula.names) if not is_among(name, names)), None)
    if unknown is not None:
        rule = "`--metric` must be a metric that runs of this study yield, or a formula of them"
        raise UserError(rule, value=unknown, remedy=did_you_mean(unknown, names, "Metrics"))
    return formula


def _values(configurations: Sequence[Configuration]) -> dict[int, float]:
    """Values by the number of a configuration's first trial."""
    return {one.trial: one.value for one in configurations if one.value is not None}


def _require_differences(configurations: Sequence[Configuration], study: Study) -> None:
    """Raise `UserError` if all configurations are at one limit."""
    limit = common_limit(one.limit for one in configurations if one.value is not None)
    if limit is not None:
        rule = f"the configurations must not all be {AT[limit]} for effects: nothing can be told apart there"
        remedy = "Train longer, or on easier images." if limit == Limit.CHANCE else "Train on harder images."
        raise UserError(rule, value=study.study, remedy=remedy)


def _require_draws(file: StudyFile, configurations: Sequence[Configuration], drawn: Sequence[Configuration]) -> None:
    """Raise `UserError` if too few configurations with a value are a uniform sample of the space."""
    search = file.study.search
    count = sum(one.value is not None for one in drawn)
    place = file.place(("search",))
    if search.sampler == "grid" and not drawn:
        rule = "all cells of a grid must be trained for effects, since its first ones are no sample of the space"
        value = f"{sum(not one.is_open for one in configurations)} cells"
        raise UserError(rule, value=value, place=place, remedy="Run it to its end.")
    if count >= LEAST_DRAWS or (search.sampler == "grid" and count >= 2 * LEAST_IN_CELL):
        return
    if not has_uniform_draws(file.study) and search.sampler != "grid":
        rule = (
            f"`search.space_filling` must be above 0 for effects, since the sampler {search.sampler} with the pruner "
            f"{search.pruner} trains no sample of the space"
        )
        remedy = "Write `space_filling: 0.2` below `search`, raise `trials`, and run it again: the study grows."
        raise UserError(rule, value=search.space_filling, place=place, remedy=remedy)
    rule = f"at least {LEAST_DRAWS} space-filling configurations must have a value for effects"
    of_all = f"{count} of {len(configurations)} configurations"
    remedy = "Raise `search.trials` or `search.space_filling`, and run it again: the study grows."
    raise UserError(rule, value=of_all, place=place, remedy=remedy)
