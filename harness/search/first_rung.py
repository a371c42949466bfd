"""The first rung of a search: of several proposals of the sampler, only the best by a score is trained.

The score is computed before any training, in the driver's process, for the study's first seed; torch is loaded only
where a study has a first rung. The others are ended in Optuna as failed, so that no sampler learns from a score as if
it were a result, and the same network may be proposed again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.proposal_origin import FIRST_RUNG
from harness.config.measures import ScoreName
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import Candidate
from harness.config.study import FIRST_RUNG_PROPOSALS, Study
from harness.training.run import Run

if TYPE_CHECKING:
    import optuna

IMAGE_SCORES: tuple[ScoreName, ...] = ("grad_norm", "naswot")
"""Scores that need training images."""
Proposal = tuple["optuna.Trial", Candidate]
ImagesAndLabels = tuple[Any, Any]
"""Tensors, which are not imported here; see `harness.measures.zero_cost.ScoreInputs`."""
Score = Callable[[Candidate], float]


@dataclass(slots=True)
class NetworkScorer:
    """Computes the score of a configuration, of its initial weights with the study's first seed."""

    name: ScoreName
    study: Study
    data: str | None
    """Digest of the data set, if it is read from disk."""
    cache: Path
    """Folder of the prepared data sets, as for the workers."""
    _scores: dict[str, float] = field(default_factory=dict)
    """By the fingerprint of the configuration."""
    _images: dict[str, ImagesAndLabels] = field(default_factory=dict)
    """The images and labels of each recipe, by its fingerprint."""

    def __call__(self, candidate: Candidate) -> float:
        """The score; -inf where it is not defined."""
        known = self._scores.get(candidate.fingerprint)
        if known is None:
            value = self._computed(candidate)
            known = self._scores[candidate.fingerprint] = value if math.isfinite(value) else -math.inf
        return known

    def _computed(self, candidate: Candidate) -> float:
        from harness.measures.zero_cost import ScoreInputs, score
        from harness.models.build import build
        from harness.system.device_slot import computing

        spec, recipe = candidate.trained
        run = Run(spec, recipe, self.study.search.seed, self.data)
        images, labels = self._images_of(run)
        with computing():
            return score(self.name, ScoreInputs(build(spec, seed=run.training_seed), images, labels))

    def _images_of(self, run: Run) -> ImagesAndLabels:
        from harness.measures.zero_cost import blank_images

        if self.name not in IMAGE_SCORES:
            return blank_images(run.recipe, run.spec.in_channels)
        key = run.recipe.fingerprint()
        if key not in self._images:
            self._images[key] = _training_images(run.recipe, self.cache, run)
        return self._images[key]


def _training_images(recipe: ProxyRecipe, cache: Path, run: Run) -> ImagesAndLabels:
    from harness.data import load, require_same_digest
    from harness.measures.zero_cost import score_images

    dataset = load(recipe, cache, run.seed)
    require_same_digest(dataset.info, run.data, recipe)
    return score_images(dataset)


class FirstRung:
    """Chooses one of several proposals by a score."""

    def __init__(self, name: ScoreName, proposals: int | None, score: Score) -> None:
        self.name = name
        self.size = proposals or FIRST_RUNG_PROPOSALS
        self._score = score

    def choose(self, proposals: Sequence[Proposal], known: Callable[[str], bool]) -> tuple[Proposal, dict[str, Any]]:
        """The best proposal by the score, and the attribute that records why; an untried one is preferred.

        The first of equal ones is chosen.
        """
        scores = [self._score(candidate) for _, candidate in proposals]
        is_new = [not known(candidate.fingerprint) for _, candidate in proposals]
        best = max(range(len(proposals)), key=lambda i: (is_new[i], scores[i], -i))
        others = [_plain(value) for i, value in enumerate(scores) if i != best]
        return proposals[best], self.record(scores[best]) | {"others": others}

    def end_others(self, study: "optuna.Study", proposals: Sequence[Proposal], chosen: Proposal) -> None:
        """End the proposals that were not chosen, each with its score."""
        from optuna.trial import TrialState

        for proposal in proposals:
            if proposal is not chosen:
                trial, candidate = proposal
                trial.set_user_attr(FIRST_RUNG, self.record(self._score(candidate)))
                study.tell(trial, state=TrialState.FAIL)

    def record(self, value: float) -> dict[str, Any]:
        """The score of a proposal as plain values; null where it is not defined."""
        return {"score": self.name, "value": _plain(value)}


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def first_rung_of(study: Study, data: str | None, cache: Path) -> FirstRung | None:
    """The first rung of a study; None if it has none."""
    name = study.search.first_rung
    if name is None:
        return None
    return FirstRung(name, study.search.first_rung_proposals, NetworkScorer(name, study, data, cache))
