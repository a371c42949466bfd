"""`harness calibrate` on studies that are trained for real."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import BRIEF, INLINE, TINY, called, files_of, write_study

from harness.executors.interrupt import EXIT_CODE

CLAIM = {"name": "larger", "says": "x", "contrast": {"K=[5,5,3,3]": 1, "K=3": -1}, "expect": "> 0"}
KEYS: dict[str, Any] = TINY | {
    "proxy": BRIEF | {"epochs": 1},
    "claims": [CLAIM],
    "calibrate": {"vary": {"batch_size": [16]}, "seeds": 2, "max_seeds": 2},
}


@pytest.mark.long
def test_candidates_are_trained_and_resumed_after_ctrl_c(tmp_path: Path) -> None:
    write_study(tmp_path, KEYS)
    folder = tmp_path / "results" / "calibrations" / "tiny"

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not any(folder.rglob("*.pt")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    stopped = called("calibrate", "study.yaml", *INLINE, cwd=tmp_path)
    thread.join()
    assert stopped.returncode == EXIT_CODE and "nothing is lost. To resume:" in stopped.stderr
    before = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    assert 1 <= len(before) < 8
    finished = called("calibrate", "study.yaml", *INLINE, "--output", "out", cwd=tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    assert len(after) == 8 and len(before.items() - after.items()) <= 1  # the interrupted run
    lines = finished.stdout.splitlines()
    assert lines[0] == "stage 1: 2 candidates with 2 seeds each"
    assert lines[1].startswith("[1/2] as written: larger ") and lines[2].startswith("[2/2] batch_size=16: larger ")
    written = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert finished.returncode == (0 if written["recommended"] else 1)
    assert [each["change"] for each in written["candidates"]] in ([{}, {"batch_size": 16}], [{"batch_size": 16}, {}])
    assert all(each["claims"][0]["pairs"] == 2 for each in written["candidates"])
    assert "| recipe | n |" in (tmp_path / "out" / "calibration.md").read_text()
    again = called("calibrate", "study.yaml", *INLINE, "--quiet", cwd=tmp_path)
    assert "stage 1" not in again.stdout and again.stdout.splitlines()[0] == "tiny"
    assert {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.pt")} == after


def test_a_dry_run_lists_candidates_and_writes_nothing(tmp_path: Path) -> None:
    write_study(tmp_path, KEYS)
    result = called("calibrate", "study.yaml", "--dry-run", "--hours", "2", cwd=tmp_path)
    assert result.returncode == 0 and files_of(tmp_path) == {"study.yaml"}
    assert "as written" in result.stdout and "batch_size=16" in result.stdout
    assert "8 runs to train in the first stage, 2 seeds each" in result.stdout
    assert "a budget of 2 core-hours" in result.stdout


@pytest.mark.parametrize(
    ("keys", "options", "words"),
    [
        ({"calibrate": {"vary": {"batchsize": [8]}}}, (), "Did you mean `batch_size`?"),
        (
            {"calibrate": {"vary": {"batch_size": [128]}}},
            (),
            "`proxy.batch_size` must be at most `proxy.train_size` (64)",
        ),
        ({"calibrate": {"vary": {"width": [1.01]}}}, (), "`width` must change the channels"),
        ({"claims": []}, (), "the study must have claims"),
        ({}, ("--hours", "0"), "must be above 0"),
        ({}, ("--executor", "inline", "--workers", "3"), "one run at a time"),
        ({}, ("--output", "study.yaml"), "`--output` must be a folder, but got 'study.yaml'"),
        ({"resources": {"cpus": 4096}}, (), "`resources.cpus` must be at most the processors"),
    ],
)
def test_mistakes_end_with_exit_code_2_and_nothing_is_written(
    tmp_path: Path, keys: dict[str, Any], options: tuple[str, ...], words: str
) -> None:
    write_study(tmp_path, KEYS, **keys)
    result = called("calibrate", "study.yaml", *options, cwd=tmp_path)
    assert result.returncode == 2 and words in result.stderr, result and "Traceback" not in result.stderr
    assert files_of(tmp_path) == {"study.yaml"}
