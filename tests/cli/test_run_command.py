"""`harness run` as a user sees it: real processes, real training on tiny networks, all ways of ending it."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from tiny_studies import (
    BRIEF,
    INLINE,
    RAY,
    REPOSITORY,
    TINY,
    Finished,
    called,
    command,
    environ,
    files_of,
    write_study,
)

from harness.config.network_file import load_network_spec

LONG = {"proxy": TINY["proxy"] | {"epochs": 60, "train_size": 96, "batch_size": 16}, "search": {"seeds": 1}}
"""Long enough to be interrupted, in epochs short enough to be quick."""


# Running


def test_run_trains_everything_and_prints_the_answer(finished: Finished) -> None:
    folder, result = finished
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count(": complete, top1") == 4
    assert "Pareto front" in result.stdout and "Best network" in result.stdout and "seeds 0, 1" in result.stdout
    kept = files_of(folder / "results")
    assert {"studies.db", "tiny/study.yaml", "tiny/summary.json", "tiny/summary.txt"} <= kept
    assert len(list((folder / "results" / "tiny" / "checkpoints").glob("*.pt"))) == 4


def test_output_that_is_no_terminal_is_plain_lines_with_times(finished: Finished) -> None:
    _, result = finished
    assert all(character.isprintable() or character == "\n" for character in result.stdout)
    lines = result.stdout.split("tiny  maximize top1")[0].splitlines()
    assert len(lines) > 12
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \S", line) for line in lines)
    assert "opening results/studies.db" in lines[0]
    assert sum(": epoch " in line for line in lines) == 8


def test_a_finished_study_trains_nothing_and_gives_the_same_answer(finished: Finished) -> None:
    folder, first = finished
    again = called("run", "study.yaml", cwd=folder)
    assert again.returncode == 0 and "nothing was left to train" in again.stdout
    assert "given to a worker" not in again.stdout
    assert again.stdout.split("Pareto")[1] == first.stdout.split("Pareto")[1]


def test_a_finished_study_is_answered_without_torch_and_ray(finished: Finished) -> None:
    folder, _ = finished
    code = (
        "import sys; from harness.cli import main; code = main(['run', 'study.yaml', '--quiet']); "
        "print(*({'torch', 'ray', 'optuna_dashboard'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environ())
    assert (result.returncode, result.stderr.strip()) == (0, "")
    assert result.stdout.startswith("tiny  maximize top1: 2 complete")  # and nothing else, for it was to be quiet


@pytest.mark.long
def test_the_commands_that_are_printed_work(finished: Finished) -> None:
    folder, study_result = finished
    commands = [
        line.strip() for line in study_result.stdout.split("\nNext\n")[1].splitlines() if not line.startswith("  #")
    ]
    assert [
        name
        for name in ("show", "best", "dashboard")
        if any(f" {name} " in printed_command for printed_command in commands)
    ]
    for printed_command in commands:
        if " dashboard " not in printed_command:
            result = subprocess.run(
                printed_command, shell=True, cwd=folder, env=environ(), capture_output=True, text=True
            )
            assert (result.returncode, result.stderr) == (0, ""), printed_command
    assert load_network_spec(folder / "best.yaml").C == (4, 4, 8, 8)


def test_run_study_py_does_the_same(finished: Finished) -> None:
    folder, _ = finished
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "run_study.py"), "study.yaml", "--quiet"],
        cwd=folder, env=environ(), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0 and result.stdout == called("run", "study.yaml", "--quiet", cwd=folder).stdout


def test_fresh_forgets_and_trains_again(tmp_path: Path) -> None:
    keys = TINY | {"axes": {"K": [[3, 3, 3, 3]]}, "search": {"seeds": 1}, "proxy": BRIEF}
    write_study(tmp_path, keys)
    for options in ((), ("--fresh",)):
        result = called("run", "study.yaml", *INLINE, *options, cwd=tmp_path)
        assert result.returncode == 0 and "trained 1 run in" in result.stdout


def test_runs_are_shared_between_studies(finished: Finished, tmp_path: Path) -> None:
    folder, _ = finished
    path = write_study(tmp_path, TINY, study="other")
    result = called("run", path, "--results", folder / "results", cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.count("taken from the store, complete") == 4
    assert "nothing was left to train" in result.stdout


def test_storage_may_be_elsewhere(tmp_path: Path) -> None:
    write_study(tmp_path, TINY, axes={"K": [[3, 3, 3, 3]]}, search={"seeds": 1}, proxy=BRIEF)
    options = ("--storage", f"sqlite:///{tmp_path}/elsewhere.db")
    assert called("run", "study.yaml", *INLINE, *options, cwd=tmp_path).returncode == 0
    assert not (tmp_path / "results" / "studies.db").exists()
    assert "finished" in called("status", "study.yaml", *options, cwd=tmp_path).stdout
    assert called("status", "study.yaml", cwd=tmp_path).returncode == 2


# Ending early


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", "study.yaml", *arguments),
        cwd=folder, env=environ(**RAY), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """The output up to the line that has these words."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"the process ended without saying {words!r}: {seen}")


@pytest.mark.long
def test_a_study_survives_all_ways_of_ending_it(tmp_path: Path) -> None:
    """SIGTERM with Ray, Ctrl-C twice inline, then the end; meanwhile others look, and a second driver is refused."""
    write_study(tmp_path, TINY | LONG, axes={"K": [[3, 3, 3, 3]]})
    process = start(tmp_path, "--workers", "1", "--fresh")
    wait_for(process, ": epoch 2/60")
    check_others(tmp_path, process.pid)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopping" in out and "stopped; nothing is lost" in err and "Traceback" not in err
    go_on = err.splitlines()[-1].strip()
    assert go_on.endswith("run study.yaml --workers 1")
    assert "1 waiting" in called("status", "study.yaml", cwd=tmp_path).stdout

    process = start(tmp_path, *INLINE)
    assert first_epoch(wait_for(process, "training on")) > 2
    wait_for(process, ": epoch ")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130

    last = subprocess.run(
        go_on, shell=True, cwd=tmp_path, env=environ(**RAY), capture_output=True, text=True, timeout=120
    )
    assert last.returncode == 0, last.stderr
    assert first_epoch(last.stdout) > 3
    assert last.stdout.count("#0 K=3-3-3-3 seed 0: epoch ") == 60 - first_epoch(last.stdout) + 1


def first_epoch(out: str) -> int:
    """The epoch that a run was resumed from, by the lines of its output."""
    since = re.search(r"from epoch (\d+) on", out)
    return int(since[1]) if since else 1


def check_others(folder: Path, driver: int) -> None:
    """What other processes can do with a study that is being driven."""
    second = called("run", "study.yaml", *INLINE, "--quiet", cwd=folder)
    assert second.returncode == 2 and "one driver at a time" in second.stderr and str(driver) in second.stderr
    status = called("status", "study.yaml", cwd=folder).stdout
    assert f"driven by process {driver}" in status and "/60" in status
    assert json.loads(called("status", "study.yaml", "--json", cwd=folder).stdout)["runs"]["running"] == 1
    assert called("show", "study.yaml", "0", cwd=folder).returncode == 0
    best = called("best", "study.yaml", cwd=folder)
    assert best.returncode == 2 and "a complete configuration" in best.stderr


def test_a_closed_pipe_is_no_error(finished: Finished) -> None:
    folder, _ = finished
    for arguments in (("run", "study.yaml"), ("show", "study.yaml"), ("schema",)):
        read, write = os.pipe()
        os.close(read)
        result = subprocess.run(command(*arguments), cwd=folder, env=environ(), stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        assert (result.returncode, result.stderr) == (141, b""), arguments


# A terminal


def on_terminal(folder: Path, *arguments: str, kind: str = "xterm", columns: int = 80) -> tuple[int, str]:
    """Run on a terminal of that width; returns the exit code and all that was written to it."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command(*arguments), cwd=folder, env=environ(TERM=kind), stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    output = b""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 1.0)[0]:
            continue
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # the terminal's last writer has ended
            break
        output += chunk
    os.close(leader)
    return process.wait(timeout=20), output.decode()


@pytest.mark.long
def test_a_terminal_shows_the_study_live_in_80_columns(tmp_path: Path) -> None:
    write_study(
        tmp_path,
        TINY,
        proxy=TINY["proxy"] | {"epochs": 9, "train_size": 256},
        axes={"K": [[3, 3, 3, 3]]},
        search={"seeds": 1},
    )
    code, output = on_terminal(tmp_path, "run", "study.yaml", *INLINE)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", re.sub(r"\x1b\[[0-9;]*m", "", output))
    assert all(words in plain for words in ("tiny  How large?", "/9", "0/1 run ", "best top1 (maximize)"))
    assert "#0 K=3-3-3-3 seed 0" in plain
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1
    assert "Best network" in plain.split("Pareto front")[1]


def test_a_dumb_terminal_gets_lines(finished: Finished) -> None:
    folder, _ = finished
    code, output = on_terminal(folder, "run", "study.yaml", kind="dumb")
    assert code == 0 and "nothing was left to train" in output and "\x1b" not in output
