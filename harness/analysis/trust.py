"""May the proxy be trusted? How early, cheap and small numbers order the configurations of a study.

Four questions, answered from what is stored: how rungs order configurations as the full budget does (`trust_rungs`),
how the proxy orders them as larger trainings do (`trust_larger`), which decisions of the pruner were coin tosses
(`pruned_decisions`), and whether a score that is known before training is worth anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.pruned_decisions import PrunedDecisions, pruned_decisions
from harness.analysis.statistics.rank_correlation import RankCorrelation, rank_correlation
from harness.analysis.trust_larger import LargerTable, larger_table
from harness.analysis.trust_observations import Population, TrainedStudy, read_trained_study
from harness.analysis.trust_rungs import RungTable, rung_table
from harness.config.measures import SCORE_METRICS
from harness.config.space import Space
from harness.config.study_file import StudyFile
from harness.errors import UserError
from harness.storage import Store

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, slots=True)
class ScoreCorrelation:
    """A score that is known before training, and how it orders configurations as their final values do."""

    name: str
    by_population: Mapping[Population, RankCorrelation]


@dataclass(frozen=True, slots=True)
class TrustResult:
    """How far the proxy of a study, its rungs and its scores may be trusted."""

    study: str
    metric: str
    pruner: str
    first_rung: str | None
    """The score by which proposals were chosen before any training."""
    epochs: int
    rungs: RungTable
    larger: LargerTable
    pruned: PrunedDecisions
    scores: tuple[ScoreCorrelation, ...]
    finished: Mapping[Population, int]
    """Number of configurations with a final value, by population."""
    lost: Mapping[str, int]
    """Number of space-filling configurations that ended without one, by state."""

    @property
    def population(self) -> Population:
        """The configurations whose correlations are shown first: those that no result selected, if there are enough."""
        from harness.analysis.statistics.rank_correlation import LEAST_CONFIGURATIONS

        enough = [name for name, n in self.finished.items() if n >= LEAST_CONFIGURATIONS]
        return next(iter([*enough, *self.finished]), Population.SPACE_FILLING)


def study_trust(file: StudyFile, space: Space, store: Store, trials: Sequence["FrozenTrial"]) -> TrustResult:
    """How far the proxy of a study may be trusted. Raises `UserError` for a study that trains nothing."""
    study = file.study
    if study.proxy.epochs == 0:
        rule = "`proxy.epochs` must be at least 1 to compare rungs and scores with what training gives"
        raise UserError(rule, value=0, place=file.place(("proxy",)), remedy="Train the networks: `epochs: 4`.")
    trained = read_trained_study(study, space, store, trials)
    return TrustResult(
        study=study.study,
        metric=study.curve_objective,
        pruner=study.search.pruner,
        first_rung=study.search.first_rung,
        epochs=study.proxy.epochs,
        rungs=rung_table(trained),
        larger=larger_table(trained, store, space.train_images),
        pruned=pruned_decisions(trained, trials),
        scores=tuple(_scores(trained)),
        finished={name: len(group) for name, group in trained.populations().items()},
        lost=trained.lost(),
    )


def _scores(trained: TrainedStudy) -> list[ScoreCorrelation]:
    """The correlations of the scores that all finished configurations have."""
    correlations = []
    for name in ("macs", *SCORE_METRICS):
        by_population = {}
        for population, group in trained.populations().items():
            known = [one for one in group if name in one.scores]
            if known:
                pair = [one.scores[name] for one in known], [one.mean for one in known]
                by_population[population] = rank_correlation(pair)
        if by_population:
            correlations.append(ScoreCorrelation(name, by_population))
    return correlations
