"""A run as a worker executes it: its records in order, one `Ended` whatever happens, and what every measure yields."""

from pathlib import Path

import pytest
import torch
from tiny_runs import RECIPE, tiny_run, with_

from harness.data import load
from harness.executors.run_job import run_job
from harness.measures import ALWAYS_MEASURES
from harness.measures.base import TrainedRun
from harness.models.build import build
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState, Started


def job(folder: Path, **changes: object) -> Job:
    run = changes.pop("run", tiny_run())
    return Job(run, folder / "study", **changes)  # type: ignore[arg-type]


def test_records_come_in_order_and_state_where_and_with_what(tmp_path: Path) -> None:
    started, *middle, ended = list(run_job(job(tmp_path)))
    assert isinstance(started, Started) and isinstance(ended, Ended)
    assert (started.first_epoch, started.epochs, started.threads) == (1, 3, 1)
    assert started.versions["torch"] == torch.__version__
    assert [record.epoch for record in middle if isinstance(record, Epoch)] == [1, 2, 3]
    assert all(isinstance(record, Measured) for record in middle[3:])
    assert ended.state == RunState.COMPLETE and ended.cause is None and ended.wall_s > 0


def test_a_stopped_run_resumes_from_its_last_epoch(tmp_path: Path) -> None:
    records: list[Record] = []
    for record in run_job(job(tmp_path), lambda: len(records) >= 3):  # Started and two epochs
        records.append(record)  # noqa: PERF402 (its length is asked meanwhile)
    assert records[-1] == Ended(RunState.STOPPED, wall_s=records[-1].wall_s, cause="stopped by the driver")  # type: ignore[union-attr]
    again = list(run_job(job(tmp_path)))
    assert isinstance(again[0], Started) and again[0].first_epoch == 3
    undisturbed = list(run_job(job(tmp_path / "other")))
    assert _curve(again) == _curve(undisturbed)


def test_a_run_past_its_limit_is_timed_out(tmp_path: Path) -> None:
    *_, ended = run_job(job(tmp_path, minutes=1e-9))
    assert isinstance(ended, Ended) and ended.state == RunState.TIMED_OUT
    assert ended.cause == "the run took longer than `resources.minutes_per_run`, 1e-09"


def test_a_diverged_run_is_marked(tmp_path: Path) -> None:
    recipe = with_(optimizer={"lr": 1e12}, schedule={"name": "constant", "warmup_epochs": 0})
    *_, ended = run_job(job(tmp_path, run=tiny_run(recipe=recipe)))
    assert isinstance(ended, Ended) and ended.state == RunState.DIVERGED
    assert ended.cause is not None and "loss is" in ended.cause


def test_any_other_error_fails_the_run_and_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    wrong = job(tmp_path, run=tiny_run(in_channels=2))  # the images have one channel
    *_, ended = run_job(wrong)
    assert isinstance(ended, Ended) and ended.state == RunState.FAILED
    assert ended.cause is not None and ended.cause.startswith("RuntimeError: ")
    assert "Traceback" in wrong.log.read_text()


def test_float16_on_a_cpu_is_refused_with_a_message(tmp_path: Path) -> None:
    *_, ended = run_job(job(tmp_path, run=tiny_run(recipe=with_(precision="float16"))))
    assert isinstance(ended, Ended) and ended.state == RunState.FAILED
    assert ended.cause == "`precision: float16` needs a GPU. Take bfloat16 or float32."


def test_missing_data_are_reported_with_a_message(tmp_path: Path) -> None:
    recipe = with_(dataset="cifar10", root=str(tmp_path / "nowhere"), train_size=None, val_size=None)
    *_, ended = run_job(job(tmp_path, run=tiny_run(recipe=recipe)))
    assert isinstance(ended, Ended) and ended.state == RunState.FAILED
    assert ended.cause is not None and "nowhere" in ended.cause


@pytest.mark.parametrize("name", ALWAYS_MEASURES)
def test_what_is_always_measured_is_positive_and_leaves_the_network_alone(name: str, tmp_path: Path) -> None:
    run = tiny_run(K=7, reparam=3)
    model = build(run.spec, seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    metrics = dict(ALWAYS_MEASURES[name](TrainedRun(model, load(RECIPE, tmp_path, 0), RECIPE, torch.device("cpu"))))
    assert metrics and all(0 < value < 1e15 for value in metrics.values())
    assert all("_ms" in key or "_bytes" in key for key in metrics)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def _curve(records: list[Record]) -> list[tuple[int, float, float, float]]:
    return [(r.epoch, r.train_loss, r.val_loss, r.top1) for r in records if isinstance(r, Epoch)]
