"""All of our computing on a device takes part: what computes shares its slot, and what takes times has it alone."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from full_scale_cases import RECIPE, write_folder
from PIL import Image
from tiny_runs import RECIPE as TINY_RECIPE
from tiny_runs import tiny_spec, with_
from tiny_studies import CommandResult, called

from harness.config.network_file import load_network_spec
from harness.data import load
from harness.diagnostics.bench.actions import bench_network
from harness.diagnostics.bench.base import NetworkOptions
from harness.measures.base import TrainedRun
from harness.measures.speed import train_step
from harness.models.build import build
from harness.models.weights import save_weights
from harness.ops.timing import TimingBudget, time_interleaved
from harness.system import device_slot
from harness.system.device_slot import (
    computing,
    counting_measurements,
    measuring,
    measuring_in_turns,
    released_cpu_slot,
    separate_slots,
)

REPOSITORY = Path(__file__).parents[2]
CPU = torch.device("cpu")
COMPUTER = """
import sys, time
from harness.system.device_slot import computing, yield_slot
log = open(sys.argv[1], "a", buffering=1)
with computing():
    while True:
        yield_slot()
        start = time.monotonic()
        sum(range(2000))
        log.write(f"{start} {time.monotonic()}\\n")
"""
MEASURER = """
import sys, time
from harness.system.device_slot import computing, measuring
with computing():
    pass
with measuring() as quiet:
    print(quiet, flush=True)
    time.sleep(float(sys.argv[1]))
"""
READER = """
import sys, time
import torch
from torch.utils.data import Dataset
from harness.system.device_slot import computing
from harness.data.loading import BatchReader

class Items(Dataset):
    def __getitem__(self, key):
        start = time.monotonic()
        time.sleep(0.004)
        with open(sys.argv[1], "a") as log:
            log.write(f"{start} {time.monotonic()}\\n")
        return torch.zeros(1)

with computing():
    for batch in BatchReader(Items(), 2).read([i, i + 1] for i in range(10**6)):
        with open(sys.argv[2], "a") as log:
            log.write("1")
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slots of this test's own, whatever else is measured on this machine."""
    monkeypatch.setenv(device_slot.OTHER_FOLDER, str(tmp_path / "slots"))
    return tmp_path / "slots"


@pytest.fixture
def start(slots: Path) -> Iterator[Start]:  # noqa: ARG001
    """Starts a script in a process of its own, which the test's end ends."""
    processes: list[subprocess.Popen[str]] = []

    def begin(script: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield begin
    for process in processes:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def spans(path: Path) -> list[tuple[float, float]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(a), float(b)) for a, b in (line.split() for line in lines if line.count(" ") == 1)]


def overlapping(path: Path, held: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [span for span in spans(path) for begin, end in held if span[0] < end and span[1] > begin]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


def is_quiet_elsewhere(timeout_s: float = 0.05) -> bool:
    """Whether another thread, in place of another process, gets the slot alone now."""

    def measure() -> bool:
        with measuring(timeout_s=timeout_s) as quiet:
            return quiet

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(measure).result()


# What computes


@pytest.mark.long
def test_processes_that_read_images_stop_for_a_measurement_without_waiting_for_each_other(
    start: Start, tmp_path: Path
) -> None:
    items, batches = tmp_path / "items.log", tmp_path / "batches.log"
    reader = start(READER, items, batches)
    wait_for(lambda: batches.exists() and len(batches.read_text()) > 5)
    held = []
    for _ in range(4):
        requested = time.monotonic()
        with measuring(timeout_s=30) as quiet:
            begin = time.monotonic()
            assert quiet and begin - requested < 10
            time.sleep(0.15)
            held.append((begin, time.monotonic()))
        count = len(batches.read_text())
        wait_for(lambda count=count: len(batches.read_text()) > count + 3)  # type: ignore[misc]
    assert reader.poll() is None
    assert overlapping(items, held) == []


def test_who_rests_gives_the_processor_to_others_and_has_its_share_again(slots: Path) -> None:  # noqa: ARG001
    with computing():
        assert not is_quiet_elsewhere()
        with released_cpu_slot():
            assert is_quiet_elsewhere(5)
        assert not is_quiet_elsewhere()
    with measuring(timeout_s=1) as quiet, released_cpu_slot():
        assert quiet and not is_quiet_elsewhere(), "a measurement is not given up"
    with released_cpu_slot():
        assert is_quiet_elsewhere(5)


def stimuli(folder: Path) -> Path:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "cat1-bicycle3.png")
    return folder


def files(folder: Path) -> None:
    """What the verbs are called with."""
    for name, classes in (("net", 3), ("imagenet", 1000)):
        spec = tiny_spec(in_channels=3, classes=classes, K=5)
        save_weights(folder / f"{name}.safetensors", spec, build(spec, seed=0), "a test")
    write_folder(folder / "images", side=32)
    stimuli(folder / "stimuli")
    recipe = RECIPE | {"epochs": 1, "schedule": {"warmup_epochs": 0}, "ema": None}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "net.yaml").write_text(yaml.safe_dump({"B": 1, "C": [4, 4, 8, 8], "K": 3, "stem_stride": 2}))


VERBS: dict[str, tuple[str, ...]] = {
    "erf": ("erf", "net.safetensors", "--images", "2", "--resolution", "32"),
    "kernels": ("kernels", "net.safetensors"),
    "shape-bias": ("shape-bias", "imagenet.safetensors", "--stimuli", "stimuli", "--resolution", "32"),
    "evaluate": ("evaluate", "net.safetensors", "--data", "images", "--resolution", "32", "--labels", "position"),
    "export": ("export", "net.safetensors", "--format", "safetensors", "--resolution", "32", "--to", "out"),
    "verify": ("verify", "--only", "specs"),
    "train": ("train", "net.yaml", "--recipe", "recipe.yaml", "--dry-run"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_waits_for_a_measurement_to_end(name: str, slots: Path, tmp_path: Path) -> None:  # noqa: ARG001
    files(tmp_path)
    begin = time.monotonic()
    result = called(*VERBS[name], cwd=tmp_path)
    took_s = time.monotonic() - begin
    assert result.returncode == 0, result.stderr
    results: list[CommandResult] = []
    verb = threading.Thread(target=lambda: results.append(called(*VERBS[name], cwd=tmp_path)))
    with measuring(timeout_s=5) as quiet:
        assert quiet
        verb.start()
        verb.join(min(5.0, 2 * took_s + 0.5))
        assert verb.is_alive(), "it computes while times are taken"
    verb.join(60)
    assert results and results[0].returncode == 0, results


# What takes times


def test_nobody_computes_while_calls_are_timed(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "steps.log"
    start(COMPUTER, log)
    wait_for(lambda: len(spans(log)) > 5)
    calls: list[tuple[float, float]] = []

    def call() -> None:
        begin = time.monotonic()
        time.sleep(0.01)
        calls.append((begin, time.monotonic()))

    with computing(), counting_measurements() as watch:
        time_interleaved({"call": call}, CPU, TimingBudget(min_samples=5, max_samples=5))
    count = len(spans(log))
    wait_for(lambda: len(spans(log)) > count)
    assert len(calls) > 5 and overlapping(log, calls) == []
    assert (watch.measurements, watch.disturbed) == (1, 0)


@pytest.mark.long
def test_a_long_series_of_samples_lets_others_compute_in_between(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_slot, "TURN_S", 0.1)
    log, samples = tmp_path / "steps.log", []
    start(COMPUTER, log)
    wait_for(lambda: len(spans(log)) > 5)
    with computing(), measuring_in_turns() as renew:
        for _ in range(5):
            renew()
            begin = time.monotonic()
            time.sleep(0.11)
            samples.append((begin, time.monotonic()))
    steps = spans(log)
    assert overlapping(log, samples) == []
    for (_, end), (begin, _) in pairwise(samples):
        assert any(end < step[0] and step[1] < begin for step in steps)


def test_work_that_takes_part_itself_runs_while_it_is_measured_and_other_work_waits(
    start: Start, tmp_path: Path
) -> None:
    log = tmp_path / "steps.log"
    start(COMPUTER, log)
    wait_for(lambda: len(spans(log)) > 5)
    with separate_slots() as alone, alone() as quiet:
        begin = time.monotonic()
        assert quiet
        inner = [start(MEASURER, 0.1) for _ in range(2)]  # one after the other
        for process in inner:
            assert process.stdout is not None and process.stdout.readline().strip() == "True"
        with computing(), measuring(timeout_s=20) as measurement:
            assert measurement
        end = time.monotonic()
    assert overlapping(log, [(begin, end)]) == []
    with measuring(timeout_s=20) as again:
        assert again, "the machine's slot again"
        count = len(spans(log))
        time.sleep(0.1)
        assert len(spans(log)) == count


@pytest.mark.long
def test_times_that_others_disturbed_are_on_record(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = start(MEASURER, 60)
    assert holder.stdout is not None and holder.stdout.readline().strip() == "True"
    monkeypatch.setattr(device_slot, "MEASURER_WAITS_S", 0.05)
    monkeypatch.setattr(device_slot, "WAITS_AGAIN_S", 0.05)
    monkeypatch.setattr(device_slot, "COMPUTER_WAITS_S", 0.05)
    dataset = load(TINY_RECIPE, tmp_path / "data", 0)
    metrics = dict(train_step(TrainedRun(build(tiny_spec(), seed=0).eval(), dataset, with_(batch_size=4), CPU)))
    assert metrics["train_step_disturbed"] == 1.0 and metrics["train_step_s"] > 0
    (tmp_path / "net.yaml").write_text(json.dumps({"B": 1, "C": [4, 4, 8, 8], "K": 3, "stem_stride": 2}))
    options = NetworkOptions(
        networks={"net": load_network_spec(tmp_path / "net.yaml")}, beside=(), resolutions=(32,), batch=1, device="cpu"
    )
    bench_network(options, tmp_path / "bench", is_quick=True)
    (report,) = (tmp_path / "bench").glob("*.md")
    assert "measurements other work of the harness computed" in report.read_text()
    assert "Warning: in " in capsys.readouterr().err
