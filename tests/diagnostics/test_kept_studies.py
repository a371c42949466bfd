"""The claim studies that a results folder keeps as summaries: shown in a fresh clone, and which can be run again."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import REPOSITORY, Played, called, gains, text_of, write_study

from harness.analysis.formatting import json_text
from harness.analysis.results import study_results
from harness.analysis.study_reader import open_study_reader
from harness.config.recipes import proxy
from harness.diagnostics.verify import recorded_claims
from harness.diagnostics.verify.findings import ClaimRow
from harness.diagnostics.verify.recorded_claims import all_recorded_claims
from harness.diagnostics.verify.report import verdicts_view
from harness.report.claims import EARLIER_ENVIRONMENT, read_claims_summary
from harness.report.plots.claims import draw_claims_figure
from harness.storage.workspace import Workspace

LARGER = {"K=[31,29,27,13], reparam=null": 1, "K=[3,3,3,3]": -1}
SMALLER = {"K=[3,3,3,3]": 1, "K=[13,13,13,13], reparam=null": -1}
CLAIMS = [
    {"name": "larger", "says": "31 is ahead of 3", "contrast": LARGER, "expect": "> 0"},
    {"name": "smaller", "says": "3 is ahead of 13", "contrast": SMALLER, "expect": "> 0"},
]
KEPT = sorted((REPOSITORY / "results" / "claims").glob("*/summary.json"))


def rows_of(workspace: Workspace) -> list[ClaimRow]:
    return [row for row in all_recorded_claims(workspace) if row.source.endswith("summary.json") or row.fault]


# A fresh clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git keeps of the results."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(REPOSITORY / "results" / "claims", folder / "results" / "claims")
    return folder


def test_a_fresh_clone_shows_every_recorded_claim_and_what_can_be_checked(clone: Path) -> None:
    result = called("verify", "--only", "claims", "--json", cwd=clone)
    assert (result.returncode, result.stderr) == (0, "")
    rows = {(row["study"], row["name"]): row for row in json.loads(result.stdout)["claims"]}
    recorded = [json.loads(file.read_text()) for file in KEPT]
    assert len(recorded) > 9
    assert set(rows) == {(summary["study"], claim["name"]) for summary in recorded for claim in summary["claims"]}
    for summary in recorded:
        for claim in summary["claims"]:
            row = rows[summary["study"], claim["name"]]
            assert (row["verdict"], row["effect"], row["n"]) == (claim["verdict"], claim["effect"], claim["n"])
            assert row["environment"] == ("" if "recipe_revision" in summary else EARLIER_ENVIRONMENT)
            assert row["check"].startswith(("yes: `", "no: ")) and row["compared"] is None


def test_the_table_names_the_command_and_the_time_and_marks_what_is_old(clone: Path) -> None:
    result = called("verify", "--only", "claims", cwd=clone)
    text = " ".join(result.stdout.split())
    assert "no claim study is recorded" not in text
    assert "kernel_size stored in results/claims/kernel_size/summary.json" in text
    are_old = ["recipe_revision" not in json.loads(file.read_text()) for file in KEPT]
    assert (f"† {EARLIER_ENVIRONMENT}" in text) == any(are_old)
    assert "recorded: Trained on " in text
    assert re.search(r"kernel_size.yaml`, about \d+ min for \d+ runs", text)


def test_a_study_that_was_not_run_here_names_what_was_recorded_of_it(clone: Path) -> None:
    (clone / "kernel_size.yaml").write_text((REPOSITORY / "search_spaces" / "kernel_size.yaml").read_text())
    for name in ("show", "status", "best"):
        result = called(name, "kernel_size.yaml", cwd=clone)
        assert result.returncode == 2 and "run kernel_size.yaml`" in result.stderr
        assert "recorded of it before: results/claims/kernel_size/summary.txt" in result.stderr


# What can be checked again


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """A study with claims in a database, and kept as a summary."""
    folder = tmp_path_factory.mktemp("driven")
    played = Played(folder, claims=CLAIMS)
    for _ in played.events(gains(K31=8)):
        pass
    return played


def values_of(played: Played) -> dict[str, Any]:
    with open_study_reader(played.path, played.workspace) as reader:
        results = study_results(reader.file.study, reader.store, reader.trials, {}, reader.claims())
    return json.loads(json_text(results.to_dict()))  # type: ignore[no-any-return]


def keep(results: Path, values: dict[str, Any], study: str | None) -> None:
    """Write a summary, and the study file next to it."""
    folder = results / "claims" / str(values["study"])
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(values))
    if study is not None:
        (folder / "study.yaml").write_text(study)


def resolved(played: Played) -> str:
    return (played.workspace.folder("question") / "study.yaml").read_text()


def test_the_copy_next_to_the_summary_is_enough(driven: Played, tmp_path: Path) -> None:
    keep(tmp_path, values_of(driven), resolved(driven))
    larger, smaller = rows_of(Workspace(tmp_path))
    assert larger.check == smaller.check and f"claims/question/study.yaml --results {tmp_path}`" in larger.check
    assert larger.check.startswith("yes: `") and "about 3 min for 15 runs" in larger.check.replace("2 min", "3 min")
    assert larger.environment == "" and larger.finished is not None


def test_a_study_file_that_changed_since_is_named_with_its_keys(
    driven: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, values_of(driven), resolved(driven).replace("epochs: 4", "epochs: 5"))
    monkeypatch.setattr(recorded_claims, "study_files", lambda: [driven.path.with_name("question.yaml")])
    shutil.copy(driven.path, driven.path.with_name("question.yaml"))
    check = rows_of(Workspace(tmp_path))[0].check
    assert check.startswith("no: ") and "question.yaml asks something else since (changed: `proxy.epochs`)" in check


def test_a_data_set_that_is_missing_is_named(driven: Played, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    write_study(tmp_path, {**json.loads(driven.path.read_text().split("\n", 1)[1])})
    study = json.loads(path.read_text().split("\n", 1)[1])
    study["proxy"] |= {"dataset": "imagefolder", "root": str(tmp_path / "nowhere")}
    keep(tmp_path, values_of(driven), json.dumps(study))
    check = rows_of(Workspace(tmp_path))[0].check
    assert check.startswith("no: ") and "nowhere" in check


def test_a_gpu_that_is_missing_is_named(driven: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_claims, "has_gpu", lambda: False)
    keep(tmp_path, values_of(driven) | {"devices": ["cuda (NVIDIA H100)"]}, resolved(driven))
    assert "recorded on cuda (NVIDIA H100), and there is no GPU here" in rows_of(Workspace(tmp_path))[0].check


def test_a_recipe_that_means_something_else_since_is_reported(
    driven: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, values_of(driven), resolved(driven))
    assert "something else since" not in rows_of(Workspace(tmp_path))[0].check
    monkeypatch.setattr(proxy, "REVISION", -1)
    check = rows_of(Workspace(tmp_path))[0].check
    assert check.startswith("yes") and "the same recipe means something else since, so all are other runs" in check


def test_without_any_study_file_nothing_can_be_checked(driven: Played, tmp_path: Path) -> None:
    keep(tmp_path, values_of(driven), None)
    check = rows_of(Workspace(tmp_path))[0].check
    assert check.startswith("no: ") and "study.yaml" in check


@pytest.mark.parametrize("text", ["{", "[]", '{"study": "a"}'])
def test_a_summary_that_cannot_be_read_is_a_fault_and_hides_no_other(text: str, driven: Played, tmp_path: Path) -> None:
    keep(tmp_path / "results", values_of(driven), resolved(driven))
    (tmp_path / "results" / "claims" / "broken").mkdir()
    (tmp_path / "results" / "claims" / "broken" / "summary.json").write_text(text)
    result = called("verify", "--only", "claims", cwd=tmp_path)
    assert result.returncode == 1 and "✗ broken: " in result.stdout and "larger" in result.stdout
    assert "Traceback" not in result.stderr


# Compared with the runs that are stored here


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "the same runs are here; they agree"),
        (
            {"verdict": "contradicted"},
            "the same runs are here; they disagree: contradicted (n = 3) as recorded, {} (n = 3) by",
        ),
        ({"finished": None}, "the runs here are newer; they agree"),
        ({"finished": "2000-01-01T00:00:00+00:00"}, "the runs here are newer; they agree"),
        ({"finished": "2100-01-01T00:00:00+00:00"}, "the record is newer; they agree"),
        ({"effect": 1000.0}, "same verdict, but the recorded effect is outside the interval of the runs here"),
    ],
)
def test_kept_and_stored_are_both_shown_and_compared(
    change: dict[str, Any], words: str, driven: Played, tmp_path: Path
) -> None:
    shutil.copytree(driven.workspace.results, tmp_path / "results")
    values = values_of(driven)
    for key, value in change.items():
        (values if key == "finished" else values["claims"][0])[key] = value
    keep(tmp_path / "results", values, resolved(driven))
    stored, _, kept, _ = all_recorded_claims(Workspace(tmp_path / "results"))
    assert (stored.name, kept.name) == ("larger", "larger") and stored.source.endswith("studies.db")
    assert stored.compared is None and kept.compared is not None
    assert words.format(stored.verdict) in kept.compared
    assert kept.compared in " ".join(text_of(verdicts_view([stored, kept]), width=300).split())


# The mark


def test_the_picture_carries_the_mark(driven: Played, tmp_path: Path) -> None:
    values = values_of(driven)
    keep(tmp_path, values, resolved(driven))
    file = tmp_path / "claims" / "question" / "summary.json"
    assert "earlier environment" not in title(file)
    del values["recipe_revision"]
    file.write_text(json.dumps(values))
    assert EARLIER_ENVIRONMENT in " ".join(title(file).split())


def title(file: Path) -> str:
    figure = draw_claims_figure(read_claims_summary(file))
    return str(figure.get_suptitle())


def test_a_row_without_a_mark_has_none() -> None:
    row = ClaimRow("a", "b", "c", "supported", 1.0, 0.5, 1.5, 3, 0.01, "top1", None, "cpu")
    assert "†" not in text_of(verdicts_view([row])) and "†" in text_of(
        verdicts_view([replace(row, environment=EARLIER_ENVIRONMENT)])
    )


def test_the_readme_of_the_results_carries_the_mark() -> None:
    for file in (REPOSITORY / "results" / "README.md", REPOSITORY / "results" / "claims" / "README.md"):
        assert EARLIER_ENVIRONMENT in " ".join(file.read_text().split())
