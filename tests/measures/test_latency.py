"""Latency: alone on its device, with an interval, shared by equal networks, and reliable while workers are busy."""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import RECIPE, tiny_run, tiny_spec, with_
from tiny_studies import Played, epoch, started, text_of

from harness.analysis.objective import compares_times
from harness.analysis.summary import configuration_values
from harness.data import Dataset, load
from harness.executors.run_job import run_job
from harness.measures import speed
from harness.measures.base import TrainedRun
from harness.measures.speed import latency, network_digest, timing_conditions
from harness.models.build import build, merge
from harness.models.spec.network import NetworkSpec
from harness.ops import timing
from harness.ops.autotune import autotune
from harness.ops.timing import Timings, median_rank, time_until_precise
from harness.report.configurations import ConfigurationTables
from harness.report.study import results_view
from harness.system.device_slot import measuring
from harness.training.run import Ended, Job, Measured, Record, RunState

CPU = torch.device("cpu")
WORKER = """
import sys
from pathlib import Path

import torch

from harness.data import load
from harness.system.device_slot import computing_each
from harness.models.build import build
from harness.config.recipes.proxy import ProxyRecipe
from harness.models.spec.network import NetworkSpec
from harness.training.fit import fit

torch.set_num_threads(1)
recipe = ProxyRecipe(train_size=512, val_size=64, resolution=48, epochs=1000, batch_size=32)
spec = NetworkSpec.from_mapping({"B": 1, "C": [16, 32, 64, 64], "K": 7, "in_channels": 1, "classes": 8})
epochs = fit(build(spec, seed=0), load(recipe, Path(sys.argv[1]), 0), recipe, seed=0, device=torch.device("cpu"))
for epoch in computing_each(epochs, torch.device("cpu")):
    Path(sys.argv[2]).write_text(str(epoch.epoch))
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(RECIPE, tmp_path_factory.mktemp("data"), 0)


def subject(dataset: Dataset, spec: NetworkSpec, folder: Path | None = None, *, seed: int = 0) -> TrainedRun:
    return TrainedRun(build(spec, seed=seed).eval(), dataset, RECIPE, CPU, folder)


# The interval


@pytest.mark.parametrize("n", [6, 7, 30, 100, 300])
def test_the_interval_of_a_median_has_its_nominal_coverage(n: int) -> None:
    left_out = median_rank(n)
    generator = torch.Generator().manual_seed(n)
    draws = torch.rand(4_000, n, generator=generator).exp().sort(dim=1).values
    truth = float(torch.tensor(0.5).exp())
    held = ((draws[:, left_out] <= truth) & (truth <= draws[:, n - 1 - left_out])).double().mean().item()
    assert held > 0.94 and (n < 30 or held < 0.985)
    low, high = Timings(tuple(draws[0].tolist())).interval
    assert low <= Timings(tuple(draws[0].tolist())).median <= high


def test_samples_in_which_another_program_had_the_processor_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"calls": 0, "switches": 0}

    def seconds(*_: object) -> float:
        state["calls"] += 1
        is_disturbed = state["calls"] % 3 == 0
        state["switches"] += is_disturbed
        return 0.1 if is_disturbed else 0.001 + 1e-6 * state["calls"]

    monkeypatch.setattr(timing, "seconds_per_call", seconds)
    monkeypatch.setattr(timing, "_context_switches", lambda: state["switches"])
    sampled = time_until_precise(lambda: None, CPU)
    assert not sampled.is_disturbed and sampled.left_out >= 10 and max(sampled.times.seconds) < 0.01


def test_a_machine_that_is_never_quiet_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1_000_000))
    monkeypatch.setattr(timing, "_context_switches", lambda: next(now))
    clock = SimpleNamespace(monotonic=lambda: float(next(now)), sleep=lambda _: None, perf_counter=time.perf_counter)
    monkeypatch.setattr(timing, "time", clock)
    sampled = time_until_precise(lambda: None, CPU)
    assert sampled.is_disturbed and sampled.times.n >= 3


# One measurement for equal networks


@pytest.mark.long
def test_seeds_of_a_network_share_one_measurement(dataset: Dataset, tmp_path: Path) -> None:
    first = dict(latency(subject(dataset, tiny_spec(K=7, reparam=3), tmp_path)))
    assert first["latency_ms_low"] <= first["latency_ms_p50"] <= first["latency_ms_high"] and first["latency_ms_n"] >= 3
    if "latency_ms_disturbed" in first:
        pytest.fail("the slot could not be had, or other programs had the processor all the time")
    assert dict(latency(subject(dataset, tiny_spec(K=7, reparam=3), tmp_path, seed=1))) == first
    assert dict(latency(subject(dataset, tiny_spec(K=7, reparam=5), tmp_path))) == first  # merges into the same network
    assert len(list(tmp_path.iterdir())) == 1
    assert dict(latency(subject(dataset, tiny_spec(K=5), tmp_path))) != first and len(list(tmp_path.iterdir())) == 2


@pytest.mark.long
def test_a_kept_time_that_cannot_be_read_is_measured_again(dataset: Dataset, tmp_path: Path) -> None:
    list(latency(subject(dataset, tiny_spec(), tmp_path)))
    (path,) = tmp_path.iterdir()
    for content in ("", "{}", "[1]", '{"conditions": {}, "metrics": {"latency_ms_p50": 1}}'):
        path.write_text(content)
        assert dict(latency(subject(dataset, tiny_spec(), tmp_path)))["latency_ms_n"] >= 3


def test_what_decides_a_time_is_in_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = merge(build(tiny_spec(), seed=0)).eval(), torch.zeros(1, 1, 16, 16)
    keys = [timing_conditions("latency", model, image), timing_conditions("throughput", model, image)]
    keys += [timing_conditions("latency", model, torch.zeros(2, 1, 16, 16))]
    keys += [timing_conditions("latency", model, torch.zeros(1, 1, 32, 32))]
    keys += [timing_conditions("latency", model, image.double())]
    keys += [
        timing_conditions("latency", model, torch.zeros(1, 3, 16, 16).contiguous(memory_format=torch.channels_last))
    ]
    with timing.cpu_threads(2):
        keys += [timing_conditions("latency", model, image)]
    with autotune():
        keys += [timing_conditions("latency", model, image)]
    monkeypatch.setattr(speed, "operator_digest", lambda: "another")
    keys += [timing_conditions("latency", model, image)]
    texts = [json.dumps(key, sort_keys=True) for key in keys]
    assert len(set(texts)) == len(texts)


def test_networks_that_compute_otherwise_have_other_digests() -> None:
    specs = [tiny_spec(), tiny_spec(K=5), tiny_spec(B=[1, 1, 2, 1]), tiny_spec(ffn_ratio=2), tiny_spec(stem_stride=4)]
    specs += [tiny_spec(shortcut=False)]
    digests = [network_digest(merge(build(spec, seed=0))) for spec in specs]
    assert len(set(digests)) == len(digests)
    assert network_digest(merge(build(tiny_spec(), seed=1))) == digests[0]


@pytest.mark.long
def test_a_run_keeps_its_times_next_to_the_data(tmp_path: Path) -> None:
    recipe = with_(epochs=0, measures=["throughput"])
    records = [list(run_job(Job(tiny_run(recipe=recipe, seed=s), tmp_path / "study"))) for s in (0, 1)]
    times = [{r.name: r.value for r in run if isinstance(r, Measured) and "_ms" in r.name} for run in records]
    assert times[0] == times[1] and "latency_ms_high" in times[0]
    assert len(list((tmp_path / "data" / "times").iterdir())) == 2


@pytest.mark.long
def test_runs_that_are_compared_by_their_times_have_times_of_their_own(tmp_path: Path) -> None:
    jobs = [Job(tiny_run(recipe=with_(epochs=0), seed=s), tmp_path / "study", shares_times=False) for s in (0, 1)]
    times = [{r.name: r.value for r in run_job(job) if isinstance(r, Measured)} for job in jobs]
    assert times[0]["latency_ms_p50"] != times[1]["latency_ms_p50"]


@pytest.mark.parametrize(
    ("metrics", "is_about_times"),
    [(["top1"], False), (["top1", "log2(latency_ms_p50 / macs)"], True), (["latency_ms_p50"], True), (["macs"], False)],
)
def test_a_study_that_compares_times_is_known(metrics: list[str], is_about_times: bool) -> None:
    assert compares_times(metrics) == is_about_times


def test_the_driver_decides_whether_times_are_compared(tmp_path: Path) -> None:
    for name, objective in (("a", {"top1": "maximize"}), ("b", {"latency_ms_p50": "minimize"})):
        (tmp_path / name).mkdir()
        study = Played(tmp_path / name, objectives=objective, search={"seeds": 1})
        study.answer(timed)
        assert study.executor is not None
        assert {job.shares_times for job in study.executor.submitted} == {name == "a"}


# What is decided and shown


def timed(job: Job) -> Iterator[Record]:
    k, seed = job.run.spec.K[0], job.run.seed
    yield started()
    for n in range(1, 5):
        yield epoch(n, 50.0 + k)
    yield Measured("latency_ms_p50", 0.5 * k + 0.01 * seed)
    yield Measured("latency_ms_low", 0.4 * k)
    yield Measured("latency_ms_high", 0.6 * k)
    yield Measured("latency_ms_n", 40.0)
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def test_a_budget_of_latency_decides_on_the_upper_bound(tmp_path: Path) -> None:
    results = Played(tmp_path, budgets={"latency_ms": 7.0}).answer(timed)  # 13: median 6.5, upper bound 7.8
    assert {configuration.state for configuration in results.rows if configuration.params["K"][0] == 13} == {
        "over budget"
    }
    assert {configuration.state for configuration in results.rows if configuration.params["K"][0] == 3} == {"complete"}


def test_an_objective_of_latency_decides_on_the_upper_bound_and_shows_the_interval(tmp_path: Path) -> None:
    results = Played(tmp_path, objectives={"latency_ms_p50": "minimize"}, search={"seeds": 2}).answer(timed)
    assert results.best is not None and results.best.values == (0.6 * 3,) * 2
    assert "1.50 [1.20, 1.80]" in text_of(ConfigurationTables(results), width=160)


def test_tables_and_json_have_one_latency_with_interval_and_n(tmp_path: Path) -> None:
    results = Played(tmp_path, search={"seeds": 3}).answer(timed)
    configuration = results.rows[0]
    assert configuration.latency is not None and configuration.latency.median_ms == pytest.approx(15.51)
    text = text_of(results_view(results), width=160)
    assert "15.5 [12.4, 18.6]" in text and "(n = 40)" in text
    values = configuration_values(configuration, results.metric)
    assert values["latency_ms_high"] == pytest.approx(18.6)
    assert (values["latency_ms_n"], values["latency_is_quiet"]) == (40, True)


# While workers are busy


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that train."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    marks = [tmp_path / f"epoch{i}" for i in range(2)]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path / "data"), str(mark)], env=environment)
        for mark in marks
    ]
    yield workers
    for worker in workers:
        worker.kill()
        worker.wait()


def undisturbed(trained: TrainedRun) -> float:
    """The median in milliseconds, of a measurement that is not on record as disturbed by other programs.

    NaN, with which an attempt fails, where each of twelve was.
    """
    for _ in range(12):
        metrics = dict(latency(trained))
        if "latency_ms_disturbed" not in metrics:
            return metrics["latency_ms_p50"]
    return math.nan


def medians(subjects: dict[int, TrainedRun], repeats: int) -> dict[int, list[float]]:
    medians_ms: dict[int, list[float]] = {k: [] for k in subjects}
    for _ in range(repeats):
        for k, trained_run in subjects.items():
            medians_ms[k].append(undisturbed(trained_run))
    return medians_ms


@pytest.mark.alone
def test_beside_two_busy_workers_kernels_keep_their_order_and_the_spread_is_small(
    busy: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """The medians with busy workers keep to 5 percent of the quiet ones, in their level and in their spread.

    Up to ten attempts, since other programs of this machine do not use the slot. A failed attempt counts only where the
    quiet measurements, without our workers, keep to the same 5 percent themselves; where three do not, the machine is
    too busy to tell.
    """
    recipe = with_(resolution=32)
    data = load(recipe, tmp_path / "large", 0)
    networks = {k: build(tiny_spec(C=[8, 8, 16, 16], K=k, stem_stride=2), seed=0).eval() for k in (3, 31)}
    subjects = {k: TrainedRun(network, data, recipe, CPU) for k, network in networks.items()}
    deadline = time.monotonic() + 120
    while not all((tmp_path / f"epoch{i}").exists() for i in range(2)):
        assert time.monotonic() < deadline and all(worker.poll() is None for worker in busy)
        time.sleep(0.1)
    problems, disturbed = [], 0
    for _ in range(10):
        with_workers = medians(subjects, 4)
        with measuring() as alone:  # so that none of them is stopped while it holds the slot
            assert alone
            for worker in busy:
                worker.send_signal(signal.SIGSTOP)
        try:
            calm = medians(subjects, 4)
        finally:
            for worker in busy:
                worker.send_signal(signal.SIGCONT)
        quiet = {k: statistics.median(medians_ms) for k, medians_ms in calm.items()}
        is_ordered = all(a < b for a, b in zip(with_workers[3], with_workers[31], strict=True))
        spreads = {k: statistics.stdev(medians_ms) / quiet[k] for k, medians_ms in with_workers.items()}
        shifts = {k: statistics.median(medians_ms) / quiet[k] - 1 for k, medians_ms in with_workers.items()}
        print(with_workers, quiet, spreads, shifts)
        if is_ordered and all(spreads[k] < 0.05 and abs(shifts[k]) < 0.05 for k in spreads):
            return
        if all(statistics.stdev(medians_ms) < 0.05 * quiet[k] for k, medians_ms in calm.items()):
            problems.append((with_workers, quiet, spreads, shifts))
        else:
            disturbed += 1
        if disturbed == 3:
            pytest.skip("other programs disturb this machine: quiet measurements spread by more than 5 percent, too")
    pytest.fail(f"in no attempt: {problems}")
