"""Configurations that a study file lists (`search.enqueue`) are tried first, and are no uniform draws."""

import json
from pathlib import Path
from typing import Any

import pytest
from searches_in_memory import SearchInMemory
from tiny_studies import FOUR, SCRIPTED, Played, called, well, write_study

from harness.analysis.proposal_origin import ENQUEUED_AS, PROPOSED_BY, is_space_filling
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.enqueue import network_candidate
from harness.config.study_file import load_study
from harness.errors import StudyError
from harness.executors.scripted import ScriptedExecutor
from harness.models.spec.network import NetworkSpec

AXES: dict[str, Any] = {"K[0]": [3, 7, 13], "K[3]": [3, 7, 13], "shortcut": [True, False]}
RANDOM: dict[str, Any] = {"sampler": "random", "trials": 6, "seeds": 1}
NANO = [31, 29, 27, 13]


def drive(played: Played) -> list[Any]:
    for _ in played.events(well):
        pass
    with open_study_reader(played.path, played.workspace) as reader:
        return reader.trials


def test_listed_configurations_are_tried_first_and_are_no_uniform_draws(tmp_path: Path) -> None:
    entries = [{"K[0]": 13, "shortcut": False, "K[3]": 13}, {"K[0]": 7, "K[3]": 3}]
    played = Played(tmp_path, axes=AXES, when={}, search=RANDOM | {"enqueue": entries})
    trials = drive(played)
    assert len(trials) == 6
    assert [trial.params for trial in trials[:2]] == [
        {"K[0]": 13, "K[3]": 13, "shortcut": False},
        {"K[0]": 7, "K[3]": 3, "shortcut": True},
    ]
    assert [trial.user_attrs[PROPOSED_BY] for trial in trials] == ["enqueued"] * 2 + ["sampler"] * 4
    assert trials[0].user_attrs[ENQUEUED_AS] == "K[0]=13, shortcut=false, K[3]=13"
    fingerprint = open_space(played.file).fingerprint()
    assert [is_space_filling(trial, played.file.study, fingerprint) for trial in trials] == [False] * 2 + [True] * 4
    assert len(drive(Played(tmp_path, axes=AXES, when={}, search=RANDOM | {"enqueue": entries}))) == 6
    more = [*entries, {"K[0]": 3, "K[3]": 3, "shortcut": False}]
    grown = drive(Played(tmp_path, axes=AXES, when={}, search=RANDOM | {"trials": 8, "enqueue": more}))
    if more[2] not in [trial.params for trial in trials]:
        assert grown[6].params == more[2] and grown[6].user_attrs[PROPOSED_BY] == "enqueued"


MIXED: dict[str, Any] = {
    "base": {"B": 1, "C": 8, "K": 3, "shortcut": [True, True, True, False]},
    "axes": {
        "K[0]": [3, 7, 13],
        "shortcut[3]": [True, False],
        "kernel[0]": ["plain", "stripes"],
        "ffn_ratio": [[4, 4, 2, 2], 4, 2],
        "recipe.optimizer.lr": [0.001, 0.004],
        "recipe.epochs": [2, 4],
    },
}


def test_fields_of_the_base_stages_and_keys_of_the_recipe_can_be_listed(tmp_path: Path) -> None:
    """What an entry leaves out has the value of the base and of the proxy."""
    entries: list[Any] = [
        {"K[0]": 13, "kernel[0]": "stripes", "recipe.optimizer.lr": 0.001, "ffn_ratio": [2, 2, 2, 2]},
        {"shortcut[3]": True, "ffn_ratio": [4, 4, 2, 2], "recipe.epochs": 2},
    ]
    proxy = SCRIPTED["proxy"] | {"optimizer": {"lr": 0.004}}
    search = {"sampler": "random", "trials": 4, "seeds": 1, "enqueue": entries}
    study = SearchInMemory(tmp_path, **MIXED, proxy=proxy, search=search)
    first, second = study.opened[:2]
    assert study.origins == ["enqueued"] * 2 + ["sampler"] * 2
    assert (first.spec.K[0], first.spec.at("kernel", 0), first.spec.at("kernel", 1)) == (13, "stripes", "plain")
    assert first.spec.by_stage("shortcut") == (True, True, True, False) and first.spec.ffn_ratio == 2
    recipes = [opened.runs[0].recipe for opened in (first, second)]
    assert [(recipe.optimizer.lr, recipe.epochs) for recipe in recipes] == [(0.001, 4), (0.004, 2)]
    assert second.spec.K[0] == 3 and second.spec.shortcut is True
    assert second.spec.by_stage("ffn_ratio") == (4, 4, 2, 2)


def test_a_network_is_found_in_whichever_way_it_is_written(tmp_path: Path) -> None:
    """One stage of an axis, a list of equal values, and a field in which no stage is used."""
    proxy = SCRIPTED["proxy"] | {"optimizer": {"lr": 0.004}}
    space = SearchInMemory(tmp_path, **MIXED, proxy=proxy, search={"sampler": "random", "trials": 1, "seeds": 1}).space
    network = {"B": 1, "C": 8, "K": [7, 3, 3, 3], "ffn_ratio": [4, 4, 4, 4], "shortcut": [True, True, True, True]}
    candidate = network_candidate(NetworkSpec.from_mapping(network), space.recipe, space, "it")
    assert candidate.params["ffn_ratio"] == 4 and candidate.params["shortcut[3]"] is True
    other = NetworkSpec.from_mapping(network | {"shortcut": [False, True, True, True]})
    with pytest.raises(StudyError, match="has `shortcut: "):
        network_candidate(other, space.recipe, space, "it")


def test_listed_configurations_are_no_part_of_the_share_of_the_prior(tmp_path: Path) -> None:
    axes = {"K[0]": {"values": [3, 7, 13], "prior": [1, 2, 3]}, "K[3]": [3, 7, 13], "shortcut": [True, False]}
    entries = [{"K[0]": k, "K[3]": 3} for k in (3, 7, 13)]
    search = {"sampler": "tpe", "trials": 9, "seeds": 1}
    listed = SearchInMemory(tmp_path, axes=axes, search=search | {"enqueue": entries})
    plain = SearchInMemory(tmp_path, axes=axes, search=search)
    assert listed.origins == ["enqueued"] * 3 + plain.origins[:6]
    assert plain.origins[:2] == ["prior", "sampler"]


def test_listed_configurations_are_not_chosen_by_a_score(tmp_path: Path) -> None:
    search = {"sampler": "tpe", "trials": 3, "seeds": 1, "enqueue": [{"K[0]": 3, "K[3]": 3, "shortcut": False}]}
    study = SearchInMemory(tmp_path, axes=AXES, search=search | {"first_rung": "receptive_field"})
    assert study.origins == ["enqueued", "first_rung", "first_rung"]
    assert "first_rung" not in study.opened[0].trial.user_attrs


def test_listed_configurations_that_no_trial_is_left_for_are_counted(tmp_path: Path) -> None:
    entries = [{"K[0]": k, "K[3]": 3} for k in (3, 7, 13)]
    study = SearchInMemory(tmp_path, axes=AXES, search=RANDOM | {"trials": 1, "enqueue": entries})
    assert study.origins == ["enqueued"]
    assert study.proposals.why_ended() == (
        "2 configurations of `search.enqueue` not tried, since all 1 `trials` are used"
    )
    planned = called("run", study.file.path, "--dry-run", cwd=tmp_path)
    text = " ".join(planned.stdout.split())
    assert planned.returncode == 0 and "tried first: K[0]=3, K[3]=3 (K[0]=3 K[3]=3 shortcut=true)" in text
    assert "2 configurations of `search.enqueue` will not be tried, since `search.trials` is 1" in text


def test_in_a_grid_listed_cells_come_first_and_all_are_trained_once(tmp_path: Path) -> None:
    played = Played(tmp_path, **FOUR, search={"seeds": 1, "enqueue": ["replknet_nano", {"K": 13}]})
    for _ in played.events(well):
        pass
    assert isinstance(played.executor, ScriptedExecutor)
    assert [job.run.spec.K[0] for job in played.executor.submitted] == [31, 13, 3, 7]
    with open_study_reader(played.path, played.workspace) as reader:
        listed = {row.spec.K[0]: row.enqueued_as for row in reader.results().rows}
    assert listed == {31: "replknet_nano", 13: "K=13", 3: None, 7: None}


@pytest.mark.parametrize("entry", ["best of other", "best 2 of other"])
def test_the_best_of_another_study_is_looked_up_in_the_database(tmp_path: Path, entry: str) -> None:
    for _ in Played(tmp_path, study="other", **FOUR, search={"seeds": 2}).events(well):
        pass
    axes = {"K": [[3] * 4, [7] * 4, [13] * 4, NANO], "drop_path": [0.0, 0.1]}
    played = Played(tmp_path, axes=axes, when={}, search=RANDOM | {"enqueue": [entry]})
    trials = drive(played)
    first = [json.loads(trial.params["K"])[0] for trial in trials if trial.user_attrs[PROPOSED_BY] == "enqueued"]
    assert first == ([31] if entry == "best of other" else [31, 13])
    assert trials[0].params["drop_path"] == 0.0
    assert isinstance(played.executor, ScriptedExecutor)
    assert all(job.run.spec.K[0] not in first or job.run.spec.drop_path for job in played.executor.submitted)


def test_a_listed_preset_must_be_the_network_of_the_space(tmp_path: Path) -> None:
    keys = {"study": "q", "base": "replknet_nano", "axes": {"K": [[3] * 4, NANO]}}
    file = load_study(write_study(tmp_path, keys, search={"enqueue": ["replknet_nano"]}))
    assert file.study.search.enqueue == ["replknet_nano"]
    with pytest.raises(StudyError, match="has `B: "):
        load_study(
            write_study(tmp_path, keys | {"axes": {"K": [[31, 29, 27, 13]]}}, search={"enqueue": ["replknet_31b"]})
        )


@pytest.mark.parametrize(
    ("entry", "message", "remedy"),
    [
        ("replknet_nanoo", "must list presets, mappings of choices", "`replknet_nano`"),
        ({"K[0]": 5}, "the axis `K[0]` lacks, but got 5", "Values: 3, 7, 13."),
        ({"K[1]": 5}, 'must choose on the study\'s axes, but got "K[1]"', "K[0]"),
        ({"K[0]": 13, "K[3]": 13, "shortcut": True}, "within rules and budgets", "Leave it out"),
        ("replknet_31b", "lacks", "Values: 3, 7, 13."),
        ({"K[0]": 3}, "the base has a value that the axis `K[3]` lacks", "Values: 3, 7"),
        ("best 0 of other", "one of them or more", "best 3 of OTHER_STUDY"),
        ("best of q", "the best of another study", "best 3 of OTHER_STUDY"),
        (3, "`search.enqueue[0]` must be text", ""),
    ],
)
def test_what_is_not_in_the_space_is_refused_when_the_file_is_read(
    tmp_path: Path, entry: Any, message: str, remedy: str
) -> None:
    axes = AXES | {"K[3]": [3, 7]} if entry == {"K[0]": 3} else AXES
    keys = {
        "study": "q",
        "base": "replknet_nano",
        "axes": axes,
        "rules": ["not (K[0] == 13 and K[3] == 13 and shortcut)"],
    }
    path = write_study(tmp_path, keys, search=RANDOM | {"enqueue": [entry]})
    with pytest.raises(StudyError) as refused:
        load_study(path)
    assert message in str(refused.value) and remedy in str(refused.value), str(refused.value)
    assert "study.yaml:" in str(refused.value)


def test_a_study_that_has_no_best_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = write_study(
        tmp_path, {"study": "q", "base": "replknet_nano", "axes": AXES}, search=RANDOM | {"enqueue": ["best of other"]}
    )
    for arguments in (("--dry-run",), ("--executor", "inline")):
        result = called("run", path, *arguments, cwd=tmp_path)
        assert result.returncode == 2 and "must name a study of this database" in result.stderr
        assert "study.yaml:" in result.stderr and not (tmp_path / "results").exists()


def test_listed_configurations_are_shown(tmp_path: Path) -> None:
    keys = {"study": "costs", "base": "replknet_nano", "axes": {"K": [[3] * 4, [5, 5, 3, 3]]}}
    small = {"dataset": "shapes", "epochs": 0, "resolution": 16, "val_size": 8, "train_size": 16, "batch_size": 8}
    path = write_study(
        tmp_path,
        keys,
        proxy=small,
        objectives={"params": "minimize"},
        search={"seeds": 1, "enqueue": [{"K": [5, 5, 3, 3]}]},
    )
    assert "tried first: K=[5, 5, 3, 3] (K=5-5-3-3)" in called("run", path, "--dry-run", cwd=tmp_path).stdout
    ran = called("run", path, "--executor", "inline", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Enqueued by the study file: #0 K=[5, 5, 3, 3]." in called("show", path, cwd=tmp_path).stdout
    assert "enqueued by the study file: K=[5, 5, 3, 3]" in called("show", path, "0", cwd=tmp_path).stdout
    values = json.loads(called("show", path, "0", "--json", cwd=tmp_path).stdout)
    assert values["proposed_by"] == "enqueued" and values["enqueued_as"] == "K=[5, 5, 3, 3]"
