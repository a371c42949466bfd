"""Simulates searches on recorded curves: which network a policy would recommend after how much computing.

The driver of a study runs with its samplers, pruners and proposals; only the trainings are replaced, by recorded
curves in simulated time with W workers (`harness.search.replay`). Nothing here decides which run is next.

The recommendation is that of `StudyResults.best`: the best mean of all complete configurations, or with a race the best
pessimistic bound.
"""

import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.curve_table import CurveTable
from harness.analysis.racing import race_result
from harness.analysis.reuse import ReuseRule
from harness.config.policies import Policy
from harness.config.space import Space
from harness.config.study import Study, screening_epochs
from harness.errors import UserError
from harness.executors.simulated import BudgetUsed, SimulatedExecutor
from harness.search.driver import Driver, DriverContext
from harness.search.events import RunEnded, StudyEvent, TrialEnded, TrialStarted
from harness.search.replay import CachedSpace, MemoryStore, RecordedCurves, ReplayedRuns, memory_trials
from harness.search.samplers import build_sampler, pruner_of
from harness.training.environment import Environment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from optuna.samplers import BaseSampler


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The network that a search recommends from some time on."""

    epochs: float
    """Epochs that were computed by then."""
    clock_s: float
    """Simulated time."""
    network: int
    """Its position in the table."""


@dataclass(frozen=True, slots=True)
class SimulatedSearch:
    """One repetition of a policy."""

    recommendations: tuple[Recommendation, ...]
    """In the order of time; empty before the first complete configuration."""
    epochs: float
    clock_s: float
    trials: int
    """Number of configurations that were opened."""
    pruned: int
    repeated: int
    """Number of runs that replayed a curve that the search had already seen."""
    held_out: int | None
    """Position of the table's seed that the search could not see; None if it needs all of them."""

    def at(self, epochs: float) -> int | None:
        """The network that is recommended after this many epochs; None before the first complete configuration."""
        until = [one.network for one in self.recommendations if one.epochs <= epochs]
        return until[-1] if until else None


@dataclass(slots=True)
class _Recommender:
    """Follows the events of a driver, and keeps the values of the complete configurations."""

    study: Study
    macs: Mapping[str, int]
    """By configuration."""
    _trials: dict[int, str] = field(default_factory=dict)
    """Configuration of every trial."""
    _open: dict[int, dict[int, float]] = field(default_factory=dict)
    """Values of the runs of open trials, by seed."""
    _values: dict[str, dict[int, float]] = field(default_factory=dict)
    """Values of complete configurations, by seed."""
    pruned: int = 0

    @property
    def trials(self) -> int:
        """Number of trials that were opened."""
        return len(self._trials)

    def add(self, event: StudyEvent) -> bool:
        """Add an event; returns whether the recommendation may have changed."""
        if isinstance(event, TrialStarted):
            self._trials[event.trial], self._open[event.trial] = event.configuration, {}
        elif isinstance(event, RunEnded) and event.value is not None:
            self._open[event.trial][event.seed] = event.value
        elif isinstance(event, TrialEnded):
            self.pruned += event.state == "pruned"
            if event.state == "complete":
                self._values.setdefault(self._trials[event.trial], {}).update(self._open[event.trial])
                return True
        return False

    def best(self) -> str:
        """Fingerprint of the recommended configuration."""
        if self.study.search.racing is not None:
            tried = {name: len(by_seed) for name, by_seed in self._values.items()}
            race = race_result(self.study, self._values, tried, self.macs)
            if race.best is not None:
                return race.best
        sign = 1 if next(iter(self.study.objectives.values())) == "maximize" else -1
        return max(self._values, key=lambda name: sign * statistics.fmean(self._values[name].values()))


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A table with the space that is searched, and the conditions of all simulations."""

    table: CurveTable
    space: CachedSpace
    curves: RecordedCurves
    values: "NDArray[np.float64]"
    """The objective after each epoch, (N, S, E)."""
    seconds: "NDArray[np.float64]"
    """The wall time of each epoch, (N, S, E)."""
    metric: str
    is_maximized: bool
    workers: int
    budget: int
    """Epochs after which every search ends."""

    @classmethod
    def of(
        cls, table: CurveTable, space: Space, objectives: Mapping[str, str], *, workers: int, share: float
    ) -> "Rehearsal":
        """Prepare the simulations of a space whose configurations are in the table.

        Every search may use this share of the epochs of the full grid. Raises `UserError` if that is less than a run.
        """
        metric, direction = next(iter(objectives.items()))
        cached = CachedSpace.of(space)
        curves = RecordedCurves(table, cached)
        total = len(curves.networks) * len(table.seeds) * table.epochs
        budget = int(share * total)
        if budget < table.epochs:
            rule = f"the budget must allow one run of {table.epochs} epochs, of {total:,} of the full grid"
            raise UserError(
                rule, value=f"{share:g}, {budget} epochs", remedy=f"Try {table.epochs / total:.2g} or more."
            )
        return cls(
            table,
            cached,
            curves,
            values=table.curves(metric),
            seconds=table.curves("seconds"),
            metric=metric,
            is_maximized=direction == "maximize",
            workers=workers,
            budget=budget,
        )

    @property
    def networks(self) -> list[int]:
        """Positions in the table of the configurations of the space."""
        return sorted(self.curves.networks.values())

    def simulate(self, policy: Policy, repetition: int) -> SimulatedSearch:
        """One search with the policy; the repetition decides the sampler's draws and the order of the table's seeds."""
        order = seed_order(len(self.table.seeds), repetition)
        seen, screening = self._seeds_of(policy, order)
        held_out = next((seed for seed in order if seed not in {*seen, screening}), None)
        study = policy.study.model_copy(update={"search": policy.study.search.model_copy(update={"seed": repetition})})
        script = ReplayedRuns(self.curves, seen, screening, repetition)
        executor = SimulatedExecutor(script, slots=self.workers, budget=self.budget)
        store, trials = MemoryStore(), memory_trials(study)
        assert policy.file is not None
        plugin = policy.file.plugin

        def sampler_of(count: int) -> "BaseSampler":
            return build_sampler(study.search, self.space, count, plugin)

        trials.sampler = sampler_of(0)
        trials.pruner = pruner_of(study.search, study.proxy.epochs)
        rule = ReuseRule(study, store, Environment())
        inputs = DriverContext(
            *(study, self.space, store, trials, Path(), lambda: executor, rule),
            sampler_of=sampler_of,
            checks_limits=False,
        )
        driver = Driver(inputs)
        recommender = _Recommender(study, self.curves.macs)
        recommendations = list(self._follow(driver, executor, recommender))
        return SimulatedSearch(
            tuple(recommendations),
            epochs=min(executor.epochs, self.budget),
            clock_s=executor.clock_s,
            trials=recommender.trials,
            pruned=recommender.pruned,
            repeated=script.repeated,
            held_out=held_out,
        )

    def _follow(
        self, driver: Driver, executor: SimulatedExecutor, recommender: _Recommender
    ) -> Iterator[Recommendation]:
        """The changes of the recommendation until the budget is used."""
        last: int | None = None
        with suppress(BudgetUsed):
            for event in driver.events():
                if recommender.add(event) and (network := self.curves.networks[recommender.best()]) != last:
                    last = network
                    yield Recommendation(executor.epochs, executor.clock_s, network)

    def _seeds_of(self, policy: Policy, order: Sequence[int]) -> tuple[Sequence[int], int]:
        """The seeds that a policy may see in its means, and that of its screening runs.

        If it can do without the last seed, that one is held out, to judge its choice.
        """
        search, epochs = policy.study.search, policy.study.proxy.epochs
        most = search.seeds if search.racing is None else search.racing.most
        has_spare = most + (screening_epochs(search.pruner, epochs) > 0) < len(order)
        seen = order[:-1] if has_spare else order
        return seen, seen[-1]

    def first_epoch(self, repetition: int, epochs: float) -> SimulatedSearch:
        """The baseline `first_epoch` with these epochs: half of them train networks for one epoch, drawn at random.

        If that is more than there are, each is trained once. The rest resumes the best of them to the last epoch.
        """
        order = seed_order(len(self.table.seeds), repetition)
        drawn = random.Random(repetition).sample(self.networks, min(len(self.networks), int(epochs) // 2))
        kept = int(epochs - len(drawn)) // (self.table.epochs - 1) if self.table.epochs > 1 else len(drawn)
        best_first = sorted(drawn, key=lambda network: self._loss_of(network, order[0], 0))
        resumed = best_first[:kept]
        runs = [(network, 1) for network in drawn] + [(network, self.table.epochs) for network in resumed]
        used = len(drawn) + len(resumed) * (self.table.epochs - 1)
        clock_s = sum(self._seconds_of(network, order[0], last) for network, last in runs) / self.workers
        found: tuple[Recommendation, ...] = ()
        if resumed:
            best = min(resumed, key=lambda network: self._loss_of(network, order[0], -1))
            found = (Recommendation(used, clock_s, best),)
        held_out = order[-1] if len(order) > 1 else None
        return SimulatedSearch(found, used, clock_s, len(drawn), len(drawn) - len(resumed), 0, held_out)

    def _loss_of(self, network: int, seed: int, epoch: int) -> float:
        """The objective after an epoch, so that less is better."""
        value = float(self.values[network, seed, epoch])
        return -value if self.is_maximized else value

    def _seconds_of(self, network: int, seed: int, last: int) -> float:
        """The time of the first epoch, or with `last` above 1, that of the others up to it."""
        seconds = self.seconds[network, seed, :last]
        return float(seconds[0] if last == 1 else seconds[1:].sum())


def seed_order(seeds: int, repetition: int) -> list[int]:
    """The positions of the table's seeds in the order of one repetition; equal for all policies."""
    return random.Random(f"seeds {repetition}").sample(range(seeds), seeds)
