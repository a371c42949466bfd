"""The share of a search's trials that is drawn uniformly from the space, independently of the sampler and all results.

The n-th draw depends on the study's seed and on n alone, so it is the same for any number of workers, after a
resumption, and whatever the runs yield. `harness.analysis.effects` needs such trials for its intervals.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.analysis.proposal_origin import PROPOSED_BY, PROPOSED_FROM, ProposedBy
from harness.config.axes import random_sampler
from harness.config.space import Candidate, Space
from harness.config.study import Study
from harness.search.history import FURTHER_SEEDS
from harness.system.fingerprint import fingerprint

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MAX_DRAWS = 20_000
"""Number of draws in a row without a network within rules and budgets after which there are no further draws."""


class SpaceFilling:
    """Decides which trials are drawn uniformly, and draws them."""

    def __init__(self, study: Study, space: Space) -> None:
        self._share = study.search.space_filling
        self._seed = study.search.seed
        self._space = space
        self._fingerprint = space.fingerprint()
        self._trials = 0
        """Number of opened trials, without those that train further seeds."""
        self._draws = 0
        """Number of those that were drawn uniformly."""
        self.is_exhausted = False
        """Whether draws were given up, because next to no network is within rules and budgets."""

    def read(self, trials: Iterable["FrozenTrial"]) -> None:
        """Count the trials of an earlier driver."""
        self._trials = self._draws = 0
        for trial in trials:
            self.count(trial.user_attrs)

    def count(self, facts: Mapping[str, Any]) -> None:
        """Count an opened trial, by its attributes."""
        if "fingerprint" in facts and FURTHER_SEEDS not in facts:
            self._trials += 1
            self._draws += facts.get(PROPOSED_BY) == ProposedBy.SPACE_FILLING

    def next_draw(self) -> Candidate | None:
        """The configuration of the next trial if it is to be drawn uniformly; None if a sampler proposes it."""
        is_due = self._draws + 1 <= self._share * (self._trials + 1) + 1e-9
        if not is_due or self.is_exhausted:
            return None
        candidate = draw_feasible(self._space, draw_seed(self._seed, self._draws))
        self.is_exhausted = candidate is None
        return candidate

    def facts(self, by: ProposedBy) -> dict[str, str]:
        """The attributes that state who proposed a trial, and from which space."""
        return {PROPOSED_BY: str(by), PROPOSED_FROM: self._fingerprint}


def draw_seed(study_seed: int, number: int) -> int:
    """The seed of a study's draw with this number: a digest, because generators with consecutive seeds are alike."""
    return int(fingerprint(["space-filling", study_seed, number]), 16)


def draw_feasible(space: Space, seed: int) -> Candidate | None:
    """A network within rules and budgets, uniform on every axis given that; None if none is found."""
    choose = random_sampler(seed)
    candidates = (space.sample(choose) for _ in range(MAX_DRAWS))
    return next((candidate for candidate in candidates if candidate.is_feasible), None)
