"""The trials of a search that are drawn from the prior of its axes, the values that a researcher believes in.

Optuna has no prior of this kind: the arguments of its TPE sampler weight its own flat prior, and are deprecated. As in
PriorBand (arXiv 2306.12370) some of the configurations are drawn from the prior and the others are the sampler's, and
as in piBO (arXiv 2204.11051) the influence of the prior decreases as 1 / n over n trials, so that a wrong one costs
a limited number of trials. The sampler learns from the results alone.

Which trials are drawn depends on their number alone, and what is drawn on the study's seed and the networks that were
tried: a study that is resumed continues.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.analysis.proposal_origin import PROPOSED_BY, ProposedBy
from harness.config.axes import prior_sampler
from harness.config.search_methods import trials_from_prior
from harness.config.space import Candidate, Space
from harness.config.study import Study
from harness.search.history import FURTHER_SEEDS
from harness.system.fingerprint import fingerprint

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MAX_DRAWS = 100
"""Number of draws in a row without an untried network within rules and budgets after which the sampler proposes."""
MAX_MISSES = 5
"""Number of times that this may happen before there are no further draws."""


class PriorDraws:
    """Decides which trials are drawn from the prior, and draws them; none if no axis has a prior."""

    def __init__(self, study: Study, space: Space) -> None:
        self._search = study.search
        self._space = space
        self._has_prior = any(axis.prior is not None for axis in space.axes.values())
        self._trials = 0
        """Number of opened trials, without those that train further seeds, space-filling ones, and enqueued ones."""
        self._draws = 0
        """Number of those that were drawn from the prior."""
        self._misses = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether draws were given up, because next to none had an untried network within rules and budgets."""
        return self._misses >= MAX_MISSES

    def read(self, trials: Iterable["FrozenTrial"]) -> None:
        """Count the trials of an earlier driver."""
        self._trials = self._draws = 0
        for trial in trials:
            self.count(trial.user_attrs)

    def count(self, facts: Mapping[str, Any]) -> None:
        """Count an opened trial, by its attributes."""
        by = facts.get(PROPOSED_BY)
        others = (ProposedBy.SPACE_FILLING, ProposedBy.ENQUEUED)
        if "fingerprint" in facts and FURTHER_SEEDS not in facts and by not in others:
            self._trials += 1
            self._draws += by == ProposedBy.PRIOR

    def next_draw(self, tried: Collection[str]) -> Candidate | None:
        """The untried configuration of the next trial if it is to be drawn from the prior; None otherwise."""
        if not self._has_prior or self.is_exhausted:
            return None
        if self._draws + 1e-9 >= trials_from_prior(self._search.sampler, self._trials + 1):
            return None
        choose = prior_sampler(int(fingerprint(["prior", self._search.seed, self._trials]), 16))
        candidates = (self._space.sample(choose) for _ in range(MAX_DRAWS))
        drawn = next((each for each in candidates if each.is_feasible and each.fingerprint not in tried), None)
        self._misses = 0 if drawn else self._misses + 1
        return drawn
