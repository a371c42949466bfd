"""What only a machine with a GPU can show; nothing here runs without one."""

from pathlib import Path

import pytest
import torch
from tiny_runs import RECIPE, tiny_run, with_
from tiny_transfers import DETECTION, TRANSFER

from harness.executors import make_executor
from harness.executors.base import WorkerRequest
from harness.executors.run_job import run_job
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_trains_and_is_measured_on_the_gpu(precision: str, tmp_path: Path) -> None:
    run = tiny_run(recipe=with_(RECIPE, precision=precision), K=7, reparam=3)
    started, *middle, ended = list(run_job(Job(run, tmp_path / "study", gpus=1.0)))
    assert isinstance(started, Started) and started.device.startswith("cuda (")
    assert isinstance(ended, Ended) and ended.state == RunState.COMPLETE, ended
    assert len([record for record in middle if isinstance(record, Epoch)]) == 3
    assert {"latency_ms_p50", "peak_gpu_memory_bytes"} <= {r.name for r in middle if isinstance(r, Measured)}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(("transfer", "figure"), [(TRANSFER, "miou"), (DETECTION, "ap")])
def test_a_transfer_is_trained_and_measured_on_the_gpu(
    transfer: dict[str, object], figure: str, precision: str, tmp_path: Path
) -> None:
    run = tiny_run(
        recipe=with_(RECIPE, epochs=1, schedule={"warmup_epochs": 0}, transfer=transfer, precision=precision)
    )
    *middle, ended = list(run_job(Job(run, tmp_path / "study", gpus=1.0)))
    assert isinstance(ended, Ended) and ended.state == RunState.COMPLETE, ended
    assert figure in {record.name for record in middle if isinstance(record, Measured)}


def test_the_gpu_learns_what_the_cpu_learns(tmp_path: Path) -> None:
    """Not the same bits: the same first epoch within rounding that training amplifies."""
    losses = {}
    for gpus in (0.0, 1.0):
        job = Job(
            tiny_run(recipe=with_(RECIPE, epochs=1, schedule={"warmup_epochs": 0})), tmp_path / str(gpus), gpus=gpus
        )
        losses[gpus] = next(record.train_loss for record in run_job(job) if isinstance(record, Epoch))
    assert losses[1.0] == pytest.approx(losses[0.0], rel=1e-2)


def test_two_ray_workers_share_a_gpu(tmp_path: Path) -> None:
    executor = make_executor("ray", WorkerRequest(cpus=1, gpus=0.5, workers=2))
    try:
        for seed in (0, 1):
            executor.submit(Job(tiny_run(seed=seed), tmp_path / "study", gpus=0.5))
        records: list[Record] = []
        while sum(isinstance(record, Ended) for record in records) < 2:
            records += [record for _, record in executor.poll(timeout_s=1.0)]
    finally:
        executor.shutdown()
    assert [record.state for record in records if isinstance(record, Ended)] == [RunState.COMPLETE] * 2
    assert all(record.device.startswith("cuda (") for record in records if isinstance(record, Started))
