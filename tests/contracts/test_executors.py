"""The contract of every executor; and that those with workers survive what happens to these."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from polling import FOREVER, PATIENCE_S, end_of, tiny_job, train, until

from harness.errors import ExecutorError
from harness.executors import EXECUTORS, make_executor
from harness.executors.base import Executor, WorkerRequest
from harness.executors.ray_cluster import allocate
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

WORKERS = {"ray": 2, "tune": 2}
BOTH = pytest.mark.parametrize("executor", WORKERS, indirect=True)
RAY = pytest.mark.parametrize("executor", ["ray"], indirect=True)


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """One at a time, since a process can use one Ray cluster."""
    executor = make_executor(request.param, WorkerRequest(workers=WORKERS.get(request.param, 1)))
    yield executor
    executor.shutdown()


@pytest.fixture
def inline() -> Executor:
    return make_executor("inline", WorkerRequest())


def curve(records: list[Record]) -> list[tuple[float, ...]]:
    return [(r.epoch, r.train_loss, r.val_loss, r.top1, r.lr) for r in records if isinstance(r, Epoch)]


def start_of(records: list[Record]) -> Started:
    assert isinstance(records[0], Started)
    return records[0]


def test_a_run_yields_its_start_then_its_epochs_then_its_measures_then_its_end(
    executor: Executor, tmp_path: Path
) -> None:
    records = train(executor, tiny_job(tmp_path))
    measures = [record for record in records if isinstance(record, Measured)]
    assert len(measures) > 0
    assert [type(record) for record in records] == [Started, Epoch, Epoch, Epoch, *[Measured] * len(measures), Ended]
    assert [record.epoch for record in records if isinstance(record, Epoch)] == [1, 2, 3]
    assert (start_of(records).epochs, start_of(records).first_epoch, start_of(records).threads) == (3, 1, 1)
    assert (end_of(records).state, end_of(records).cause) == (RunState.COMPLETE, None)


def test_a_run_gives_the_same_numbers_on_every_executor(executor: Executor, inline: Executor, tmp_path: Path) -> None:
    ours, inlines = [
        curve(train(each, tiny_job(tmp_path / name, seed=3))) for name, each in (("a", executor), ("b", inline))
    ]
    assert len(ours) == 3 and ours == inlines


@pytest.mark.long
def test_a_stopped_run_is_resumed_from_its_checkpoint_to_the_numbers_of_an_undisturbed_one(
    executor: Executor, tmp_path: Path
) -> None:
    undisturbed = train(executor, tiny_job(tmp_path / "undisturbed", epochs=8))
    job = tiny_job(tmp_path / "stopped", epochs=8)
    executor.submit(job)
    before = until(executor, Epoch, job)[job.run.id]
    executor.stop(job.run.id)
    before += until(executor, Ended, job)[job.run.id]
    after = train(executor, job)
    assert end_of(before).state == RunState.STOPPED
    assert start_of(after).first_epoch == len(curve(before)) + 1 > 1
    assert end_of(after).state == RunState.COMPLETE
    assert curve(after) == curve(undisturbed), "the records of the checkpoint, then the others"


def test_a_stop_reaches_a_run_that_waits_and_no_other(executor: Executor, tmp_path: Path) -> None:
    *busy, waiting = [tiny_job(tmp_path, seed=seed, epochs=FOREVER) for seed in range(executor.slots + 1)]
    for job in (*busy, waiting):
        executor.submit(job)
    executor.stop(waiting.run.id)
    records_by_run = until(executor, Ended, waiting)
    assert end_of(records_by_run[waiting.run.id]).state == RunState.STOPPED
    assert not waiting.checkpoint.exists()
    for job in busy:
        executor.stop(job.run.id)
        assert not any(isinstance(record, Ended) for record in records_by_run.get(job.run.id, []))
    ended = until(executor, Ended, *busy)
    assert {end_of(ended[job.run.id]).state for job in busy} == {RunState.STOPPED}


def test_a_stop_of_a_run_that_has_ended_does_not_reach_its_next_life(executor: Executor, tmp_path: Path) -> None:
    job = tiny_job(tmp_path)
    train(executor, job)
    executor.stop(job.run.id)
    assert end_of(train(executor, job)).state == RunState.COMPLETE


@pytest.mark.long
def test_more_jobs_than_workers_all_end_and_none_twice(executor: Executor, tmp_path: Path) -> None:
    jobs = [tiny_job(tmp_path, seed=seed, epochs=2) for seed in range(5)]
    for job in jobs:
        executor.submit(job)
    records_by_run = until(executor, Ended, *jobs)
    assert set(records_by_run) == {job.run.id for job in jobs}
    assert {end_of(records).state for records in records_by_run.values()} == {RunState.COMPLETE}
    assert executor.poll(0.2) == []


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"optimizer": {"lr": 1e12}, "schedule": {"name": "constant", "warmup_epochs": 0}}, RunState.DIVERGED),
        ({"minutes": 1e-9}, RunState.TIMED_OUT),
        ({"precision": "float16"}, RunState.FAILED),
    ],
    ids=lambda value: str(value) if isinstance(value, RunState) else "",
)
def test_a_run_that_cannot_be_trained_ends_with_its_cause(
    changes: dict[str, object], state: RunState, executor: Executor, tmp_path: Path
) -> None:
    job = tiny_job(tmp_path, **changes)  # type: ignore[arg-type]
    ended = end_of(train(executor, job))
    assert ended.state == state
    assert ended.cause is not None and len(ended.cause.splitlines()) == 1
    assert "Traceback" in job.log.read_text()


def test_a_run_whose_log_cannot_be_written_ends_too(executor: Executor, tmp_path: Path) -> None:
    job = tiny_job(tmp_path, precision="float16")
    job.folder.mkdir()
    job.log.parent.write_text("in the way")
    ended = end_of(train(executor, job))
    assert ended.state == RunState.FAILED
    assert ended.cause is not None and ended.cause.startswith("FileExistsError: ")


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_a_share_of_a_gpu_where_there_is_none_is_replaced_by_the_processor(executor: Executor, tmp_path: Path) -> None:
    records = train(executor, replace(tiny_job(tmp_path), gpus=0.25))
    assert start_of(records).device.startswith("cpu")
    assert end_of(records).state == RunState.COMPLETE


@pytest.mark.long
def test_records_arrive_during_the_run(executor: Executor, tmp_path: Path) -> None:
    job = tiny_job(tmp_path, epochs=20)
    executor.submit(job)
    arrivals: dict[int, float] = {}
    deadline = time.monotonic() + PATIENCE_S
    while 20 not in arrivals and time.monotonic() < deadline:
        arrivals |= {r.epoch: time.monotonic() for _, r in executor.poll(10.0) if isinstance(r, Epoch)}
    until(executor, Ended, job)
    gaps = [arrivals[epoch] - arrivals[epoch - 1] for epoch in range(2, 21)]
    assert sum(gap > 0 for gap in gaps) > 15


def test_an_idle_executor_waits_until_the_timeout(executor: Executor) -> None:
    for timeout_s in (0.0, 0.3):
        start = time.monotonic()
        assert executor.poll(timeout_s) == []
        assert timeout_s <= time.monotonic() - start < timeout_s + 0.5


def test_an_unknown_executor_is_named_with_the_known_ones() -> None:
    with pytest.raises(ExecutorError, match=r"but got 'rya'\. Executors: ray, tune, inline\."):
        make_executor("rya", WorkerRequest())


@pytest.mark.parametrize("request_", [WorkerRequest(workers=2), WorkerRequest(address="auto")])
def test_inline_refuses_what_it_cannot_give(request_: WorkerRequest) -> None:
    with pytest.raises(ExecutorError, match=r"`inline` trains .*--executor ray"):
        make_executor("inline", request_)


def test_inline_is_interrupted_within_a_step_and_resumed_later(
    inline: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    job = tiny_job(tmp_path)
    inline.submit(job)
    until(inline, Epoch, job)
    with monkeypatch.context() as patched:
        patched.setattr("harness.training.fit.proxy_learning_rate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            inline.poll(1.0)
    assert end_of([record for _, record in inline.poll(1.0)]).state == RunState.STOPPED
    assert start_of(train(inline, job)).first_epoch == 2


# Executors with workers


@BOTH
def test_two_workers_train_at_the_same_time(executor: Executor, tmp_path: Path) -> None:
    jobs = [tiny_job(tmp_path, seed=seed, epochs=FOREVER) for seed in range(2)]
    for job in jobs:
        executor.submit(job)
    records_by_run = until(executor, Epoch, *jobs)
    assert len({start_of(records).pid for records in records_by_run.values()} | {os.getpid()}) == 3
    _stop(executor, *jobs)


@BOTH
@pytest.mark.long
def test_a_run_whose_worker_is_killed_is_lost_and_the_others_continue(
    executor: Executor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [tiny_job(tmp_path, seed=seed, epochs=FOREVER) for seed in range(2)]
    for job in jobs:
        executor.submit(job)
    records_by_run = until(executor, Epoch, *jobs)
    os.kill(start_of(records_by_run[jobs[0].run.id]).pid, signal.SIGKILL)
    lost = end_of(until(executor, Ended, jobs[0])[jobs[0].run.id])
    assert lost.state == RunState.LOST and lost.wall_s > 0
    assert lost.cause == "the worker is gone: its worker process has died"
    assert start_of(train(executor, tiny_job(tmp_path, seed=2))).pid not in [
        start_of(r).pid for r in records_by_run.values()
    ]
    _stop(executor, *jobs[1:])
    assert capfd.readouterr() == ("", "")


@RAY
@pytest.mark.long
def test_a_run_given_to_a_worker_that_is_already_dead_is_given_to_another(executor: Executor, tmp_path: Path) -> None:
    jobs = [tiny_job(tmp_path, seed=seed, epochs=FOREVER) for seed in range(2)]
    for job in jobs:
        executor.submit(job)
    pids = {start_of(records).pid for records in until(executor, Started, *jobs).values()}
    _stop(executor, *jobs)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert end_of(train(executor, tiny_job(tmp_path, seed=2))).state == RunState.COMPLETE


class Deadly(type(Path())):  # type: ignore[misc]
    """A folder that ends the process that it is sent to."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (7,)


@RAY
@pytest.mark.long
def test_a_run_that_no_worker_survives_is_lost_before_it_begins(executor: Executor, tmp_path: Path) -> None:
    job = replace(tiny_job(tmp_path), folder=Deadly(tmp_path))
    (lost,) = train(executor, job)
    assert isinstance(lost, Ended) and lost.state == RunState.LOST
    assert lost.cause is not None and lost.cause.startswith("the worker is gone: ")
    assert end_of(train(executor, tiny_job(tmp_path, seed=1))).state == RunState.COMPLETE


@BOTH
@pytest.mark.long
def test_a_run_that_hangs_is_timed_out_and_its_process_ended(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("ray_executor", "tune_executor"):
        monkeypatch.setattr(f"harness.executors.{module}.STOP_GRACE_S", 1.0)
    job = tiny_job(tmp_path, epochs=FOREVER, minutes=0.05)
    executor.submit(job)
    pid = start_of(until(executor, Started, job)[job.run.id]).pid
    os.kill(pid, signal.SIGSTOP)
    ended = end_of(until(executor, Ended, job)[job.run.id])
    assert ended.state == RunState.TIMED_OUT
    assert ended.cause == "the run did not end at its limit of 0.05 minutes"
    assert end_of(train(executor, tiny_job(tmp_path))).state == RunState.COMPLETE
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


@BOTH
def test_more_workers_than_fit_are_refused_with_both_numbers(executor: Executor) -> None:
    assert executor.slots == 2
    with pytest.raises(ExecutorError, match=r"at most \d+ workers? with 1 processor each can run, but got 4096"):
        allocate(WorkerRequest(workers=4096))
    with pytest.raises(ExecutorError, match=r"must fit on one machine, .* but got '4096 processors' \(resources\)"):
        allocate(WorkerRequest(cpus=4096))


@RAY
@pytest.mark.usefixtures("executor")
def test_no_more_workers_are_allocated_than_there_are_runs() -> None:
    assert allocate(WorkerRequest(runs=1)) == (1, 0.0)
    assert allocate(WorkerRequest(workers=2, runs=1)) == (1, 0.0)
    assert allocate(WorkerRequest(workers=2, runs=9)) == (2, 0.0)


def test_all_output_of_a_worker_goes_to_a_file_which_is_kept_if_there_is_any(tmp_path: Path) -> None:
    code = """
import os, pathlib
from harness.executors.ray_worker import output_to
with output_to(pathlib.Path("logs/a.log")):
    print("from Python", flush=True)
    os.system("echo from elsewhere; echo and its errors >&2")
with output_to(pathlib.Path("logs/b.log")):
    pass
print("back again")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("back again\n", "")
    assert (tmp_path / "logs/a.log").read_text() == "from Python\nfrom elsewhere\nand its errors\n"
    assert not (tmp_path / "logs/b.log").exists()


def _stop(executor: Executor, *jobs: Job) -> None:
    for job in jobs:
        executor.stop(job.run.id)
    until(executor, Ended, *jobs)
