"""Who proposed a trial, as its stored attributes state it, and which trials are uniform draws of the search space.

A sampler visits good regions more often, so a mean over what it visited is biased. Averages over the space are
therefore estimated from the trials that are *space-filling*: drawn uniformly on every axis from the networks within
rules and budgets, independently of all results, and trained to the end whatever a pruner decides.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.config.space import Space
from harness.config.study import UNIFORM_SAMPLERS, Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

PROPOSED_BY = "proposed_by"
"""Attribute of a trial: a `ProposedBy`. Trials that train further seeds of known configurations have none."""
PROPOSED_FROM = "proposed_from"
"""Attribute of a trial: the fingerprint of the space at that time. A draw from a smaller space is not one of this."""


ENQUEUED_AS = "enqueued_as"
"""Attribute of a trial that the study file lists: its entry under `search.enqueue`, as text."""


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


def has_uniform_draws(study: Study) -> bool:
    """Whether some of a study's trials are drawn uniformly and trained to the end; all of a whole grid are so, too."""
    search = study.search
    return search.space_filling > 0 or (search.sampler in UNIFORM_SAMPLERS and search.pruner == "none")


def was_proposed(trial: "FrozenTrial") -> bool:
    """Whether the search proposed a trial, and not the study file."""
    return trial.user_attrs.get(PROPOSED_BY) != ProposedBy.ENQUEUED


def is_space_filling(trial: "FrozenTrial", study: Study, space_fingerprint: str, *, has_grown: bool = False) -> bool:
    """Whether a trial is a uniform draw from this space whose training no result could end.

    Trials of earlier versions have no attributes; of a uniform sampler they are draws, unless the space `has_grown`
    since, or they were enqueued.
    """
    by, is_uniform = trial.user_attrs.get(PROPOSED_BY), study.search.sampler in UNIFORM_SAMPLERS
    is_uniform = is_uniform and study.search.pruner == "none"
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
