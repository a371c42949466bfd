"""The bench on inputs that take no time: what it measures exists, and its table lists what was measured."""

import csv
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_spec, with_
from tiny_studies import TINY, write_study

from harness.cli import main
from harness.cli.bench import BENCH_SECTIONS
from harness.diagnostics.bench import machine
from harness.diagnostics.bench.actions import SECTIONS, write_results
from harness.diagnostics.bench.base import BenchResult, BenchSize
from harness.diagnostics.bench.driver import PARTS, driver_cost, help_time, parts_of_start, trial_costs
from harness.diagnostics.bench.proxies import (
    InlineProcess,
    JobSeries,
    compare_executors,
    executor_results,
    step_results,
    train_all,
)
from harness.errors import HarnessError
from harness.executors import make_executor
from harness.executors.base import WorkerRequest
from harness.system.device_slot import separate_slots
from harness.training.run import Epoch


def tiny_jobs(folder: Path, **changes: Any) -> JobSeries:
    return JobSeries(folder, tiny_spec(), with_(epochs=1, schedule={"warmup_epochs": 0}, **changes))


def test_a_figure_is_held_against_its_target() -> None:
    little = BenchResult(name="f", unit="s", values=(1.0, 9.0, 2.0), at_most=4.0)
    assert (little.median, little.ratio, little.is_met) == (2.0, 0.5, True)
    assert BenchResult(name="f", unit="s", values=(5.0,), at_most=4.0).is_met is False
    much = BenchResult(name="f", unit="x", values=(1.8, 1.6), at_least=1.7)
    assert much.ratio == pytest.approx(1.0) and much.is_met
    assert BenchResult(name="f", unit="x", values=(1.6,), at_least=1.7).is_met is False
    alone = BenchResult(name="f", unit="MB", values=(7.0,))
    assert (alone.target, alone.ratio, alone.is_met) == (None, None, None)


def test_every_section_can_be_asked_for() -> None:
    assert tuple(SECTIONS) == BENCH_SECTIONS


def test_the_help_is_timed() -> None:
    (figure,) = help_time(BenchSize(helps=2))
    assert len(figure.values) == 2
    assert 0 < figure.median < 30


@pytest.mark.long
def test_a_start_is_taken_apart(tmp_path: Path) -> None:
    with separate_slots() as alone, alone():  # as the bench does: the study does not wait for others
        parts = parts_of_start(write_study(tmp_path, TINY), "inline", tmp_path / "results")
    assert sum(parts.values()) < 50
    assert tuple(parts) == PARTS
    assert all(seconds > 0 for seconds in parts.values()), parts
    assert parts["imports of the worker"] > parts["start of the executor"]


def test_a_study_that_does_not_start_is_reported(tmp_path: Path) -> None:
    study = write_study(tmp_path, TINY, proxy={"epochs": -1})
    with pytest.raises(HarnessError, match=r"ended before its first epoch: .*epochs"):
        parts_of_start(study, "inline", tmp_path / "results")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_every_trial_of_the_driver_costs_something(sampler: str, tmp_path: Path) -> None:
    costs = trial_costs(tmp_path, sampler, 14)
    assert len(costs) == 14
    assert all(0 < cost.cpu_ms < cost.wall_ms + 1 for cost in costs)


def test_the_drivers_cost_is_looked_at_around_each_length() -> None:
    bench_results = list(driver_cost(BenchSize(trials=(3, 6), window=4)))
    assert [len(figure.values) for figure in bench_results] == [4] * 8
    assert {figure.name for figure in bench_results} >= {
        "driver per trial, random, trial 3",
        "driver per trial, tpe, trial 6",
    }


def test_a_training_step_is_held_against_both_layouts_of_pytorch() -> None:
    bench_results = list(step_results(tiny_spec(), with_(), 2))
    assert [figure.is_part for figure in bench_results] == [False, True, True] * 2
    assert [figure.at_least for figure in bench_results if not figure.is_part] == [7.0, None]
    for ratio, theirs, ours in (bench_results[:3], bench_results[3:]):
        assert ratio.values == tuple(a / b for a, b in zip(theirs.values, ours.values, strict=True))
        assert all(value > 0 for value in ours.values)


def test_proxies_are_trained_again_each_time(tmp_path: Path) -> None:
    jobs, executor = tiny_jobs(tmp_path), make_executor("inline", WorkerRequest())
    for _ in range(2):
        seconds, records = train_all(executor, jobs.fresh(2))
        assert seconds > 0
        assert len([record for record in records if isinstance(record, Epoch)]) == 2


@pytest.mark.long
def test_a_proxy_that_fails_is_reported(tmp_path: Path) -> None:
    broken = tiny_jobs(tmp_path, dataset="cifar10", root=str(tmp_path))
    with pytest.raises(HarnessError, match="must be complete, but is failed"):
        train_all(make_executor("inline", WorkerRequest()), broken.fresh(1))
    with InlineProcess() as aside:
        aside.begin(broken.fresh(1)[0])
        with pytest.raises(HarnessError, match="must be complete, but is failed"):
            aside.wait()


@pytest.mark.long
def test_ray_is_compared_with_plain_processes(tmp_path: Path) -> None:
    comparisons = {figure.name: figure for figure in compare_executors(tiny_jobs(tmp_path), rounds=1)}
    ratio = comparisons["a proxy in a Ray worker, over inline"]
    assert ratio.median == pytest.approx(comparisons["in a Ray worker"].median / comparisons["inline"].median)
    assert comparisons["inline"].median > 0


def test_two_workers_are_held_against_twice_the_work_of_one() -> None:
    times_s = {"inline": [10.0], "ray": [10.4], "both inline": [11.0], "both ray": [13.0]}
    metrics = {figure.name: figure.median for figure in executor_results(times_s, workers=2)}
    assert metrics["a proxy in a Ray worker, over inline"] == pytest.approx(1.04)
    assert metrics["proxies per hour, two Ray workers over one"] == pytest.approx(1.6)
    assert metrics["two plain processes over one"] == pytest.approx(20 / 11)
    assert len(list(executor_results(times_s, workers=1))) == 3


def test_what_changes_how_the_libraries_compute_is_among_the_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    text = "\n".join(machine.condition_lines(is_quick=True))
    assert "MKL_CBWR AVX2" in text and "training code" in text and "torch" in text


def test_a_busy_machine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_cpus", lambda: 2)
    warnings = []
    for load, is_quick in ((1.0, False), (0.4, False), (1.0, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        warnings.append(sum("Warning" in line for line in machine.condition_lines(is_quick=is_quick)))
    assert warnings == [1, 0, 2]


def test_the_table_is_written(tmp_path: Path) -> None:
    bench_results = [
        BenchResult(name="a start", unit="s", values=(6.0, 4.0, 8.0), at_most=5.0),
        BenchResult(name="imports", unit="s", values=(0.5,), is_part=True),
        BenchResult(name="memory", unit="MB", values=(912.0,)),
    ]
    write_results(tmp_path, bench_results, ["Warning: the machine was busy"])
    text = (tmp_path / "study.md").read_text()
    assert "| a start | 6.00 s | ≤ 5.00 s | 1.20 | missed | 3 | 4.00 s | 8.00 s |" in text
    assert "Warning: the machine was busy" in text
    with (tmp_path / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["figure"] for row in rows] == ["a start", "a start: imports", "memory"]
    assert (rows[0]["ratio"], rows[0]["is_met"], rows[0]["values"]) == ("1.2", "false", "6 4 8")
    assert (rows[2]["at_most"], rows[2]["ratio"], rows[2]["is_met"]) == ("", "", "")


def test_a_part_of_the_bench_is_written_to_its_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick", "--only", "help"]) == 0
    assert "written" not in capsys.readouterr().out
    assert main(["bench", "--quick", "--only", "help", "--output", str(tmp_path / "bench")]) == 0
    captured = capsys.readouterr()
    assert "run_study.py --help" in captured.out and "written" in captured.out
    assert "quick run" in captured.err
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == ["study.csv", "study.md"]
