"""The executor in simulated time: who ends when, what is computed, and what a stopped run costs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tiny_studies import started

from harness.config.recipes.proxy import ProxyRecipe
from harness.executors.simulated import BudgetUsed, SimulatedExecutor
from harness.models.spec.presets import preset
from harness.training.run import Ended, Epoch, Job, Record, Run, RunState


def job(seed: int) -> Job:
    return Job(Run(preset("replknet_nano"), ProxyRecipe(), seed), Path())


def lasting(seconds: Mapping[int, list[float]]) -> SimulatedExecutor:
    """An executor whose run with a seed takes these seconds for its epochs."""

    def script(job: Job) -> Iterator[Record]:
        yield started()
        for n, wall_s in enumerate(seconds[job.run.seed], start=1):
            yield Epoch(n, train_loss=1, val_loss=1, top1=50, lr=0.1, wall_s=wall_s, images_per_s=1)
        yield Ended(RunState.COMPLETE, wall_s=sum(seconds[job.run.seed]))

    return SimulatedExecutor(script, slots=4)


def played(executor: SimulatedExecutor, seeds: list[int]) -> list[tuple[float, str]]:
    """The time and the name of every epoch, and of every end, until nothing runs."""
    names = {job(seed).run.id: f"{seed}" for seed in seeds}
    for seed in seeds:
        executor.submit(job(seed))
    log = []
    while records := executor.poll(timeout_s=0):
        for run_id, record in records:
            if isinstance(record, Epoch):
                log.append((executor.clock_s, f"{names[run_id]}.{record.epoch}"))
            elif isinstance(record, Ended):
                log.append((executor.clock_s, f"{names[run_id]} {record.state}"))
    return log


def test_four_workers_end_their_runs_in_the_order_of_a_worked_example() -> None:
    # Worker by worker: run 0 ends at 6, run 1 at 2, run 2 at 7, run 3 at 4. Runs 4 and 5 start when the first two end,
    # at 2 and at 4, and end at 2 + 3 = 5 and 4 + 2 = 6; at 6, run 0 was scheduled first.
    executor = lasting({0: [3, 3], 1: [1, 1], 2: [1, 6], 3: [2, 2], 4: [1, 2], 5: [1, 1]})
    assert played(executor, [0, 1, 2, 3, 4, 5]) == [
        *[(1, "1.1"), (1, "2.1"), (2, "3.1"), (2, "1.2"), (2, "1 complete")],
        *[(3, "0.1"), (3, "4.1"), (4, "3.2"), (4, "3 complete"), (5, "4.2"), (5, "4 complete")],
        *[(5, "5.1"), (6, "0.2"), (6, "0 complete"), (6, "5.2"), (6, "5 complete"), (7, "2.2"), (7, "2 complete")],
    ]
    assert executor.epochs == 12


def test_a_stopped_run_costs_the_part_of_its_epoch_and_frees_its_worker() -> None:
    executor = lasting({0: [4, 4], 1: [1, 1], 2: [2], 3: [2], 4: [5]})
    for seed in range(5):
        executor.submit(job(seed))
    while executor.clock_s < 1:
        executor.poll(timeout_s=0)
    executor.stop(job(0).run.id)  # a quarter of its first epoch is computed
    ended = executor.poll(timeout_s=0)
    assert ended == [(job(0).run.id, Ended(RunState.STOPPED, 0.0, "stopped by the driver"))]
    assert executor.clock_s == 1 and executor.epochs == pytest.approx(1.25)
    while executor.poll(timeout_s=0):
        pass
    assert executor.clock_s == 6  # run 4 has the free worker, from 1 on


def test_stopping_a_run_that_waits_or_has_ended_loses_nothing() -> None:
    executor = lasting({seed: [1] for seed in range(5)})
    for seed in range(5):
        executor.submit(job(seed))
    executor.poll(timeout_s=0)
    executor.stop(job(4).run.id)
    states = {run_id: record.state for run_id, record in _all(executor) if isinstance(record, Ended)}
    assert states.pop(job(4).run.id) == RunState.STOPPED and set(states.values()) == {RunState.COMPLETE}
    executor.stop(job(0).run.id)
    assert executor.poll(timeout_s=0) == [] and executor.epochs == 4


def test_the_budget_ends_a_simulation_once_and_then_runs_can_be_stopped() -> None:
    executor = lasting({0: [1, 1, 1]})
    executor.budget = 2
    executor.submit(job(0))
    while executor.epochs < 2:
        executor.poll(timeout_s=0)
    with pytest.raises(BudgetUsed):
        executor.poll(timeout_s=0)
    executor.stop(job(0).run.id)
    assert [record.state for _, record in _all(executor) if isinstance(record, Ended)] == [RunState.STOPPED]
    assert executor.epochs == 2


def _all(executor: SimulatedExecutor) -> Iterator[tuple[str, Record]]:
    while records := executor.poll(timeout_s=0):
        yield from records
