"""Who proposed a trial, as its stored attributes state it, and which trials are uniform draws of the search space.

A sampler visits good regions more often, so a mean over what it visited is biased. Averages over the space are
therefore estimated from the trials that are *space-filling*: drawn uniformly on every axis from the networks within
rules and budgets, independently of all results, and trained to the end whatever a pruner decides.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.config.measures import ZERO_COST
from harness.config.space import Space
from harness.config.study import Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

PROPOSED_BY = "proposed_by"
"""Attribute of a trial: a `ProposedBy`. Trials that train further seeds of known configurations have none."""
PROPOSED_FROM = "proposed_from"
"""Attribute of a trial: the fingerprint of the space at that time. A draw from a smaller space is not one of this."""
ENQUEUED_AS = "enqueued_as"
"""Attribute of a trial that the study file lists: its entry under `search.enqueue`, as text."""
SCREENING = "screening"
"""Attribute of a trial: the seed of its screening run, by which a pruner decides."""
PRUNING = (SCREENING, "judged_by_seeds")
"""Attributes of trials that a pruner may end; the same as those of `storage.reopening`, which loads Optuna."""
FIRST_RUNG = "first_rung"
"""Attribute of a trial that was the best of several proposals by a score: the score's name, the trial's own score and
those of the other proposals. Of a proposal that was not the best: the same, without scores of others."""


class ProposedBy(StrEnum):
    """Who chose the configuration of a trial."""

    GRID = "grid"
    SAMPLER = "sampler"
    SPACE_FILLING = "space_filling"
    """A uniform draw, which no result influenced."""
    PRIOR = "prior"
    """A draw from the prior that the study file has for its axes, which no result influenced, either."""
    NEAREST = "nearest"
    """The untried network within rules and budgets that was nearest to a rejected proposal."""
    ENQUEUED = "enqueued"
    """The study file lists it under `search.enqueue`."""
    FIRST_RUNG = "first_rung"
    """The best of several proposals of the sampler by a score that is computed before any training."""


def has_uniform_draws(study: Study) -> bool:
    """Whether some of a study's trials are drawn uniformly and trained to the end; all of a whole grid are so, too."""
    return study.search.space_filling > 0 or study.search.draws_uniformly


def has_trust(study: Study) -> bool:
    """Whether a study decides by an early number, or records scores: only then its answer has a part on them."""
    decides = study.search.pruner != "none" or study.search.first_rung is not None
    return study.proxy.epochs > 0 and (decides or ZERO_COST in study.proxy.measures)


def was_proposed(trial: "FrozenTrial") -> bool:
    """Whether the search proposed a trial, and not the study file."""
    return trial.user_attrs.get(PROPOSED_BY) != ProposedBy.ENQUEUED


def is_space_filling(trial: "FrozenTrial", study: Study, space_fingerprint: str, *, has_grown: bool = False) -> bool:
    """Whether a trial is a uniform draw from this space whose training no result could end.

    Trials of earlier versions have no attributes; of a uniform sampler they are draws, unless the space `has_grown`
    since, or they were enqueued.
    """
    by, is_uniform = trial.user_attrs.get(PROPOSED_BY), study.search.draws_uniformly
    if by is None:
        is_proposed = "fingerprint" in trial.user_attrs and "fixed_params" not in trial.system_attrs
        return is_uniform and is_proposed and not has_grown
    if trial.user_attrs.get(PROPOSED_FROM) != space_fingerprint:
        return False
    return by == ProposedBy.SPACE_FILLING or (by == ProposedBy.SAMPLER and is_uniform)


def earlier_draws(trials: Iterable["FrozenTrial"], space_fingerprint: str) -> int:
    """The number of uniform draws from an earlier, smaller form of the space."""
    return sum(
        trial.user_attrs.get(PROPOSED_BY) == ProposedBy.SPACE_FILLING
        and trial.user_attrs.get(PROPOSED_FROM) != space_fingerprint
        for trial in trials
    )


def is_whole_grid(study: Study, space: Space, trials: Sequence["FrozenTrial"]) -> bool:
    """Whether all cells of a grid have ended: the trials are then the whole space, and not the first part of it."""
    if study.search.sampler != "grid":
        return False
    ended = {trial.user_attrs.get("fingerprint") for trial in trials if trial.state.is_finished()}
    opened = {trial.user_attrs.get("fingerprint") for trial in trials if not trial.state.is_finished()}
    cells = {cell.fingerprint for cell in space.grid() if cell.is_feasible}
    return cells <= ended - opened
