"""Which metrics describe the machine: each measure's names are classified, and only these are measured again."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_run, tiny_spec, with_
from tiny_transfers import DETECTION, TRANSFER

from harness.config.measures import is_of_machine
from harness.data import Dataset, load
from harness.executors.run_job import run_job
from harness.measures import ALWAYS_MEASURES, MACHINE_MEASURES, ON_DEMAND_MEASURES, TRAINING_MEASURES
from harness.measures.base import TrainedRun
from harness.models.build import build
from harness.training.run import Ended, Job, Measured, RunState, Started

RECIPE = with_(rendering="textured", measures=list(ON_DEMAND_MEASURES), epochs=2)
MEASURES = ALWAYS_MEASURES | ON_DEMAND_MEASURES


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(RECIPE, tmp_path_factory.mktemp("data"), 0)


@pytest.mark.parametrize("measure", MEASURES)
def test_metrics_of_the_machine_are_identified_by_their_names(dataset: Dataset, measure: str) -> None:
    metrics = dict(MEASURES[measure](TrainedRun(build(tiny_spec(), seed=0), dataset, RECIPE, torch.device("cpu"))))
    of_machine = {name for name in metrics if is_of_machine(name)}
    assert metrics
    expected = set(metrics) - {"train_step_gradients_finite"} if measure in MACHINE_MEASURES else set()
    assert of_machine == expected


def test_the_table_names_measures() -> None:
    assert set(TRAINING_MEASURES) <= set(MACHINE_MEASURES) <= set(MEASURES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, False) for name in ("top1", "val_loss", "train_loss", "params", "macs", "miou", "ap50", "ap_small")),
        *((name, False) for name in ("iou_s", "ap_ms", "erf_merged_r20_pct", "train_step_gradients_finite")),
        *((name, True) for name in ("transfer_s", "wall_s", "latency_ms_low", "latency_n", "images_per_s", "energy_j")),
        *((name, True) for name in ("peak_gpu_memory_bytes", "load_ms", "throughput_images_per_s_batch32")),
    ],
)
def test_other_names(name: str, expected: bool) -> None:
    assert is_of_machine(name) == expected


@pytest.mark.parametrize("transfer", [TRANSFER, DETECTION], ids=["masks", "boxes"])
def test_of_a_transfer_only_its_duration_describes_the_machine(tmp_path: Path, transfer: dict[str, object]) -> None:
    recipe = with_(transfer=transfer, epochs=2, train_size=16, val_size=8)
    records = run_job(Job(tiny_run(recipe=recipe), tmp_path / "s"))
    names = {record.name for record in records if isinstance(record, Measured)}
    machine = {name for name in names if is_of_machine(name)}
    others = {name for name in machine if not name.startswith("latency_ms_")}
    assert others == {"transfer_s", "peak_memory_bytes"} and "latency_ms_p50" in machine
    assert names - machine


def test_times_are_measured_again_on_stored_weights(tmp_path: Path) -> None:
    recipe = with_(rendering="textured", measures=["merge_error", "train_step"], epochs=2)
    job = Job(tiny_run(recipe=recipe), tmp_path / "s")
    first = {record.name for record in run_job(job) if isinstance(record, Measured)}
    before = job.checkpoint.read_bytes()
    started, *measured, ended = run_job(dataclasses.replace(job, only_times=True))
    assert isinstance(started, Started) and isinstance(ended, Ended) and ended.state == RunState.COMPLETE
    assert started.environment is not None
    assert all(isinstance(record, Measured) for record in measured)
    names = {record.name for record in measured if isinstance(record, Measured)}
    assert names == {name for name in first if is_of_machine(name)} - {"peak_memory_bytes"}
    assert job.checkpoint.read_bytes() == before


def test_times_of_an_untrained_network_need_no_stored_weights(tmp_path: Path) -> None:
    recipe = with_(epochs=0, schedule={"warmup_epochs": 0})
    *_, ended = run_job(Job(tiny_run(recipe=recipe), tmp_path / "s", only_times=True))
    assert isinstance(ended, Ended) and ended.state == RunState.COMPLETE


def test_without_the_weights_of_the_last_epoch_nothing_is_measured(tmp_path: Path) -> None:
    job = Job(tiny_run(), tmp_path / "s")
    seen: list[object] = []
    for record in run_job(job, lambda: len(seen) >= 2):
        seen.append(record)  # noqa: PERF402 (its length is asked meanwhile)
    for unmeasured in (job, Job(tiny_run(seed=1), tmp_path / "s")):
        _, ended = run_job(dataclasses.replace(unmeasured, only_times=True))
        assert isinstance(ended, Ended) and ended.state == RunState.FAILED
        assert ended.cause is not None and ended.cause.startswith("no weights of the last epoch are kept")
