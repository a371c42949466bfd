"""Ctrl-C and SIGTERM: no record of a worker is lost, whenever they arrive."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tiny_studies import Played, epoch, started, well

from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.recipes.proxy import ProxyRecipe
from harness.executors.interrupt import Interrupt, InterruptibleExecutor
from harness.executors.scripted import ScriptedExecutor
from harness.models.spec.network import NetworkSpec
from harness.search.events import EpochEnded
from harness.search.session import open_for_driving
from harness.training.run import Job, Record, Run, RunState

JOB = Job(Run(NetworkSpec.from_mapping({"B": 1, "C": 8, "K": 3}), ProxyRecipe(), 0), Path())


def endless(_: Job) -> Iterator[Record]:
    yield started()
    n = 0
    while True:
        n += 1
        yield epoch(n, float(n))


def kill(number: signal.Signals) -> None:
    """Send this process a signal, and let Python take it."""
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_at_once_while_no_worker_is_busy(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), Interrupt():
        kill(number)
    assert signal.getsignal(number) == before


def test_a_signal_while_workers_are_busy_is_raised_by_the_next_poll_which_keeps_its_records() -> None:
    notes = []
    with Interrupt() as interrupt:
        executor = InterruptibleExecutor(ScriptedExecutor(endless), interrupt, lambda: notes.append("stopping"))
        executor.submit(JOB)
        assert executor.poll(0.0) == [(JOB.run.id, started())]
        kill(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            executor.poll(0.0)
        executor.stop(JOB.run.id)
        records = [record for _ in range(2) for _, record in executor.poll(0.0)]
    assert notes == ["stopping"]
    assert records[0] == epoch(1, 1.0)
    assert getattr(records[-1], "state", None) == RunState.STOPPED


def test_an_executor_that_trains_in_its_poll_is_interrupted_there() -> None:
    def training(_: Job) -> Iterator[Record]:
        yield started()
        kill(signal.SIGTERM)
        yield epoch(1, 1.0)

    with Interrupt() as interrupt:
        notes: list[str] = []
        inner = ScriptedExecutor(training)
        executor = InterruptibleExecutor(inner, interrupt, lambda: notes.append("stopping"), is_here=True)
        executor.submit(JOB)
        executor.poll(0.0)
        with pytest.raises(KeyboardInterrupt):
            executor.poll(0.0)
    assert notes == ["stopping"]


def test_in_a_program_only_ctrl_c_is_handled_and_the_second_is_raised_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt(is_command=False) as interrupt:
        assert signal.getsignal(signal.SIGTERM) is before
        executor = InterruptibleExecutor(ScriptedExecutor(endless), interrupt, lambda: None)
        executor.submit(JOB)
        kill(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            kill(signal.SIGINT)


@pytest.mark.parametrize("at", [7, *(pytest.param(at, marks=pytest.mark.long) for at in (1, 2, 20, 33))])
def test_a_study_that_is_interrupted_anywhere_keeps_every_epoch(tmp_path: Path, at: int) -> None:
    study = Played(tmp_path)
    shown: list[tuple[str, int]] = []
    with Interrupt() as interrupt:

        def start() -> InterruptibleExecutor:
            return InterruptibleExecutor(ScriptedExecutor(well, slots=2), interrupt, lambda: None)

        with (
            pytest.raises(KeyboardInterrupt),
            open_for_driving(study.file, open_space(study.file), study.workspace, start) as driven,
            closing(driven.driver.events()) as events,
        ):
            for n, event in enumerate(events):
                if isinstance(event, EpochEnded):
                    shown.append((event.run_id, event.epoch.epoch))
                if n == at:
                    kill(signal.SIGINT)
    with open_study_reader(study.path, study.workspace) as reader:
        kept = {
            (run_id, e.epoch)
            for run_id, curve in reader.store.epochs_of_runs({run for run, _ in shown}).items()
            for e in curve
        }
        assert set(shown) <= kept
        assert all(trial.state.name in ("WAITING", "COMPLETE") for trial in reader.trials)
        assert not any(row.state == RunState.RUNNING for row in reader.store.runs(run for run, _ in shown).values())
    assert len(study.answer().complete) == 5
