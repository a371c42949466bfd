"""The other commands, and the command line's messages for mistakes."""

import json
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_studies import REPOSITORY, TINY, Finished, called, environ, files_of, harness, write_study

from harness import __version__
from harness.cli import main
from harness.cli.commands import COMMANDS, command_module
from harness.system.command_line import resume_command, without_password

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
    output = called("best", "study.yaml", cwd=folder).stdout
    (tmp_path / "best.yaml").write_text(output)
    write_study(tmp_path, TINY, study="next", base="best.yaml", axes={"shortcut": [True, False]})
    result = called("run", "study.yaml", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0 and "2 configurations" in result.stdout
    assert yaml.safe_load(output)["C"] == [4, 4, 8, 8]


def test_status_of_a_finished_study_in_json(finished: Finished) -> None:
    folder, _ = finished
    values = json.loads(called("status", "study.yaml", "--json", cwd=folder).stdout)
    assert values["is_finished"] and values["driver"] is None
    assert values["configurations"] == {"complete": 2} and values["runs"] == {"complete": 4}


def test_schema_is_json() -> None:
    output = called("schema", cwd=REPOSITORY).stdout
    assert {"study", "base", "axes", "proxy"} <= json.loads(output)["properties"].keys()


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
    result = called("run", "study.yaml", "--dry-run", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 configuration, 2 runs, of which the store has 0; 2 to train" in result.stdout
    assert "1 configuration left out by params" in result.stdout and "estimated time" in result.stdout
    assert files_of(tmp_path) == {"study.yaml"}


def test_dry_run_recognizes_a_finished_study(finished: Finished) -> None:
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
    result = called("run", "study.yaml", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert files_of(tmp_path) == {"study.yaml"}


def test_markup_in_a_message_is_text(tmp_path: Path) -> None:
    result = called("run", "[bold red]x[/]", cwd=tmp_path)
    assert result.returncode == 2 and "[bold red]x[/]" in result.stderr


def test_a_study_that_was_never_started_is_not_found(tmp_path: Path) -> None:
    write_study(tmp_path, TINY)
    for name in ("status", "show", "best", "dashboard"):
        result = called(name, "study.yaml", cwd=tmp_path)
        assert result.returncode == 2 and "harness run" in result.stderr, name
    assert files_of(tmp_path) == {"study.yaml"}


def test_a_study_of_another_name_in_the_same_database_is_not_found(finished: Finished, tmp_path: Path) -> None:
    folder, _ = finished
    path = write_study(tmp_path, TINY, study="nobody")
    result = called("show", path, "--results", folder / "results", cwd=tmp_path)
    assert result.returncode == 2 and "Studies there: " in result.stderr and "tiny." in result.stderr


def test_an_unknown_trial_is_not_found(finished: Finished) -> None:
    folder, _ = finished
    result = called("show", "study.yaml", "7", cwd=folder)
    assert result.returncode == 2 and "Trials: 0 to 1" in result.stderr


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
    result = called("run", "study.yaml", *options, cwd=tmp_path)
    assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr
    assert "--ray-address" in options or files_of(tmp_path) == {"study.yaml"}


def test_a_study_file_that_changed_is_refused_with_the_keys(finished: Finished, tmp_path: Path) -> None:
    folder, _ = finished
    options = ("--results", folder / "results")
    path = write_study(tmp_path, TINY, proxy=TINY["proxy"] | {"epochs": 3}, search={"seeds": 2, "seed": 1})
    result = called("run", path, *options, cwd=tmp_path)
    assert result.returncode == 2
    assert "`proxy.epochs` from 2 to 3" in result.stderr and "`search.seed` from 0 to 1" in result.stderr
    assert "study:" in result.stderr and "--fresh" in result.stderr
    write_study(tmp_path, TINY, resources={"minutes_per_run": 5}, full_scale={"base": "replknet_31b"})
    assert called("run", path, *options, cwd=tmp_path).returncode == 0


def test_an_error_of_the_harness_itself_states_that_the_data_are_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Path, *, is_quick: bool) -> None:  # noqa: ARG001
        raise ZeroDivisionError("inner")

    monkeypatch.setattr("harness.config.study_file.load_study", broken)
    assert main(["run", str(tmp_path / "study.yaml")]) == 1
    output = capsys.readouterr().err
    assert "ZeroDivisionError" in output and "is safe" in output


# The command line


def test_version_and_help() -> None:
    assert harness("--version", cwd=REPOSITORY).stdout == f"harness {__version__}\n"
    output = harness("--help", cwd=REPOSITORY).stdout
    assert all(f"    {name}" in output for name in ("run", "status", "show", "best", "dashboard", "schema", "bench"))
    assert harness(cwd=REPOSITORY).returncode == 2


def test_help_of_run_study_takes_little(tmp_path: Path) -> None:
    """In seconds of processor time, which other processes on the machine don't change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    script = str(REPOSITORY / "run_study.py")
    result = subprocess.run(
        [sys.executable, script, "--help"], cwd=tmp_path, env=environ(), capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0 and result.stdout.startswith("usage: run_study.py")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_passwords_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", "run", "f.yaml", "--fresh", "--storage", "postgresql://me:se:cr@db/x"])
    assert resume_command().endswith("harness run f.yaml --storage 'postgresql://me:***@db/x'")
    assert without_password("sqlite:///a:b/c@d.db") == "sqlite:///a:b/c@d.db"


# Commands


@pytest.mark.parametrize(
    ("typed", "suggestion"),
    [
        (("stauts",), "`status`"),
        (("status", "study.yaml", "--quik"), "`--quick`"),
        (("verify", "--only", "cuonts"), "`counts`"),
        (("downstream", "segmnt", "x"), "`segment`"),
    ],
)
def test_a_mistyped_command_choice_or_option_gets_a_suggestion(
    typed: tuple[str, ...], suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 2 and f"Did you mean {suggestion}?" in capsys.readouterr().err


def test_what_is_like_nothing_gets_no_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["xylophone"])
    assert "Did you mean" not in capsys.readouterr().err


def test_every_command_is_a_module_with_a_parser_and_an_action() -> None:
    for name in COMMANDS:
        module = command_module(name)
        assert (module.__doc__ or "").startswith(f"`harness {name}`: ")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_files(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").touch()
    script = called("completion", "bash", cwd=tmp_path).stdout

    def completed(*words: str) -> set[str]:
        line = f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}"
        function = re.search(r"complete .*-F (\S+) harness", script)
        assert function is not None
        ask = f"{script}\n{line}\n{function[1]}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        ended = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, cwd=tmp_path, check=True)
        return set(ended.stdout.split())

    assert {"status", "run", "shape-bias"} <= completed("harness", "")
    assert completed("harness", "sta") == {"status"}
    assert "--quick" in completed("harness", "status", "study.yaml", "--q")
    assert "study.yaml" in completed("harness", "run", "")
