"""The effects of a study as plain values, for JSON."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # numpy comes with these
    from harness.analysis.effect_estimators import EffectResult
    from harness.analysis.effects import EffectsResult
    from harness.analysis.statistics.effects import EffectEstimate

METHOD = "prediction-powered inference with the space-filling trials; Welch's t interval"


def effects_values(result: "EffectsResult") -> dict[str, Any]:
    """The effects for JSON."""
    known = result.importances
    return {
        "study": result.study,
        "metric": result.metric,
        "sampler": result.sampler,
        "method": METHOD,
        "configurations": result.configurations,
        "space_filling": {
            "with_value": result.draws,
            "lost": dict(result.lost),
            "lost_levels": list(result.lost_levels),
            "at_limit": dict(result.at_limit),
            "with_a_diverged_seed": result.diverged,
            "unfinished": result.open,
            "of_an_earlier_space": result.earlier,
        },
        "explained_by_model": result.explained,
        "averaged_over": {"networks": result.sample, "is_whole_space": result.is_whole},
        "seeds": list(result.seeds),
        "importance": None
        if known is None
        else {"evaluator": known.evaluator, "direction": known.direction, "shares": dict(known.shares)},
        "effects": [_effect_values(effect) for effect in result.effects],
    }


def _effect_values(result: "EffectResult") -> dict[str, Any]:
    term, entry = result.term, result.term.entry
    return {
        "subject": term.subject,
        "compared": term.compared,
        "kind": str(term.kind),
        **_estimate_values(result.estimate),
        "n": [count.values for count in result.counts],
        "lost": [count.lost for count in result.counts],
        "reason": result.reason,
        "share_of_networks": result.share,
        "space_filling_alone": None if result.alone is None else _estimate_values(result.alone),
        "model_alone": result.model,
        "as_visited": result.visited,
        "entry": None if entry is None else entry.model_dump(mode="json"),
    }


def _estimate_values(estimate: "EffectEstimate | None") -> dict[str, Any]:
    if estimate is None:
        return {"effect": None, "interval": None, "standard_error": None, "df": None}
    return {
        "effect": estimate.effect,
        "interval": list(estimate.interval),
        "standard_error": estimate.error,
        "df": estimate.df,
    }
