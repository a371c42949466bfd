"""The answer of a study with several objectives: its Pareto front, the knee, the hypervolume, and which budgets bind.

A configuration is on the front if no other complete one within the budgets is at least as good in every objective and
better in one, by their means over seeds. The best one is the knee of the front; `analysis.statistics.pareto` defines
it, and the hypervolume. Configurations that are over a budget, or whose accuracy is at chance, are not on the front.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.limits import Limit
from harness.config.study import Budgets, Direction, Study

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KNEE_RULE = (
    "the smallest distance to the point that is best in every objective, with each objective scaled to the range of "
    "the front"
)
KNEE_RULE_OF_TWO = (
    "the largest distance from the line between the extremes of the front, with each objective scaled to the range of "
    "the front"
)


class BudgetOfFront(NamedTuple):
    """A budget of the study, and how the front relates to it."""

    name: str
    """`params`, `macs` or `latency_ms`."""
    limit: float
    largest: float | None
    """The largest value on the front; None if no configuration has one."""
    excluded: int
    """Proposals that were not trained because of it; for a latency, trained configurations that would be on the front
    without it."""

    @property
    def binds(self) -> bool:
        """Whether the front might be another one without the budget."""
        return self.excluded > 0


@dataclass(frozen=True, slots=True)
class ParetoFront:
    """The front of a study with several objectives; configurations are named by their first trials."""

    objectives: Mapping[str, Direction]
    front: tuple[int, ...]
    """By the first objective, best first."""
    knee: int | None
    why_no_knee: str | None
    reference: Mapping[str, float]
    """The reference point of the hypervolumes, by objective; empty without a complete configuration."""
    hypervolumes: tuple[tuple[int, float], ...]
    """The share of the box between reference and ideal point that is dominated, after each complete configuration."""
    unsure: tuple[int, ...]
    """Configurations of the front that another one dominates if one objective is worse by its spread over seeds."""
    has_spread: bool
    """Whether every configuration of the front has at least two seeds."""
    budgets: tuple[BudgetOfFront, ...] = ()

    @property
    def text(self) -> str:
        """The objectives as text: `top1 (maximize) and macs (minimize)`."""
        named = [f"{name} ({direction})" for name, direction in self.objectives.items()]
        return f"{', '.join(named[:-1])} and {named[-1]}"

    @property
    def knee_rule(self) -> str:
        """The definition of the knee, as a part of a sentence."""
        return KNEE_RULE_OF_TWO if len(self.objectives) == 2 else KNEE_RULE

    @property
    def best(self) -> int | None:
        """The knee; without one, the configuration of the front with the best first objective."""
        return self.knee if self.knee is not None else next(iter(self.front), None)


def pareto_front(study: Study, rows: Sequence[ConfigurationResult], rejected: Mapping[str, int]) -> ParetoFront:
    """The front of the complete rows of a study; `rejected` has the number of proposals by rule or budget."""
    import numpy as np

    from harness.analysis.statistics.pareto import front_positions, hypervolume_shares, knee, reference_point

    objectives = study.objectives
    ranked = sorted((row for row in rows if _is_ranked(row)), key=lambda row: row.trials[0])
    if not ranked:
        return ParetoFront(objectives, (), None, "no configuration is complete", {}, (), (), False)
    signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in objectives.values()])
    points = signs * np.array([row.means for row in ranked])
    positions = front_positions(points)
    best_first = sorted(positions, key=lambda i: (*(-points[i]), ranked[i].trials[0]))
    at = knee(points[best_first])
    front = [ranked[i] for i in best_first]
    return ParetoFront(
        objectives=objectives,
        front=tuple(row.trials[0] for row in front),
        knee=None if at is None else front[at].trials[0],
        why_no_knee=None if at is not None else _why_no_knee(points[best_first]),
        reference=dict(zip(objectives, (signs * reference_point(points)).tolist(), strict=True)),
        hypervolumes=tuple(zip((row.trials[0] for row in ranked), hypervolume_shares(points), strict=True)),
        unsure=tuple(row.trials[0] for i, row in zip(best_first, front, strict=True) if _is_unsure(i, points, ranked)),
        has_spread=all(len(row.values) > 1 for row in front),
        budgets=_budgets(study.budgets, rows, front, signs, rejected),
    )


def pareto_values(front: ParetoFront) -> dict[str, Any]:
    """The front for JSON."""
    return {
        "objectives": [{"name": name, "direction": direction} for name, direction in front.objectives.items()],
        "front": list(front.front),
        "knee": front.knee,
        "knee_rule": front.knee_rule,
        "why_no_knee": front.why_no_knee,
        "reference_point": dict(front.reference),
        "hypervolume": front.hypervolumes[-1][1] if front.hypervolumes else None,
        "hypervolume_by_trial": [{"trial": trial, "hypervolume": share} for trial, share in front.hypervolumes],
        "within_spread": list(front.unsure),
        "budgets": [budget._asdict() | {"binds": budget.binds} for budget in front.budgets],
    }


def _is_ranked(row: ConfigurationResult) -> bool:
    is_finite = bool(row.values) and all(map(math.isfinite, row.means))
    return row.state == "complete" and is_finite and row.limit != Limit.CHANCE


def _why_no_knee(front: "NDArray[np.float64]") -> str:
    import numpy as np

    from harness.analysis.statistics.pareto import LEAST_FOR_KNEE

    different = len(np.unique(front, axis=0))
    if different < LEAST_FOR_KNEE:
        return f"the front has {different} different {'point' if different == 1 else 'points'}, and needs three"
    return "no point of the front is on the better side of the line between its extremes"


def _is_unsure(i: int, points: "NDArray[np.float64]", ranked: Sequence[ConfigurationResult]) -> bool:
    """Whether another point dominates this one if one of its objectives is worse by its spread."""
    import numpy as np

    others = np.delete(points, i, axis=0)
    for j, spread in enumerate(ranked[i].spreads):
        worse = points[i] - (spread or 0.0) * np.eye(points.shape[1])[j]
        if spread and ((others >= worse).all(axis=1) & (others > worse).any(axis=1)).any():
            return True
    return False


def _budgets(
    budgets: Budgets,
    rows: Sequence[ConfigurationResult],
    front: Sequence[ConfigurationResult],
    signs: "NDArray[np.float64]",
    rejected: Mapping[str, int],
) -> tuple[BudgetOfFront, ...]:
    result = []
    for name, limit in budgets.model_dump().items():
        if limit is None:
            continue
        if name == "latency_ms":
            values = [row.latency_ms for row in front if row.latency_ms is not None]
            excluded = _on_front_without_latency_budget(rows, front, signs)
        else:
            values = [float(row.macs if name == "macs" else row.params_count) for row in front]
            excluded = rejected.get(name, 0)
        result.append(BudgetOfFront(name, limit, max(values, default=None), excluded))
    return tuple(result)


def _on_front_without_latency_budget(
    rows: Sequence[ConfigurationResult], front: Sequence[ConfigurationResult], signs: "NDArray[np.float64]"
) -> int:
    """Number of configurations over the latency budget that no configuration of the front dominates."""
    import numpy as np

    from harness.analysis.statistics.pareto import dominates

    within = [signs * np.array(row.means) for row in front]
    over = [row for row in rows if row.state == "over budget" and row.values]
    return sum(not any(dominates(point, signs * np.array(row.means)) for point in within) for row in over)
