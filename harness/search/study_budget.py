"""Keeps a driven study within its budget: counts what its runs train, and decides which runs may be started.

Counts and decisions are those of `harness.analysis.study_budget`; a driver counts in memory what the store has of its
study, because it asks before every run. A run that is started is reserved at its expected cost until it ends.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from harness.analysis.study_budget import BudgetStatus, RunCost, Spending, read_spending
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.study import Study, screening_epochs
from harness.search.samplers import SCREENING_SEEDS
from harness.storage import RunRow, Store
from harness.storage.transitions import SETTLED
from harness.training.run import Ended, Epoch, Job, Record, Run, Started


@dataclass(slots=True)
class _RunningCost:
    """What a submitted run costs: expected, and so far."""

    expected: RunCost
    threads: int = 1
    first_epoch: int = 1
    epochs: int = 0
    core_s: float = 0.0
    is_started: bool = False

    def spending(self, *, is_over: bool = False) -> tuple[int, float]:
        """Epochs and core-seconds: those that it will have used, or has used if it is over."""
        if is_over:
            return self.epochs, self.core_s
        return max(self.epochs, self.expected.epochs), max(self.core_s, self.expected.core_s or 0.0)


@dataclass(slots=True)
class BudgetKeeper:
    """Counts the runs of a driver, and decides which may be started. Without a budget, all may."""

    study: Study
    store: Store
    seconds_of: Callable[[ProxyRecipe], float | None]
    """Expected wall time of a run of a recipe; None if none has been timed."""
    _run_ids: set[str] = field(default_factory=set)
    _epochs: int = 0
    _core_s: float = 0.0
    _running: dict[str, _RunningCost] = field(default_factory=dict)

    @property
    def is_limited(self) -> bool:
        """Whether the study has a budget."""
        return self.study.search.budget is not None

    def read(self) -> None:
        """Read what the study has trained before."""
        if self.is_limited:
            before = read_spending(self.study.study, self.store)
            self._run_ids, self._epochs, self._core_s = set(before.run_ids), before.epochs, before.core_s

    def spent(self, *, is_reserved: bool = False) -> Spending:
        """What is spent, with what running runs have used; or reserved, with what they will have used."""
        running = [cost.spending(is_over=not is_reserved) for cost in self._running.values()]
        ids = {run_id for run_id, cost in self._running.items() if is_reserved or cost.is_started}
        return Spending(
            frozenset(self._run_ids | ids),
            self._epochs + sum(epochs for epochs, _ in running),
            self._core_s + sum(core_s for _, core_s in running),
        )

    def status(self) -> BudgetStatus | None:
        """The budget with what is spent; None without a budget."""
        limits = self.study.search.budget
        return None if limits is None else BudgetStatus(limits, self.spent())

    def allows(self, costs: Iterable[RunCost], share: float = 1.0) -> bool:
        """Whether these runs may be trained after all that are running, with this share of the budget."""
        limits = self.study.search.budget
        return limits is None or BudgetStatus(limits.part(share), self.spent(is_reserved=True)).allows(costs)

    def settled(self, run_ids: Iterable[str]) -> set[str]:
        """The runs that the store has, so that they cost nothing."""
        return {row.id for row in self.store.runs(run_ids).values() if row.state in SETTLED}

    def costs_of(self, runs: Iterable[Run]) -> list[RunCost]:
        """The costs of the runs that are not settled in the store."""
        runs = list(runs)
        rows = self.store.runs(run.id for run in runs)
        return [
            self._cost(run, rows.get(run.id)) for run in runs if run.id not in rows or rows[run.id].state not in SETTLED
        ]

    def costs_of_proposal(self) -> list[RunCost]:
        """The costs of a trial whose configuration is not known yet: none of its runs is taken from the store."""
        search, recipe = self.study.search, self.study.proxy
        screening = [] if self.screening_epochs == 0 else [self.screening_epochs]
        epochs = [*screening, *(recipe.epochs for _ in range(search.seeds))]
        return [RunCost(f"proposal {i}", n, self._core_s_of(recipe, n)) for i, n in enumerate(epochs)]

    def runs_left(self) -> int | None:
        """The number of runs of the study's proxy that the budget allows after the running ones; None if any."""
        limits, recipe = self.study.search.budget, self.study.proxy
        if limits is None:
            return None
        left = BudgetStatus(limits, self.spent(is_reserved=True))
        return left.runs_left(recipe.epochs, self._core_s_of(recipe, recipe.epochs))

    @property
    def screening_epochs(self) -> int:
        """Epochs of a screening run; 0 without one."""
        return screening_epochs(self.study.search.pruner, self.study.proxy.epochs)

    def submitted(self, cost: RunCost) -> None:
        """Reserve a run that is submitted."""
        self._running[cost.run_id] = _RunningCost(cost)

    def count(self, run_id: str, record: Record) -> None:
        """Count a record of a submitted run."""
        cost = self._running.get(run_id)
        if cost is None:
            return
        if isinstance(record, Started):
            cost.is_started, cost.threads, cost.first_epoch = True, record.threads, record.first_epoch
        elif isinstance(record, Epoch) and record.epoch >= cost.first_epoch:
            cost.epochs += 1
            cost.core_s += record.wall_s * cost.threads
        elif isinstance(record, Ended):
            del self._running[run_id]
            if cost.is_started:
                self._run_ids.add(run_id)
                self._epochs += cost.epochs
                self._core_s += record.wall_s * cost.threads

    def _cost(self, run: Run, row: RunRow | None) -> RunCost:
        """The cost of a run; one with a checkpoint is resumed after its last stored epoch."""
        is_screening = run.seed == self.study.search.seed + SCREENING_SEEDS
        epochs, done = self.screening_epochs if is_screening else run.recipe.epochs, 0
        if row is not None and row.folder is not None and row.attempts and Job(run, row.folder).checkpoint.is_file():
            done = len(self.store.epochs(run.id))
        left = max(0, epochs - done)
        return RunCost(run.id, left, self._core_s_of(run.recipe, left))

    def _core_s_of(self, recipe: ProxyRecipe, epochs: int) -> float | None:
        """Expected wall time of epochs of a recipe times the threads; None if no run has been timed."""
        seconds = self.seconds_of(recipe)
        share = epochs / recipe.epochs if recipe.epochs else 1.0
        return None if seconds is None else seconds * share * max(1, self.study.resources.cpus)
