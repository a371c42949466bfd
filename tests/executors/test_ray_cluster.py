"""Ray clusters that are started, joined, refused and left."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import full_scale_cases
import pytest
from polling import FOREVER, end_of, tiny_job, train, until
from tiny_studies import RAY, called, harness

from harness.errors import ExecutorError
from harness.executors import make_executor, ray_cluster
from harness.executors.base import Executor, WorkerRequest
from harness.executors.ray_cluster import _workers_on
from harness.training.run import Ended, Epoch, RunState, Started

ENOUGH_S = 30.0
StartExecutor = Callable[[WorkerRequest], Executor]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine with a processor each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    started.add_node(num_cpus=1)
    yield started
    started.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def start_executor() -> Iterator[StartExecutor]:
    """Starts an executor on Ray, and shuts it down after the test."""
    with ExitStack() as at_end:

        def start(worker_request: WorkerRequest) -> Executor:
            executor = make_executor("ray", worker_request)
            at_end.callback(executor.shutdown)
            return executor

        yield start


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.long
def test_workers_of_this_machine_start_without_output_and_end_at_once_with_all_that_they_started(
    start_executor: StartExecutor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    executor = start_executor(WorkerRequest(workers=1))
    job = tiny_job(tmp_path, epochs=FOREVER)
    executor.submit(job)
    executor.submit(tiny_job(tmp_path, seed=1))
    started = until(executor, Epoch, job)[job.run.id][0]
    assert isinstance(started, Started)
    start = time.monotonic()
    executor.shutdown()
    executor.shutdown()
    assert time.monotonic() - start < 3
    deadline = time.monotonic() + ENOUGH_S
    while not has_ended(started.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert has_ended(started.pid)
    assert capfd.readouterr() == ("", "")


def test_a_machine_on_which_ray_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))  # sockets have short names
    with pytest.raises(ExecutorError, match=r"Ray must start on this machine \(OSError: .*RAY_TMPDIR"):
        make_executor("ray", WorkerRequest())


@pytest.mark.alone  # on a busy machine, Ray takes a node that does not answer in time for dead
def test_a_node_that_joins_is_used_and_one_that_dies_loses_its_run_while_the_others_continue(
    cluster: Any, start_executor: StartExecutor, tmp_path: Path
) -> None:
    import ray

    executor = start_executor(WorkerRequest(address=cluster.address))
    assert executor.slots == 2
    jobs = [tiny_job(tmp_path, seed=seed, epochs=FOREVER) for seed in range(3)]
    for job in jobs:
        executor.submit(job)
    until(executor, Epoch, *jobs[:2])
    third = cluster.add_node(num_cpus=1)
    start = time.monotonic()
    until(executor, Epoch, jobs[2])
    assert executor.slots == 3 and time.monotonic() - start < 60
    driver_node = ray.get_runtime_context().get_node_id()
    doomed = next(node for node in (third, *cluster.worker_nodes) if node.node_id != driver_node)
    cluster.remove_node(doomed, allow_graceful=False)
    lost: list[str] = []
    deadline = time.monotonic() + ENOUGH_S
    while not lost and time.monotonic() < deadline:
        ends = [(run_id, record) for run_id, record in executor.poll(1.0) if isinstance(record, Ended)]
        lost = [run_id for run_id, record in ends if record.state == RunState.LOST]
        assert len(ends) == len(lost)
    assert len(lost) == 1
    others = [job for job in jobs if job.run.id not in lost]
    for job in others:
        executor.stop(job.run.id)
    assert {end_of(records).state for records in until(executor, Ended, *others).values()} == {RunState.STOPPED}
    assert end_of(train(executor, tiny_job(tmp_path, seed=9))).state == RunState.COMPLETE
    while sum(node["Alive"] for node in ray.nodes()) > 2:  # type: ignore[no-untyped-call]
        assert time.monotonic() < deadline, "the cluster must notice that a node is gone"
        time.sleep(0.2)
    while executor.slots > 2:
        assert time.monotonic() < deadline + ENOUGH_S and executor.poll(0.2) == []


@pytest.mark.long
def test_a_cluster_that_was_joined_is_not_stopped_and_a_missing_gpu_is_replaced_by_the_processor(
    cluster: Any, start_executor: StartExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    executor = start_executor(WorkerRequest(workers=1, gpus=0.25, address="auto"))
    started, *_, ended = train(executor, replace(tiny_job(tmp_path), gpus=0.25))
    executor.shutdown()
    assert isinstance(started, Started) and started.device.startswith("cpu")
    assert isinstance(ended, Ended) and ended.state == RunState.COMPLETE
    ray_cluster.connect(cluster.address)
    try:
        assert ray_cluster.allocate(WorkerRequest()) == (2, 0.0)
    finally:
        ray_cluster.disconnect()


@pytest.mark.long
def test_more_workers_than_fit_on_the_cluster_are_refused_and_the_cluster_is_left(cluster: Any) -> None:
    import ray

    with pytest.raises(ExecutorError, match=r"at most 2 workers with 1 processor each can run, but got 3 \(--work"):
        make_executor("ray", WorkerRequest(workers=3, address=cluster.address))
    with pytest.raises(ExecutorError, match=r"the largest has 1 processors and 0 GPUs, but got '2 processors'"):
        make_executor("ray", WorkerRequest(cpus=2, address=cluster.address))
    assert not ray.is_initialized()


@pytest.mark.long
def test_a_node_with_another_version_of_the_harness_is_refused(
    cluster: Any, start_executor: StartExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.executors.ray_executor.__version__", "0.0.1")
    executor = start_executor(WorkerRequest(workers=1, address=cluster.address))
    with pytest.raises(ExecutorError, match=r"must have version 0\.0\.1 of the harness, but got '\d"):
        executor.poll(60.0)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Train reads settings of its own that Ray deprecates
def test_two_workers_train_together_resume_bitwise_on_two_nodes_and_one_worker_resumes(
    cluster: Any, tmp_path: Path
) -> None:
    full_scale_cases.write(tmp_path)
    command = ("train", "net.yaml", "--recipe", "recipe.yaml")
    result = harness(*command, "--workers", "2", cwd=tmp_path, **RAY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 workers with 8 images at once" in result.stdout and "epoch 2/2" in result.stdout
    folder = full_scale_cases.folder_of(tmp_path / "results")
    lines = epochs_in(folder)
    assert [(line["epoch"], line["workers"]) for line in lines] == [(1, 2), (2, 2)]
    assert not {"live.jsonl", "stop", "ray"} & {path.name for path in folder.iterdir()}
    evaluation = json.loads(called("evaluate", folder, "--which", "last", "--json", cwd=tmp_path).stdout)
    loss = evaluation["forms"]["training"]["loss"]
    assert loss == pytest.approx(lines[-1]["val"]["loss"], rel=1e-5), "all workers judge with the kept statistics"
    max((folder / "checkpoints").glob("*.pt")).unlink()
    again = full_scale_cases.train(tmp_path, "--workers", "2", "--ray-address", cluster.address)
    assert again.returncode == 0 and "resuming in epoch 2 after 0 steps" in again.stdout, again.stderr
    resumed = epochs_in(folder)[-1]
    assert resumed["workers"] == 2
    assert [resumed[key] for key in ("train_loss", "val", "ema")] == [
        lines[-1][key] for key in ("train_loss", "val", "ema")
    ]
    max((folder / "checkpoints").glob("*.pt")).unlink()
    alone = full_scale_cases.train(tmp_path, "--workers", "1")
    assert alone.returncode == 0 and "warning: there were 2 workers, and now there are 1" in alone.stdout
    assert [(line["epoch"], line["workers"]) for line in epochs_in(folder)] == [(1, 2), (2, 1)]


def epochs_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


ASKS_FOR_NONE = """
import os
import ray
from ray.cluster_utils import Cluster
from harness.executors import ray_cluster

os.environ["RAY_AUTH_MODE"] = "disabled"
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
del os.environ["RAY_AUTH_MODE"]
ray_cluster.connect(cluster.address)

@ray.remote
class Actor:
    def answer(self):
        return 42

print("answer:", ray.get(Actor.remote().answer.remote(), timeout=30))
ray_cluster.disconnect()
cluster.shutdown()
"""


@pytest.mark.long
def test_a_token_is_not_shown_to_a_cluster_that_asks_for_none(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    environment |= {"HOME": str(tmp_path), "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}  # of another cluster
    command = [sys.executable, "-c", ASKS_FOR_NONE]  # Ray reads its settings once a process
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "answer: 42" in result.stdout, result.stderr


@pytest.mark.long
def test_a_cluster_with_another_version_of_ray_is_refused(cluster: Any) -> None:
    key, space = b"CLUSTER_METADATA", b"cluster"
    client = cluster.head_node.get_gcs_client()
    truth = client.internal_kv_get(key, namespace=space)
    client.internal_kv_put(key, json.dumps(json.loads(truth) | {"ray_version": "1.0"}).encode(), True, namespace=space)
    try:
        with pytest.raises(ExecutorError, match=r"must run what this process runs \(Ray: .*but got 'Ray: 1\.0, Python"):
            make_executor("ray", WorkerRequest(address=cluster.address))
    finally:
        client.internal_kv_put(key, truth, True, namespace=space)


@pytest.mark.parametrize("address", ["nowhere", "ray://127.0.0.1:10001", "127.0.0.1:port", ":6379"])
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ExecutorError, match="must be `host:port` or `auto`"):
        make_executor("ray", WorkerRequest(address=address))


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_address_without_a_server_is_refused_within_seconds(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(ExecutorError, match=rf"of a Ray cluster .* but got '{host}:{port}' \(.*ray start"):
        make_executor("ray", WorkerRequest(address=f"{host}:{port}"))
    assert time.monotonic() - start < ENOUGH_S


@pytest.mark.long
def test_an_address_of_another_server_is_refused_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "CONNECT_TIMEOUT_S", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ExecutorError, match=rf"but got '{address}' \(no answer within 4 s\)"):
            make_executor("ray", WorkerRequest(address=address))


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "room"),
    [
        ({"CPU": 16, "GPU": 1}, 1, 0.25, 4),
        ({"CPU": 3, "GPU": 1}, 1, 0.25, 3),
        ({"CPU": 16, "GPU": 2}, 1, 0.3, 6),
        ({"CPU": 16, "GPU": 4}, 2, 2.0, 2),
        ({"CPU": 16}, 1, 0.25, 0),
        ({"CPU": 16, "GPU": 8}, 3, 0.0, 5),
        ({}, 1, 0.0, 0),
    ],
)
def test_workers_share_processors_and_gpus_but_never_two_gpus(
    node: dict[str, float], cpus: int, gpus: float, room: int
) -> None:
    assert _workers_on(node, cpus, gpus) == room
