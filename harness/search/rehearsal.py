"""Compares policies on one table: many simulated searches of each, judged by regret after equal computing."""

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.regret import Judge, Quartiles
from harness.analysis.statistics.sample import Sample
from harness.config.policies import Policy
from harness.search.simulation import Rehearsal, SimulatedSearch

if TYPE_CHECKING:
    from concurrent.futures import Executor

SHARES = (0.025, 0.05, 0.1, 0.2)
"""Shares of the full grid's epochs after which the tables show the regret, up to that of the budget."""
CURVE_POINTS = 25
"""Points of the plotted curves, equally far apart on a logarithmic axis."""
LEVEL = 0.05
"""Two-sided level of the intervals of differences: 95 % of them contain the true mean difference."""
Progress = Callable[[str, int, int], None]
"""Called with a policy's name, the number of its finished repetitions and that of all."""


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """All repetitions of one policy."""

    name: str
    seeds: int
    regrets: tuple[tuple[float, ...], ...]
    """By repetition and checkpoint."""
    searches: tuple[SimulatedSearch, ...]
    """By repetition, with all of the budget."""
    held_out: tuple[float, ...]
    """By repetition: the regret of the last recommendation on a seed that the search has not seen; may be empty."""
    wrong: float
    """Share of the repetitions whose last recommendation is not the best network."""
    wall_s: float
    """Computing time of the simulations, of all processes together."""

    def at(self, checkpoint: int) -> Quartiles:
        """Median and quartiles of the regret at a checkpoint."""
        return Quartiles.of([regrets[checkpoint] for regrets in self.regrets])

    @property
    def held_out_mean(self) -> float | None:
        """Mean of the regret on the held-out seed, over the repetitions; None if no seed is held out."""
        return math.fsum(self.held_out) / len(self.held_out) if self.held_out else None

    def mean_of(self, name: str) -> float:
        """Mean of a field of the searches, over the repetitions."""
        return math.fsum(getattr(search, name) for search in self.searches) / len(self.searches)


@dataclass(frozen=True, slots=True)
class RehearsalResult:
    """The comparison of all policies; the first one is what the others are compared with."""

    rehearsal: Rehearsal
    judge: Judge
    checkpoints: tuple[int, ...]
    """Epochs; those of `SHARES` and points between them, ascending."""
    shown: tuple[int, ...]
    """Positions of the checkpoints of the tables."""
    outcomes: tuple[PolicyOutcome, ...]
    repetitions: int

    def difference(self, outcome: PolicyOutcome) -> Sample:
        """Regret of a policy minus that of the first one with the whole budget, by repetition."""
        pairs = zip(outcome.regrets, self.outcomes[0].regrets, strict=True)
        return Sample.of([own[-1] - first[-1] for own, first in pairs])


def rehearse(
    rehearsal: Rehearsal,
    policies: Sequence[Policy],
    repetitions: int,
    *,
    processes: int = 1,
    progress: Progress = lambda *_: None,
) -> RehearsalResult:
    """Simulate each policy this number of times. The result does not depend on the number of processes."""
    networks = rehearsal.networks
    judge = Judge(rehearsal.values[networks, :, -1], rehearsal.is_maximized)
    checkpoints, shown = _checkpoints(rehearsal)
    position = {network: i for i, network in enumerate(networks)}
    outcomes = []
    with _Simulations(rehearsal, policies, processes) as simulations:
        for i, policy in enumerate(policies):
            timed = []
            for done, one in enumerate(simulations.run(i, checkpoints, range(repetitions)), start=1):
                timed.append(one)
                progress(policy.name, done, repetitions)
            outcomes.append(_outcome(policy, timed, judge, position))
    return RehearsalResult(rehearsal, judge, checkpoints, shown, tuple(outcomes), repetitions)


def _checkpoints(rehearsal: Rehearsal) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The checkpoints in epochs, and the positions of those that the tables show."""
    total = len(rehearsal.networks) * len(rehearsal.table.seeds) * rehearsal.table.epochs
    budget, first = rehearsal.budget, min(rehearsal.table.epochs, rehearsal.budget)
    shown = sorted({int(share * total) for share in SHARES if first <= int(share * total) < budget} | {budget})
    factor = (budget / first) ** (1 / (CURVE_POINTS - 1))
    between = {min(budget, round(first * factor**i)) for i in range(CURVE_POINTS)}
    points = sorted(between | set(shown))
    return tuple(points), tuple(points.index(epochs) for epochs in shown)


@dataclass(frozen=True, slots=True)
class _Repetition:
    """One repetition: the recommended network at each checkpoint, and the search with the whole budget."""

    choices: tuple[int | None, ...]
    search: SimulatedSearch
    wall_s: float


def _repetition(rehearsal: Rehearsal, policy: Policy, checkpoints: Sequence[int], repetition: int) -> _Repetition:
    start = time.process_time()
    if policy.file is None:
        searches = [rehearsal.first_epoch(repetition, epochs) for epochs in checkpoints]
        choices, search = tuple(one.at(math.inf) for one in searches), searches[-1]
    else:
        search = rehearsal.simulate(policy, repetition)
        choices = tuple(search.at(epochs) for epochs in checkpoints)
    return _Repetition(choices, search, time.process_time() - start)


def _outcome(
    policy: Policy, repetitions: Sequence[_Repetition], judge: Judge, position: dict[int, int]
) -> PolicyOutcome:
    chosen = [[None if network is None else position[network] for network in one.choices] for one in repetitions]
    held_out = tuple(
        judge.held_out_regret(choices[-1], one.search.held_out)
        for choices, one in zip(chosen, repetitions, strict=True)
        if choices[-1] is not None and one.search.held_out is not None
    )
    return PolicyOutcome(
        name=policy.name,
        seeds=policy.seeds,
        regrets=tuple(tuple(judge.regret(network) for network in choices) for choices in chosen),
        searches=tuple(one.search for one in repetitions),
        held_out=held_out,
        wrong=sum(choices[-1] != judge.best for choices in chosen) / len(chosen),
        wall_s=sum(one.wall_s for one in repetitions),
    )


class _Simulations:
    """Runs repetitions in this process, or in several where processes can be forked."""

    def __init__(self, rehearsal: Rehearsal, policies: Sequence[Policy], processes: int) -> None:
        self._rehearsal, self._policies = rehearsal, policies
        self._pool: Executor | None = None
        if processes > 1 and "fork" in multiprocessing.get_all_start_methods():
            fork = multiprocessing.get_context("fork")
            self._pool = ProcessPoolExecutor(processes, fork, _share, (rehearsal, policies))

    def run(self, policy: int, checkpoints: Sequence[int], repetitions: Sequence[int]) -> Iterator[_Repetition]:
        """The results of a policy, in the order of the repetitions."""
        if self._pool is None:
            for repetition in repetitions:
                yield _repetition(self._rehearsal, self._policies[policy], checkpoints, repetition)
            return
        tasks = [self._pool.submit(_shared_repetition, policy, checkpoints, each) for each in repetitions]
        for task in tasks:
            yield task.result()

    def __enter__(self) -> "_Simulations":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


_SHARED: list[tuple[Rehearsal, Sequence[Policy]]] = []
"""In a forked process: the simulations' inputs, which are not sent to it with every task."""


def _share(rehearsal: Rehearsal, policies: Sequence[Policy]) -> None:
    _SHARED[:] = [(rehearsal, policies)]


def _shared_repetition(policy: int, checkpoints: Sequence[int], repetition: int) -> _Repetition:
    rehearsal, policies = _SHARED[0]
    return _repetition(rehearsal, policies[policy], checkpoints, repetition)
