"""The key `calibrate`: what it accepts, what it refuses, and the candidates that follow from a file."""

from pathlib import Path
from typing import Any

import pytest
from claim_studies import CLAIM
from tiny_studies import SCRIPTED, TINY, write_study

from harness.config.calibration_candidates import FIRST_SEED, plan_calibration
from harness.config.study_file import load_study, resolved_yaml
from harness.config.study_growth import compare_studies
from harness.errors import StudyError

CLAIMED: dict[str, Any] = SCRIPTED | {"search": {"seeds": 3, "max_seeds": 6}, "claims": [CLAIM]}


def plan_of(folder: Path, **overrides: Any) -> Any:
    return plan_calibration(load_study(write_study(folder, CLAIMED, **overrides)))


@pytest.mark.parametrize(
    ("calibrate", "key", "words"),
    [
        ({"vary": {"batchsize": [8]}}, "batchsize", "Did you mean `batch_size`?"),
        ({"vary": {"optimizer.rate": [0.1]}}, "optimizer.rate", "`rate` is no key of `proxy.optimizer`"),
        ({"vary": {"epochs.x": [1]}}, "epochs.x", "`proxy.epochs` must be a whole number"),
        (
            {"vary": {"batch_size": [4000]}},
            "batch_size",
            "`proxy.batch_size` must be at most `proxy.train_size` (2000)",
        ),
        ({"together": [{"resolution": 1}]}, "resolution", "`proxy.resolution` must be at least 8, but got 1"),
        ({"vary": {"width": [-1]}}, "vary", "must have a `width` above 0"),
        ({"vary": {"epochs": []}}, "epochs", "must have at least 1 entry"),
        ({"seeds": 9}, "calibrate", "max_seeds` must be at least `seeds` (9), but got 8"),
        ({"hours": 0}, "hours", "must be above 0"),
        ({"varry": {}}, "varry", "Did you mean `vary`?"),
    ],
)
def test_mistakes_are_refused_with_their_line(tmp_path: Path, calibrate: dict[str, Any], key: str, words: str) -> None:
    proxy = CLAIMED["proxy"] | {"train_size": 2000}
    path = write_study(tmp_path, CLAIMED, calibrate=calibrate, proxy=proxy)
    with pytest.raises(StudyError) as refused:
        load_study(path)
    text = str(refused.value)
    lines = path.read_text().splitlines()
    places = [problem.place for problem in refused.value.problems]
    assert words in text
    near = [lines[int(place.rpartition(":")[2]) - 2 :][:2] for place in places if place]  # a value, or its key above it
    assert any(f'"{key}"' in line for pair in near for line in pair)


def test_each_change_is_a_study_of_the_claims_arms_on_seeds_of_its_own(tmp_path: Path) -> None:
    calibrate = {"vary": {"epochs": [1, 4], "width": [0.5]}, "together": [{"batch_size": 64, "optimizer.lr": 0.4}]}
    plan = plan_of(tmp_path, calibrate=calibrate, budgets={"params": 1e9})
    changes = [dict(candidate.change.values) for candidate in plan.candidates]
    assert changes == [{}, {"epochs": 1}, {"width": 0.5}, {"batch_size": 64, "optimizer.lr": 0.4}]  # epochs: 4 is {}
    own, brief, narrow, batch = (candidate.study(5).study for candidate in plan.candidates)
    assert (own.search.seed, own.search.seeds, own.search.max_seeds, own.claims) == (FIRST_SEED, 5, None, [])
    assert own.proxy == load_study(tmp_path / "study.yaml").study.proxy
    assert own.axes == {"base": ["K=13, reparam=5", "K=3"]}
    assert brief.proxy.epochs == 1 and brief.proxy.batch_size == own.proxy.batch_size
    assert (batch.proxy.batch_size, batch.proxy.optimizer.lr, batch.proxy.epochs) == (64, 0.4, 4)
    assert [spec.C for spec in plan.candidates[2].networks.values()] == [(8, 16, 32, 64)] * 2
    assert narrow.proxy == own.proxy
    assert len({candidate.name for candidate in plan.candidates}) == 4
    assert all(candidate.name.startswith("question_") for candidate in plan.candidates)


def test_a_warm_up_is_adapted_to_fewer_epochs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, proxy={"epochs": 4}, calibrate={"vary": {"epochs": [1]}})
    assert plan.candidates[1].study(2).study.proxy.schedule.warmup_epochs == 0.25


def test_without_the_key_changes_around_the_files_own_proxy_are_compared(tmp_path: Path) -> None:
    changes = [candidate.change.values for candidate in plan_of(tmp_path).candidates]
    keys = {key for change in changes for key in change}
    assert changes[0] == {} and len(changes) > 10
    assert keys >= {"batch_size", "optimizer.lr", "epochs", "train_size", "resolution", "difficulty", "final_val_size"}
    assert "width" in keys


def test_default_changes_that_are_impossible_are_left_out(tmp_path: Path) -> None:
    proxy = SCRIPTED["proxy"] | {"train_size": 32, "batch_size": 32}
    changes = [dict(candidate.change.values) for candidate in plan_of(tmp_path, proxy=proxy).candidates]
    assert {"batch_size": 64, "optimizer.lr": 0.3} not in changes  # more than the training images
    assert {"batch_size": 16, "optimizer.lr": 0.133} in changes


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"claims": [], "search": {"seeds": 3}}, "the study must have claims"),
        ({"search": {"seeds": 3, "seed": FIRST_SEED - 2}}, "the seeds of the study must not be those of calibrations"),
        (
            {
                "proxy": {"epochs": 0},
                "objectives": {"params": "minimize"},
                "claims": [CLAIM | {"metric": "macs"}],
            },
            "`proxy.epochs` must be at least 1 to be calibrated",
        ),
    ],
)
def test_a_study_that_cannot_be_calibrated_is_refused(tmp_path: Path, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        plan_of(tmp_path, **overrides)


def test_seeds_next_to_those_of_calibrations_are_accepted(tmp_path: Path) -> None:
    assert plan_of(tmp_path, search={"seeds": 3, "seed": FIRST_SEED - 3}).candidates


def test_the_folder_of_calibrations_is_no_name_of_a_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="must not be `calibrations`"):
        load_study(write_study(tmp_path, TINY, study="calibrations"))


def test_a_started_study_may_get_the_key(tmp_path: Path) -> None:
    before = resolved_yaml(load_study(write_study(tmp_path, CLAIMED)))
    now = resolved_yaml(load_study(write_study(tmp_path, CLAIMED, calibrate={"vary": {"epochs": [1]}})))
    changes = compare_studies(before, now)
    assert (changes.added, changes.refused) == ((), ())
