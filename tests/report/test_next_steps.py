"""The commands that a study prints at its end work as they are printed, and name its full-scale training."""

import re
import shlex
from contextlib import chdir
from pathlib import Path

import pytest
from tiny_studies import BRIEF, INLINE, TINY, CommandResult, Played, called, well, write_study

from harness.analysis.configuration_result import ConfigurationResult
from harness.cli.run import full_scale_commands
from harness.system.command_line import program_name

LARGE = {"B": [1, 1, 1, 1], "C": [4, 4, 8, 8], "K": [3, 3, 3, 3], "stem_stride": 2, "ffn_ratio": 2}


def next_commands(result: CommandResult, folder: Path) -> list[list[str]]:
    """What follows the name of the harness in each command, as it is called in that folder."""
    lines = result.stdout.split("\nNext\n")[1].splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("  ") and not line.startswith("  #")]
    with chdir(folder):
        program = program_name()
    assert words and all(command[: len(program)] == program for command in words)
    return [command[len(program) :] for command in words]


def run_as_printed(words: list[str], folder: Path) -> CommandResult:
    """The command, in this process; what it prints goes to the file that `>` names."""
    words, _, target = (words[: words.index(">")], ">", words[-1]) if ">" in words else (words, "", "")
    result = called(*words, cwd=folder)
    if target:
        (folder / target).write_text(result.stdout)
    return result


@pytest.mark.long
@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("imagenet_300", ("--results", "my results")),
        ("shapes", ("--quick",)),
    ],
)
def test_every_command_works_as_it_is_printed(recipe: str, options: tuple[str, ...], tmp_path: Path) -> None:
    write_study(
        tmp_path,
        TINY,
        full_scale={"base": LARGE, "recipe": recipe},
        search={"seeds": 1},
        quick={"axes": {"K": [[5, 5, 3, 3]]}},
    )
    result = called("run", "study.yaml", *INLINE, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    commands = next_commands(result, tmp_path)
    assert [command[0] for command in commands] == ["show", "best", "train", "dashboard"]
    for words in commands[:-1]:
        command_result = run_as_printed(words, tmp_path)
        assert (command_result.returncode, command_result.stderr) == (0, ""), (words, command_result)
    assert called("show", "best.yaml", cwd=tmp_path).returncode == 0
    training = commands[2]
    assert training[:3] == ["train", "best-of", "study.yaml"] and training[training.index("--recipe") + 1] == recipe
    assert ("--data" in training) == (recipe == "imagenet_300")
    results = tmp_path / ("results" if "--quick" in options else "my results")
    assert not (results / "full_scale").exists()


def best_row(folder: Path) -> ConfigurationResult:
    best = Played(folder, search={"seeds": 1}).answer(well).best
    assert best is not None
    return best


def test_without_full_scale_no_training_is_proposed(tmp_path: Path) -> None:
    assert full_scale_commands(Played(tmp_path).file, best_row(tmp_path), []) == []


def test_where_nothing_is_best_no_training_is_proposed(tmp_path: Path) -> None:
    full_scale = {"base": LARGE, "recipe": "shapes"}
    write_study(tmp_path, TINY, proxy=BRIEF, search={"seeds": 1}, full_scale=full_scale, budgets={"latency_ms": 1e-6})
    result = called("run", "study.yaml", *INLINE, cwd=tmp_path)
    assert result.returncode == 1
    assert [command[0] for command in next_commands(result, tmp_path)] == ["show", "dashboard"]


@pytest.mark.parametrize("recipe", ["imagenet_384_finetune", None])
def test_a_recipe_that_starts_from_weights_or_none(recipe: str | None, tmp_path: Path) -> None:
    best = best_row(tmp_path)
    file = Played(tmp_path, full_scale={"base": "replknet_31b"} | ({"recipe": recipe} if recipe else {})).file
    ((command, purpose),) = full_scale_commands(file, best, ["--results", "there"])
    assert ("--weights FILE" in command) == (recipe is not None)
    assert re.search("--recipe (imagenet_384_finetune|imagenet_300) --data FOLDER", command)
    assert command.endswith("--dry-run --results there") and "without --dry-run it is trained" in purpose


def test_the_remedy_for_a_study_that_was_never_started_starts_it(tmp_path: Path) -> None:
    write_study(tmp_path, TINY, proxy=BRIEF, search={"seeds": 1})
    options = ("--results", "my results")
    assert called("run", "study.yaml", *INLINE, *options, "--quiet", cwd=tmp_path).returncode == 0
    write_study(tmp_path, TINY, proxy=BRIEF, study="other", quick={"search": {"seeds": 1}})
    result = called("status", "study.yaml", "--quick", *options, cwd=tmp_path)
    assert result.returncode == 2
    words = shlex.split(result.stderr.partition("Start it: `")[2].partition("`")[0])[len(program_name()) :]
    assert words == ["run", "study.yaml", "--quick", *options]
    assert called(*words, "--dry-run", cwd=tmp_path).returncode == 0
