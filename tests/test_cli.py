"""The command line as a person meets it: real processes, real training on tiny networks."""

import contextlib
import fcntl
import io
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
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tiny_studies import REPOSITORY, TINY, command, environ, harness, write_study

from harness import __version__
from harness.cli import main
from harness.study import load_spec

INLINE = ("--executor", "inline")
RAY = {"PYTHONWARNINGS": ""}
"""Environment of processes that start Ray, which warns of itself."""
LONG = {"proxy": TINY["proxy"] | {"epochs": 60, "train_size": 96}, "search": {"seeds": 1}}
"""Long enough to be interrupted, in epochs short enough to be quick."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a study that was run to its end by two workers, and what was printed meanwhile."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, TINY)
    return folder, harness("run", "study.yaml", "--workers", "2", cwd=folder, **RAY)


Finished = tuple[Path, subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Said:
    """What came of a command line in this process."""

    returncode: int
    stdout: str
    stderr: str


def called(*arguments: str | Path, cwd: Path) -> Said:
    """Run a command line in this process, where a process of its own would only cost time."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # how argparse ends
            code = int(ended.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Running


def test_run_trains_everything_and_prints_the_answer(finished: Finished) -> None:
    folder, done = finished
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": complete, top1") == 4
    assert "Pareto front" in done.stdout and "Best network" in done.stdout and "seeds 0, 1" in done.stdout
    kept = files_of(folder / "results")
    assert {"studies.db", "tiny/study.yaml", "tiny/summary.json", "tiny/summary.txt"} <= kept
    assert len(list((folder / "results" / "tiny" / "checkpoints").glob("*.pt"))) == 4


def test_output_that_is_no_terminal_is_plain_lines_with_times(finished: Finished) -> None:
    _, done = finished
    assert all(character.isprintable() or character == "\n" for character in done.stdout)
    lines = done.stdout.split("tiny  maximize top1")[0].splitlines()
    assert len(lines) > 12
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \S", line) for line in lines)
    assert "opening results/studies.db" in lines[0]
    assert sum(": epoch " in line for line in lines) == 8


def test_a_finished_study_trains_nothing_and_gives_the_same_answer(finished: Finished) -> None:
    folder, first = finished
    again = harness("run", "study.yaml", cwd=folder)
    assert again.returncode == 0 and "nothing was left to train" in again.stdout
    assert "given to a worker" not in again.stdout
    assert again.stdout.split("Pareto")[1] == first.stdout.split("Pareto")[1]


def test_a_finished_study_is_answered_without_torch_and_ray(finished: Finished) -> None:
    folder, _ = finished
    code = (
        "import sys; from harness.cli import main; code = main(['run', 'study.yaml', '--quiet']); "
        "print(*({'torch', 'ray', 'optuna_dashboard'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environ())
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout.startswith("tiny  maximize top1: 2 complete")  # and nothing else, for it was to be quiet


def test_the_commands_that_are_printed_work(finished: Finished) -> None:
    folder, done = finished
    commands = [line.strip() for line in done.stdout.split("\nNext\n")[1].splitlines() if not line.startswith("  #")]
    assert [name for name in ("show", "best", "dashboard") if any(f" {name} " in each for each in commands)]
    for each in commands:
        if " dashboard " not in each:
            said = subprocess.run(each, shell=True, cwd=folder, env=environ(), capture_output=True, text=True)
            assert (said.returncode, said.stderr) == (0, ""), each
    assert load_spec(folder / "best.yaml").C == (4, 4, 8, 8)


def test_run_study_is_the_same_door(finished: Finished) -> None:
    folder, _ = finished
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "run_study.py"), "study.yaml", "--quiet"],
        cwd=folder, env=environ(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout == harness("run", "study.yaml", "--quiet", cwd=folder).stdout


def test_fresh_forgets_and_trains_anew(tmp_path: Path) -> None:
    keys = TINY | {"axes": {"K": [[3, 3, 3, 3]]}, "search": {"seeds": 1}}
    write_study(tmp_path, keys)
    for options in ((), ("--fresh",)):
        done = called("run", "study.yaml", *INLINE, *options, cwd=tmp_path)
        assert done.returncode == 0 and "trained 1 run in" in done.stdout


def test_runs_are_shared_between_studies(finished: Finished, tmp_path: Path) -> None:
    folder, _ = finished
    path = write_study(tmp_path, TINY, study="other")
    done = called("run", path, "--results", folder / "results", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.count("taken from the store, complete") == 4
    assert "nothing was left to train" in done.stdout


def test_storage_may_stand_elsewhere(tmp_path: Path) -> None:
    write_study(tmp_path, TINY, axes={"K": [[3, 3, 3, 3]]}, search={"seeds": 1})
    where = ("--storage", f"sqlite:///{tmp_path}/elsewhere.db")
    assert called("run", "study.yaml", *INLINE, *where, cwd=tmp_path).returncode == 0
    assert not (tmp_path / "results" / "studies.db").exists()
    assert "finished" in called("status", "study.yaml", *where, cwd=tmp_path).stdout
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
    """The epoch that a run went on from, as the lines say it."""
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
        done = subprocess.run(command(*arguments), cwd=folder, env=environ(), stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        assert (done.returncode, done.stderr) == (141, b""), arguments


# A terminal


def on_terminal(folder: Path, *arguments: str, kind: str = "xterm", columns: int = 80) -> tuple[int, str]:
    """Run on a terminal of that width; gives the exit code and all that was written to it."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command(*arguments), cwd=folder, env=environ(TERM=kind), stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    said = b""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 1.0)[0]:
            continue
        try:
            part = os.read(leader, 65536)
        except OSError:  # how a terminal says that its last writer is gone
            break
        said += part
    os.close(leader)
    return process.wait(timeout=20), said.decode()


def test_a_terminal_shows_the_study_live_in_80_columns(tmp_path: Path) -> None:
    write_study(tmp_path, TINY, proxy=TINY["proxy"] | {"epochs": 12}, axes={"K": [[3, 3, 3, 3]]})
    code, said = on_terminal(tmp_path, "run", "study.yaml", *INLINE)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", re.sub(r"\x1b\[[0-9;]*m", "", said))
    assert all(words in plain for words in ("tiny  How large?", "/12", "0/2 runs", "best top1 (maximize)"))
    assert "#0 K=3-3-3-3 seed 0" in plain
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h") == 1
    assert "Best network" in plain.split("Pareto front")[1]


def test_a_dumb_terminal_gets_lines(finished: Finished) -> None:
    folder, _ = finished
    code, said = on_terminal(folder, "run", "study.yaml", kind="dumb")
    assert code == 0 and "nothing was left to train" in said and "\x1b" not in said


# Looking


def test_show_lists_all_configurations_and_one_trial(finished: Finished) -> None:
    folder, _ = finished
    all_of_them = called("show", "study.yaml", cwd=folder).stdout
    assert "3-3-3-3" in all_of_them and "5-5-3-3" in all_of_them
    one = called("show", "study.yaml", "1", cwd=folder).stdout
    assert "K: [5, 5, 3, 3]" in one and "stage 4" in one and "seed 1: complete" in one and "torch" in one
    values = json.loads(called("show", "study.yaml", "1", "--json", cwd=folder).stdout)
    assert [len(run["curve"]) for run in values["runs"]] == [2, 2]
    listed = json.loads(called("show", "study.yaml", "--json", cwd=folder).stdout)
    assert [row["n"] for row in listed["configurations"]] == [2, 2]
    assert listed == json.loads((folder / "results" / "tiny" / "summary.json").read_text())


def test_best_prints_a_spec_that_is_a_base(finished: Finished, tmp_path: Path) -> None:
    folder, _ = finished
    said = called("best", "study.yaml", cwd=folder).stdout
    (tmp_path / "best.yaml").write_text(said)
    write_study(tmp_path, TINY, study="next", base="best.yaml", axes={"shortcut": [True, False]})
    done = called("run", "study.yaml", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and "2 configurations" in done.stdout
    assert yaml.safe_load(said)["C"] == [4, 4, 8, 8]


def test_status_of_a_finished_study_in_json(finished: Finished) -> None:
    folder, _ = finished
    values = json.loads(called("status", "study.yaml", "--json", cwd=folder).stdout)
    assert values["is_finished"] and values["driver"] is None
    assert values["configurations"] == {"complete": 2} and values["runs"] == {"complete": 4}


def test_schema_is_json() -> None:
    said = called("schema", cwd=REPOSITORY).stdout
    assert {"study", "base", "axes", "proxy"} <= json.loads(said)["properties"].keys()


def test_looking_writes_nothing(finished: Finished) -> None:
    folder, _ = finished
    database = folder / "results" / "studies.db"
    before = (files_of(folder), database.read_bytes())
    for arguments in (("status",), ("show",), ("best",), ("run", "--dry-run")):
        assert called(arguments[0], "study.yaml", *arguments[1:], cwd=folder).returncode == 0
    assert (files_of(folder), database.read_bytes()) == before


# A rehearsal


def test_dry_run_lists_costs_and_time_and_writes_nothing(tmp_path: Path) -> None:
    write_study(tmp_path, TINY, budgets={"params": 2200})
    done = called("run", "study.yaml", "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 configuration, 2 runs, of which the store has 0; 2 to train" in done.stdout
    assert "1 configuration left out by params" in done.stdout and "estimated time" in done.stdout
    assert files_of(tmp_path) == {"study.yaml"}


def test_dry_run_of_a_finished_study_knows_it(finished: Finished) -> None:
    folder, _ = finished
    assert "of which the store has 4; 0 to train" in called("run", "study.yaml", "--dry-run", cwd=folder).stdout


# Mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("study: x\nbase: replknet_nano\naxes: {K: [4]}\n", ["study.yaml:3", "odd", "4", "Try 3 or 5"]),
        ("study: x\nbase: replknet_nanoo\naxes: {K: [3]}\n", ["study.yaml:2", "Did you mean `replknet_nano`"]),
        ("study: x\nbase: replknet_nano\naxs: {K: [3]}\n", ["study.yaml:3", "axs", "Did you mean `axes`"]),
        ("study: [x\n", ["study.yaml:2", "valid YAML"]),
        (
            "study: x\nbase: replknet_nano\naxes: {K: [3]}\nproxy: {dataset: imagefolder, root: nowhere}\n",
            ["study.yaml:4", "nowhere"],
        ),
    ],
)
def test_a_broken_study_file_is_one_message_and_nothing_written(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "study.yaml").write_text(text)
    done = called("run", "study.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert files_of(tmp_path) == {"study.yaml"}


def test_markup_in_a_message_is_text(tmp_path: Path) -> None:
    done = called("run", "[bold red]x[/]", cwd=tmp_path)
    assert done.returncode == 2 and "[bold red]x[/]" in done.stderr


def test_a_study_that_was_never_started_is_not_found(tmp_path: Path) -> None:
    write_study(tmp_path, TINY)
    for name in ("status", "show", "best", "dashboard"):
        done = called(name, "study.yaml", cwd=tmp_path)
        assert done.returncode == 2 and "harness run" in done.stderr, name
    assert files_of(tmp_path) == {"study.yaml"}


def test_a_study_of_another_name_in_the_same_database_is_not_found(finished: Finished, tmp_path: Path) -> None:
    folder, _ = finished
    path = write_study(tmp_path, TINY, study="nobody")
    done = called("show", path, "--results", folder / "results", cwd=tmp_path)
    assert done.returncode == 2 and "Studies there: " in done.stderr and "tiny." in done.stderr


def test_an_unknown_trial_is_not_found(finished: Finished) -> None:
    folder, _ = finished
    done = called("show", "study.yaml", "7", cwd=folder)
    assert done.returncode == 2 and "Trials: 0 to 1" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", "0"), "at least 1"),
        (("--workers", "two"), "invalid"),
        (("--executor", "slurm"), "invalid choice"),
        (("--executor", "inline", "--workers", "2"), "one run at a time"),
        (("--executor", "inline", "--ray-address", "auto"), "not on a cluster"),
        (("--storage", "mysql://x/y"), "SQLite file or a PostgreSQL"),
        (("--ray-address", "127.0.0.1:1"), "--ray-address"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    write_study(tmp_path, TINY)
    done = called("run", "study.yaml", *options, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert "--ray-address" in options or files_of(tmp_path) == {"study.yaml"}


def test_a_study_file_that_changed_is_refused_with_the_keys(finished: Finished, tmp_path: Path) -> None:
    folder, _ = finished
    where = ("--results", folder / "results")
    path = write_study(tmp_path, TINY, proxy=TINY["proxy"] | {"epochs": 3}, search={"seeds": 2, "seed": 1})
    done = called("run", path, *where, cwd=tmp_path)
    assert done.returncode == 2
    assert "`proxy.epochs` from 2 to 3" in done.stderr and "`search.seed` from 0 to 1" in done.stderr
    assert "study:" in done.stderr and "--fresh" in done.stderr
    write_study(tmp_path, TINY, resources={"cpus": 2, "minutes_per_run": 5}, full_scale={"base": "replknet_31b"})
    assert called("run", path, *where, cwd=tmp_path).returncode == 0


def test_an_error_of_the_harness_itself_says_that_the_data_are_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Path) -> None:
        raise ZeroDivisionError("inner")

    monkeypatch.setattr("harness.running.load_study", broken)
    assert main(["run", str(tmp_path / "study.yaml")]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and "is safe" in said


# The door


def test_version_and_help() -> None:
    assert harness("--version", cwd=REPOSITORY).stdout == f"harness {__version__}\n"
    said = harness("--help", cwd=REPOSITORY).stdout
    assert all(f"    {name}" in said for name in ("run", "status", "show", "best", "dashboard", "schema", "bench"))
    assert harness(cwd=REPOSITORY).returncode == 2


def test_help_of_run_study_comes_at_once() -> None:
    times = []
    for _ in range(3):
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "run_study.py", "--help"], cwd=REPOSITORY, env=environ(), capture_output=True, text=True
        )
        times.append(time.monotonic() - begun)
        assert done.returncode == 0 and done.stdout.startswith("usage: run_study.py")
    assert min(times) < 0.5
