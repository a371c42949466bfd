"""How far a proxy may be trusted as plain values, for JSON."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.analysis.pruned_decisions import COIN_TOSS, PrunedDecisions, listed

if TYPE_CHECKING:  # numpy comes with these
    from harness.analysis.statistics.rank_correlation import RankCorrelation
    from harness.analysis.trust import ScoreCorrelation, TrustResult
    from harness.analysis.trust_larger import LargerTrainings
    from harness.analysis.trust_observations import Population
    from harness.analysis.trust_rungs import Rung, RungCorrelation

METHOD = "Kendall's tau-b; percentile bootstrap over configurations, 95 %"


def trust_values(result: "TrustResult", level: float = COIN_TOSS) -> dict[str, Any]:
    """The result for JSON; `level` is the probability from which a decision is a coin toss."""
    rungs, larger = result.rungs, result.larger
    return {
        "study": result.study,
        "metric": result.metric,
        "pruner": result.pruner,
        "first_rung": result.first_rung,
        "method": METHOD,
        "shown_first": str(result.population),
        "finished": {str(name): n for name, n in result.finished.items()},
        "lost": dict(result.lost),
        "rungs": [_rung_values(rung) for rung in rungs.rungs],
        "seeds": rungs.seeds,
        "no_rungs_because": rungs.reason,
        "larger": [_larger_values(trainings) for trainings in larger.trainings],
        "no_larger_because": larger.reason,
        "pruned": _pruned_values(result.pruned, level),
        "scores": [score_values(score) for score in result.scores],
    }


def correlation_values(correlation: "RankCorrelation") -> dict[str, Any]:
    """A rank correlation for JSON."""
    interval = correlation.interval
    return {"tau": correlation.tau, "interval": None if interval is None else list(interval), "n": correlation.n}


def score_values(score: "ScoreCorrelation") -> dict[str, Any]:
    """A score's correlation with the final values for JSON."""
    return {"score": score.name, **_by_population(score.by_population)}


def _by_population(correlations: "Mapping[Population, RankCorrelation]") -> dict[str, Any]:
    return {"of": {str(name): correlation_values(correlation) for name, correlation in correlations.items()}}


def _rung_values(rung: "Rung") -> dict[str, Any]:
    return {
        "epochs": rung.epochs,
        "is_decision": rung.is_decision,
        "of": {str(name): _rung_correlation_values(part) for name, part in rung.by_population.items()},
        "screening": None if rung.screening is None else correlation_values(rung.screening),
    }


def _rung_correlation_values(part: "RungCorrelation") -> dict[str, Any]:
    interval = None if part.below_interval is None else list(part.below_interval)
    return correlation_values(part.correlation) | {"below_ceiling": part.below_ceiling, "below_interval": interval}


def _larger_values(trainings: "LargerTrainings") -> dict[str, Any]:
    return {
        "trainings": trainings.title,
        "computing": trainings.ratio,
        "seeds": list(trainings.seeds),
        "shares_seeds_with_proxy": trainings.shares_seeds,
        "ceiling": None if trainings.ceiling is None else correlation_values(trainings.ceiling),
        **_by_population(trainings.by_population),
    }


def _pruned_values(pruned: PrunedDecisions, level: float) -> dict[str, Any]:
    return {
        "number": pruned.pruned,
        "not_reproduced": pruned.not_reproduced,
        "reason": pruned.reason,
        "level": level,
        "coin_tosses": len(pruned.coin_tosses(level)),
        "spread_between_seeds": [
            {"epochs": epochs, "sd": spread, "df": degrees}
            for epochs, (spread, degrees) in (pruned.spreads or {}).items()
        ],
        "decisions": listed(pruned.decisions),
    }
