"""While a measurement holds a device's slot nothing else of ours computes there; a slot is freed by whatever ends."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.system import device_slot
from harness.system.device_slot import computing, computing_each, measuring, yield_slot

REPOSITORY = Path(__file__).parents[2]
TRAINER = """
import sys, time
from harness.system.device_slot import computing, yield_slot
log = open(sys.argv[1], "a", buffering=1)
with computing():
    while True:
        yield_slot()
        start = time.monotonic()
        {step}
        log.write(f"{{start}} {{time.monotonic()}}\\n")
"""
MEASURER = """
import sys, time
from harness.system.device_slot import measuring
with measuring() as quiet:
    print(quiet, flush=True)
    time.sleep(float(sys.argv[1]))
"""
FORKING = """
import os, time
from harness.system.device_slot import computing
with computing():
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slots of this test's own, whatever else is measured on this machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(device_slot.OTHER_FOLDER, raising=False)
    return tmp_path


@pytest.fixture
def start(slots: Path) -> Iterator[Start]:
    """Starts a script in a process of its own, which the test's end ends."""
    processes: list[subprocess.Popen[str]] = []
    environment = os.environ | {"TMPDIR": str(slots), "PYTHONPATH": str(REPOSITORY)}

    def begin(script: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def steps(path: Path) -> list[tuple[float, float]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(a), float(b)) for a, b in (line.split() for line in lines if line.count(" ") == 1)]


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


@pytest.mark.long
def test_no_step_runs_while_a_measurement_holds_the_slot_and_four_trainers_do_not_starve_it(
    start: Start, tmp_path: Path
) -> None:
    logs = [tmp_path / f"{i}.log" for i in range(4)]
    for i, log in enumerate(logs):
        start(TRAINER.format(step="sum(range(2000))" if i % 2 else "time.sleep(0.01)"), log)
    wait_for(lambda: all(len(steps(log)) > 5 for log in logs))
    held = []
    for _ in range(5):
        requested = time.monotonic()
        with measuring(timeout_s=20) as quiet:
            assert quiet
            begin = time.monotonic()
            time.sleep(0.1)
            held.append((begin, time.monotonic()))
        assert begin - requested < 10
        time.sleep(0.05)
    counts = [len(steps(log)) for log in logs]
    wait_for(lambda: all(len(steps(log)) > count for log, count in zip(logs, counts, strict=True)))
    for log in logs:
        for begin, end in held:
            assert not [step for step in steps(log) if step[0] < end and step[1] > begin]


@pytest.mark.parametrize("script", [MEASURER, TRAINER.format(step="time.sleep(60)")])
def test_a_holder_that_is_killed_frees_the_slot(start: Start, tmp_path: Path, script: str) -> None:
    holder = start(script, "60" if script is MEASURER else tmp_path / "log")
    if script is MEASURER:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "True"
    else:
        wait_for((tmp_path / "log").exists)
        time.sleep(0.2)
    with measuring(timeout_s=0.05) as quiet:
        assert not quiet
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with measuring(timeout_s=5) as quiet:
        assert quiet


def test_only_one_measures_at_a_time(start: Start) -> None:
    holder = start(MEASURER, 60)
    assert holder.stdout is not None and holder.stdout.readline().strip() == "True"
    with measuring(timeout_s=0.05) as quiet:
        assert not quiet


def test_a_trainer_continues_without_a_slot_that_is_never_given_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = start(MEASURER, 60)
    assert holder.stdout is not None and holder.stdout.readline()
    monkeypatch.setattr(device_slot, "COMPUTER_WAITS_S", 0.2)
    begin = time.monotonic()
    for _ in range(50):  # only the first of them waits
        with computing():
            pass
    assert time.monotonic() - begin < 2


@pytest.mark.usefixtures("slots")
def test_who_computes_can_measure_and_holds_its_share_again_afterwards(start: Start) -> None:
    with computing():
        with measuring(timeout_s=5) as quiet:
            assert quiet
            with measuring(timeout_s=0) as inner, computing():  # what is measured may compute
                assert inner
                yield_slot()
        other = start(MEASURER, 0)
        time.sleep(0.5)
        assert other.poll() is None
        wait_for(lambda: yield_slot() or other.poll() is not None)  # type: ignore[func-returns-value]
    assert other.stdout is not None and other.stdout.readline().strip() == "True"


@pytest.mark.usefixtures("slots")
def test_nothing_is_held_between_the_items_of_a_generator() -> None:
    items = computing_each(iter(range(3)))
    assert next(items) == 0
    with measuring(timeout_s=1) as quiet:
        assert quiet
    assert list(items) == [1, 2]


def test_a_forked_child_has_no_part_in_its_parents_lock(start: Start) -> None:
    parent = start(FORKING)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        with measuring(timeout_s=0.05) as quiet:
            assert not quiet
        parent.kill()
        parent.wait()
        with measuring(timeout_s=1) as quiet:
            assert quiet
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_files_are_for_all_users(slots: Path) -> None:
    before = os.umask(0o077)
    try:
        with computing():
            pass
    finally:
        os.umask(before)
    folder = slots / device_slot.SLOTS_FOLDER
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666}


def test_a_temporary_folder_that_cannot_be_written_to_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    monkeypatch.delenv(device_slot.OTHER_FOLDER, raising=False)
    with computing():
        yield_slot()
    with measuring() as quiet:
        assert not quiet


# GPUs


class Gpu:
    """A fake of `torch.device`: there need be no GPU for its slot."""

    type = "cuda"
    index = 0


@pytest.fixture
def gpu(slots: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:  # noqa: ARG001
    monkeypatch.setattr(device_slot, "_names", lambda device: ("cpu", "gpu-1") if device is not None else ("cpu",))
    monkeypatch.setattr(device_slot, "_finisher", lambda _: lambda: None)
    return Gpu()


def test_times_on_a_gpu_let_others_train_on_the_processor_but_not_measure_there(gpu: Gpu) -> None:
    def others() -> tuple[bool, bool]:
        with computing():
            can_train = bool(device_slot._state.hold and device_slot._state.hold.held)
        with measuring(timeout_s=0.05) as quiet:
            return can_train, quiet

    with ThreadPoolExecutor(1) as pool:
        with measuring(gpu, timeout_s=5) as quiet:
            assert quiet
            assert pool.submit(others).result() == (True, False)
        assert pool.submit(others).result() == (True, True)


def test_training_on_a_gpu_keeps_measurements_off_both_devices(gpu: Gpu) -> None:
    def is_quiet(device: Gpu | None) -> bool:
        with measuring(device, timeout_s=0.05) as quiet:
            return quiet

    with ThreadPoolExecutor(1) as pool:
        with computing(gpu):
            assert [pool.submit(is_quiet, device).result() for device in (None, gpu)] == [False, False]
        with computing(gpu, is_main=False):  # one of many workers that wait for each other
            assert [pool.submit(is_quiet, device).result() for device in (None, gpu)] == [True, False]
        with computing(None, is_main=False):
            assert pool.submit(is_quiet, None).result()


@pytest.mark.long
def test_measurements_on_both_devices_during_training_do_not_wait_for_each_other(gpu: Gpu) -> None:
    counts, deadline = [0] * 4, time.monotonic() + 60

    def is_over() -> bool:
        """Whether all four have done some of their work; none of them waits for another for a minute."""
        return min(counts) >= 1 or time.monotonic() > deadline

    def train(number: int) -> None:
        with computing(gpu):
            while not is_over():
                yield_slot()
                time.sleep(0.005)
                counts[number] += 1

    def measure(number: int, device: Gpu | None) -> bool:
        quiet = []
        while not is_over():
            with measuring(device, timeout_s=30) as alone:
                quiet.append(alone)
                time.sleep(0.01)
                counts[number] += 1
        return all(quiet)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(device_slot, "HOLD_S", {"cpu": 0.01, "cuda": 0.01})
        patch.setattr(device_slot, "SETTLE_S", 0.0)
        trainers = [pool.submit(train, number) for number in (0, 1)]
        measurers = [pool.submit(measure, number, device) for number, device in ((2, None), (3, gpu))]
        assert all(measurer.result(timeout=90) for measurer in measurers)
        assert all(trainer.result(timeout=90) is None for trainer in trainers)
    assert min(counts) >= 1
