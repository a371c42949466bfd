"""The budget of a study (`search.budget`): what it has trained over all of its calls, and what is left.

A run counts for the study that trained it; a study that takes it from the store spends nothing. Runs that a version
trained which did not record attempts count for the study in whose folder they are. Times that are measured again count
neither as runs nor as hours.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.config.study import SearchBudget, Study
from harness.storage import Store


@dataclass(frozen=True, slots=True)
class Spending:
    """What a study has trained."""

    run_ids: frozenset[str] = field(default=frozenset(), repr=False)
    epochs: int = 0
    core_s: float = 0.0
    """Wall time of the runs times their threads, in seconds."""

    @property
    def runs(self) -> int:
        """Number of runs that were started; a run that was resumed counts once."""
        return len(self.run_ids)

    @property
    def core_hours(self) -> float:
        """`core_s` in hours."""
        return self.core_s / 3600


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run is expected to cost a study."""

    run_id: str
    epochs: int
    core_s: float | None
    """None if no run has been timed."""


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A study's budget and what of it is used."""

    limits: SearchBudget
    spent: Spending

    def allows(self, costs: Iterable[RunCost]) -> bool:
        """Whether further runs of these costs stay within every limit; runs without costs are always allowed.

        Before a run has been timed, hours limit only what has been spent.
        """
        costs = list(costs)
        if not costs:
            return True
        limits, spent = self.limits, self.spent
        core_s = spent.core_s + sum(cost.core_s or 0.0 for cost in costs)
        return (
            (limits.runs is None or len(spent.run_ids | {cost.run_id for cost in costs}) <= limits.runs)
            and (limits.epochs is None or spent.epochs + sum(cost.epochs for cost in costs) <= limits.epochs)
            and (limits.hours is None or (spent.core_hours < limits.hours and core_s <= 3600 * limits.hours))
        )

    def runs_left(self, epochs: float, core_s: float | None) -> int | None:
        """How many further runs of this cost are allowed; None if no limit applies that is known."""
        limits, spent = self.limits, self.spent
        left: list[float] = []
        if limits.runs is not None:
            left.append(limits.runs - spent.runs)
        if limits.epochs is not None and epochs > 0:
            left.append((limits.epochs - spent.epochs) / epochs)
        if limits.hours is not None and core_s:
            left.append((3600 * limits.hours - spent.core_s) / core_s)
        return max(0, int(min(left) + 1e-9)) if left else None

    @property
    def text(self) -> str:
        """What is used, as `10 of 12 runs, 40 epochs, 0.031 core-hours`: with the limits that there are."""
        limits, spent = self.limits, self.spent
        return ", ".join(
            [
                f"{spent.runs:,}{_of(limits.runs)} runs",
                f"{spent.epochs:,}{_of(limits.epochs)} epochs",
                f"{spent.core_hours:.2g}{_of(limits.hours)} core-hours",
            ]
        )

    def values(self) -> dict[str, Any]:
        """Limits and use for JSON; the hours are core-hours."""
        spent = self.spent
        return {
            "limits": self.limits.model_dump(mode="json"),
            "used": {"hours": spent.core_hours, "runs": spent.runs, "epochs": spent.epochs},
        }


def _of(limit: float | None) -> str:
    return "" if limit is None else f" of {limit:,g}"


def read_spending(study: str, store: Store) -> Spending:
    """What a study has trained over all of its calls, also by a driver that runs now."""
    attempts = store.attempts(study)
    ids = {attempt.run_id for attempt in attempts}
    epochs, core_s = sum(attempt.epochs for attempt in attempts), sum(attempt.core_s for attempt in attempts)
    linked = {run_id for ids in store.trial_runs(study).values() for run_id in ids} - ids
    linked -= store.runs_with_attempts(linked)
    own = [row for row in store.runs(linked).values() if row.attempts and row.folder and row.folder.name == study]
    curves = store.epochs_of_runs(row.id for row in own)
    return Spending(
        frozenset(ids | {row.id for row in own}),
        epochs + sum(len(curve) for curve in curves.values()),
        core_s + sum(row.wall_s * (row.threads or 1) for row in own),
    )


def budget_status(study: Study, store: Store) -> BudgetStatus | None:
    """The budget of a study with what is used of it; None without a budget."""
    budget = study.search.budget
    return None if budget is None else BudgetStatus(budget, read_spending(study.study, store))
