"""`harness reproduce`: a recorded run trained again in a process of its own, from a database and from a summary."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tiny_studies import INLINE, TINY, CommandResult, Finished, called, files_of, harness, write_study

from harness.config.recipes.proxy import REVISION, ProxyRecipe
from harness.models.spec.network import NetworkSpec
from harness.storage import Store
from harness.system.fingerprint import fingerprint


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of one configuration and two seeds, trained in this process."""
    folder = tmp_path_factory.mktemp("recorded")
    write_study(folder, TINY, axes={"K": [[5, 5, 3, 3]]})
    assert called("run", "study.yaml", *INLINE, "--quiet", cwd=folder).returncode == 0
    return folder


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(recorded, tmp_path / "copy")
    return tmp_path / "copy"


def summary_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "results" / "tiny" / "summary.json").read_text())
    return values


def reproduced(folder: Path, *arguments: str) -> tuple[CommandResult, dict[str, Any]]:
    result = called("reproduce", *arguments, "--json", cwd=folder)
    return result, json.loads(result.stdout) if result.returncode < 2 else {}


def change(folder: Path, statement: str) -> None:
    with Store.open(folder / "results" / "studies.db") as store, store.session() as session:
        session.execute(text(statement))


# Same bits


@pytest.mark.long
def test_a_run_of_two_workers_is_reproduced_bit_by_bit_in_two_further_processes(finished: Finished) -> None:
    folder, _ = finished
    before = (files_of(folder), (folder / "results" / "studies.db").read_bytes())
    for arguments in (("study.yaml", "1"), ("results/tiny/summary.json", "1")):
        result = harness("reproduce", *arguments, "--json", cwd=folder)
        assert result.returncode == 0, result.stderr
        comparison = json.loads(result.stdout)
        assert (comparison["outcome"], comparison["not_the_same_environment"]) == ("same bits", [])
        assert comparison["compared"] == 2 * 4 + 2 and comparison["apart"] == 0.0
        assert "epoch 2/2: top1" in result.stderr
    assert (files_of(folder), (folder / "results" / "studies.db").read_bytes()) == before


@pytest.mark.long
def test_the_best_is_taken_unless_a_trial_or_a_run_is_named(recorded: Path) -> None:
    run = summary_of(recorded)["configurations"][0]["runs"][1]
    result, values = reproduced(recorded, "study.yaml", run["id"])
    assert (result.returncode, values["outcome"], values["run"], values["seed"]) == (0, "same bits", run["id"], 1)
    run_result = called("reproduce", "results/tiny", cwd=recorded)
    assert run_result.returncode == 0 and "same bits: 10 numbers compared, all equal" in run_result.stdout
    assert "tiny  trial 0, seed 0" in run_result.stdout


# Other bits


def test_other_bits_in_the_same_environment_give_exit_code_1(copy: Path) -> None:
    change(copy, "UPDATE epochs SET train_loss = train_loss + 1e-12 WHERE epoch = 2")
    result = called("reproduce", "study.yaml", cwd=copy)
    assert result.returncode == 1
    assert "SAME ENVIRONMENT AND OTHER BITS" in result.stdout
    assert "1 of 10 numbers differ; the first is train_loss of epoch 2" in result.stdout


@pytest.mark.long
def test_other_bits_in_another_environment_are_reported_with_the_spread_of_the_seeds(copy: Path) -> None:
    change(copy, "UPDATE epochs SET top1 = top1 + 1 WHERE epoch = 2")
    change(copy, """UPDATE runs SET environment = replace(environment, '"torch": "', '"torch": "1.')""")
    result = called("reproduce", "study.yaml", cwd=copy)
    words = " ".join(result.stdout.split())
    assert result.returncode == 0 and "not the same environment (torch 1." in words
    assert "top1 differs by 1.00; the seeds have a standard deviation of" in words and "(n = 2)" in words


def test_equal_bits_in_another_environment_are_same_bits(copy: Path) -> None:
    change(copy, """UPDATE runs SET environment = replace(environment, '"torch": "', '"torch": "1.')""")
    result, values = reproduced(copy, "study.yaml")
    assert (result.returncode, values["outcome"]) == (0, "same bits")
    assert values["not_the_same_environment"][0].startswith("torch 1.")


# Records of earlier versions


def older(copy: Path, revision: int) -> Path:
    """A summary as it was before environments were recorded: no curve, no recipe, a study file next to it."""
    values = summary_of(copy)
    recipe = ProxyRecipe.model_validate(values["recipe"])
    for key in ("recipe", "recipe_revision", "environment", "other_environments", "left_out"):
        del values[key]
    for row in values["configurations"]:
        spec = NetworkSpec.from_mapping(row["spec"])
        for run in row["runs"]:
            for key in ("curve", "environment", "earlier_environments", "times_environment"):
                del run[key]
            run["id"] = fingerprint([spec.fingerprint(), fingerprint([revision, recipe.canonical()]), run["seed"]])
            run["value"] += 0.5
    folder = copy / "claims" / "tiny"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(values))
    shutil.copy(copy / "results" / "tiny" / "study.yaml", folder)
    return folder


def test_a_summary_of_an_earlier_version_is_of_an_unknown_environment(copy: Path) -> None:
    result, values = reproduced(copy, str(older(copy, REVISION)))
    assert (result.returncode, values["outcome"]) == (0, "not the same environment")
    assert values["not_the_same_environment"] == ["unknown environment, recorded before environments were kept"]
    assert values["apart"] == 0.5 and values["n_seeds"] == 2 and values["compared"] == 3


def test_a_recipe_that_has_another_meaning_now_is_reported(copy: Path) -> None:
    result, values = reproduced(copy, str(older(copy, REVISION - 1)))
    assert result.returncode == 0
    words = f"the recipe's meaning has changed since (revision {REVISION - 1} -> {REVISION})"
    assert values["not_the_same_environment"][0] == words


def test_a_run_whose_identity_is_another_now_is_reported(copy: Path) -> None:
    path = copy / "results" / "tiny" / "summary.json"
    path.write_text(path.read_text().replace(summary_of(copy)["configurations"][0]["runs"][0]["id"], "0" * 16))
    result, values = reproduced(copy, str(path))
    assert result.returncode == 0 and values["outcome"] == "same bits"
    assert "have another meaning now: the id was 0000000000000000" in values["not_the_same_environment"][0]


def test_every_recorded_claim_names_a_run_that_can_be_trained_again() -> None:
    from harness.analysis.recorded_runs import recorded_run_from_summary

    folders = sorted(Path(__file__).parents[2].glob("results/claims/*/"))
    assert len(folders) > 5
    for folder in folders:
        recorded = recorded_run_from_summary(folder, None, None)
        assert recorded.environments and recorded.value is not None
        assert recorded.changed_meaning is None or "revision" in recorded.changed_meaning


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("study.yaml", "7"), "the trial must be one of the study's that were trained, but got 7"),
        (("study.yaml", "0123456789abcdef"), "the run must be one of the study's, but got '0123456789abcdef'"),
        (("study.yaml", "best"), "must be the number of a trial, or a run's id"),
        (("results/tiny", "7"), "the trial must be one of the study's that were trained, but got 7"),
        (("nothing.json",), "a summary must be a file that can be read"),
        (("nothing.yaml",), "nothing.yaml"),
        (("broken.json",), "a summary must be a summary.json that `harness run` wrote"),
        (("list.json",), "it holds no mapping"),
        (("empty.json",), "KeyError: 'configurations'"),
    ],
)
def test_mistakes_are_reported(copy: Path, arguments: tuple[str, ...], words: str) -> None:
    (copy / "broken.json").write_text("{")
    (copy / "list.json").write_text("[]")
    (copy / "empty.json").write_text("{}")
    result = called("reproduce", *arguments, cwd=copy)
    assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr


def test_a_summary_without_its_study_file_is_refused(copy: Path) -> None:
    folder = older(copy, REVISION)
    (folder / "study.yaml").unlink()
    result = called("reproduce", folder, cwd=copy)
    assert result.returncode == 2 and "must have its resolved study.yaml next to it" in result.stderr


def test_a_run_that_did_not_end_is_refused(copy: Path) -> None:
    change(copy, "UPDATE runs SET state = 'failed' WHERE seed = 1")
    run = summary_of(copy)["configurations"][0]["runs"][1]["id"]
    result = called("reproduce", "study.yaml", run, cwd=copy)
    assert result.returncode == 2 and "must be complete, or have diverged" in result.stderr
