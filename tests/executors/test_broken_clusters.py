"""Processes of the Ray cluster die or hang: the cluster is restarted within a time limit, or the study ends."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from polling import end_of, tiny_job, until

from harness.errors import ExecutorError
from harness.executors import ray_cluster, ray_executor
from harness.executors.base import WorkerRequest
from harness.executors.ray_executor import RayExecutor
from harness.training.run import Ended, Epoch, RunState, Started


@pytest.fixture
def executor() -> Iterator[RayExecutor]:
    started = RayExecutor(WorkerRequest(workers=1))
    yield started
    started.shutdown()


@pytest.mark.long
def test_a_cluster_whose_process_is_killed_is_restarted(executor: RayExecutor, tmp_path: Path) -> None:
    for process in ("raylet", "gcs_server"):
        job = tiny_job(tmp_path / process, epochs=40)
        executor.submit(job)
        until(executor, Epoch, job)
        (pid,) = (own_process.pid for kind, own_process in ray_cluster._own_processes() if kind == process)
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        records = until(executor, Ended, job)[job.run.id]
        assert end_of(records).state == RunState.LOST
        lost = f"the Ray cluster was lost: its process {process} has ended"
        assert lost in str(end_of(records).cause) or "gone" in str(records)
        executor.submit(job)
        again = until(executor, Ended, job)[job.run.id]
        assert time.monotonic() - start < 120
        assert end_of(again).state == RunState.COMPLETE
        assert isinstance(again[0], Started) and again[0].first_epoch > 1, "it is resumed from its checkpoint"


class _Silent:
    """A worker that never reports."""

    def __init__(self, *_: Any) -> None:
        self.task = self.pending_ref = None
        self.is_free = False

    def is_silent(self, limit_s: float) -> bool:
        return limit_s == ray_executor.REPORT_TIMEOUT_S

    def kill_here(self) -> None:
        """Nothing to kill."""

    def end(self) -> None:
        """Nothing to end."""


class _Quiet:
    """A cluster without a fault, or with the one that a test sets."""

    reason: str | None = None

    def fault(self) -> str | None:
        return self.reason

    def end(self) -> None:
        """Nothing to end."""


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the cluster, none of which is real."""
    done: list[str] = []
    monkeypatch.setattr(ray_cluster, "start_cluster", lambda: done.append("start"))
    monkeypatch.setattr(ray_cluster, "connect", lambda address: done.append(f"join {address}"))
    monkeypatch.setattr(ray_cluster, "disconnect", lambda **_: done.append("leave"))
    monkeypatch.setattr(ray_cluster, "allocate", lambda _: (1, 0.0))
    monkeypatch.setattr(ray_cluster, "ClusterMonitor", _Quiet)
    monkeypatch.setattr(ray_executor, "WorkerHandle", _Silent)
    monkeypatch.setattr(ray_executor, "actor_class", lambda *_: None)
    return done


def test_a_cluster_on_which_no_worker_reports_is_restarted_once_and_then_given_up(starts: list[str]) -> None:
    executor = RayExecutor(WorkerRequest())
    assert executor.poll(0.0) == [] and starts == ["start", "leave", "start"]
    with pytest.raises(ExecutorError, match="must work for as long as a study is trained") as ended:
        executor.poll(0.0)
    assert "no worker has reported within 50 s" in str(ended.value) and "same command again" in str(ended.value)
    assert 2 * ray_executor.REPORT_TIMEOUT_S + ray_cluster.DISCONNECT_TIMEOUT_S < 120


@pytest.mark.parametrize("reason", ["none of its nodes is alive", "it has not answered for 41 s", None])
def test_a_cluster_that_was_joined_is_not_restarted(
    starts: list[str], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = RayExecutor(WorkerRequest(address="auto"))
    monkeypatch.setattr(_Quiet, "reason", reason)
    with pytest.raises(ExecutorError, match="ray status") as ended:
        executor.poll(0.0)
    assert (reason or "no worker has reported") in str(ended.value) and starts == ["join auto"]


def test_the_monitor_reports_silence_and_dead_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    answers: list[Any] = [[{"Alive": False}, {"Alive": True, "Resources": {"CPU": 1.0}}], [{"Alive": False}]]

    def nodes() -> Any:
        if not answers:
            raise RuntimeError("no connection")
        return answers.pop(0)

    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(ray_cluster, "_own_processes", list)
    monkeypatch.setattr(ray_cluster, "PING_EVERY_S", 0.01)
    watch = ray_cluster.ClusterMonitor()
    assert watch.fault() is None
    while answers:
        time.sleep(0.01)
    time.sleep(0.05)
    assert watch.fault() == "none of its nodes is alive"
    watch._nodes = [{"CPU": 1.0}]
    assert (watch.capacity(1, 0.0), watch.capacity(2, 0.0)) == (1, 0)
    monkeypatch.setattr(ray_cluster, "SILENCE_TIMEOUT_S", 0.02)
    time.sleep(0.05)
    assert "it has not answered for" in str(watch.fault())
    watch.end()


def test_what_does_not_end_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[float] = []
    monkeypatch.setattr(ray_cluster, "_kill_own_processes", lambda: killed.append(time.monotonic()))
    monkeypatch.setattr(ray_cluster, "DISCONNECT_TIMEOUT_S", 0.05)
    with ray_cluster.shutdown_timeout():
        pass
    assert not killed
    with ray_cluster.shutdown_timeout():
        time.sleep(0.2)
    assert len(killed) == 1
    with ray_cluster.shutdown_timeout(by_force=True):
        assert len(killed) == 2
