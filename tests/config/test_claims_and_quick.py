"""Claims and the quick profile of a study file: read with their lines, and refused where they cannot hold."""

import re
from pathlib import Path
from typing import Any

import pytest
from claim_studies import CLAIM, CLAIMED
from tiny_studies import BRIEF, SCRIPTED, TINY, called, write_study

from harness.analysis.study_reader import open_space
from harness.config.claim_arms import arm_choices
from harness.config.formula import Formula
from harness.config.study_file import load_study
from harness.errors import StudyError

# Claims


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expect": "bigger"}, r"`claims\[0\]\.expect` .*bigger"),
        ({"metric": "__import__('os')"}, r"`claims\[0\]\.metric` must be a metric of a run"),
        ({"metric": "3 * 4"}, r"names no metric"),
        ({"contrast": {"K=13": 1, "K=3": -1}}, r"every axis that counts.*Add `reparam=\.\.\.`"),
        ({"contrast": {"K=4, reparam=5": 1, "K=3": -1}}, r"one of the values of `K`, but got 4"),
        ({"contrast": {"K=13, reparam=5, width=2": 1}}, r"choose on the study's axes, but got \"width\""),
        ({"contrast": {"K=3, reparam=5": 1}}, r"Leave `reparam` out"),
        ({"contrast": {"K=13 reparam=5": 1}}, r"one of the values of `K`, but got \"13 reparam=5\""),
        ({"contrast": {"K": 1}}, r"commas between them, each axis once, but got \"K\""),
        ({"contrast": {"K=13, reparam=5": 0}}, r"a number that is not 0"),
        ({"contrast": {"K=13, reparam=5": 1, "reparam=5, K=13": -1}}, r"each network once"),
        ({"contrast": {}}, r"at least 1 entry"),
        ({"surprise": 1}, r"`surprise` is no key of `claims\[0\]`"),
    ],
)
def test_an_invalid_claim_is_refused_with_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_study(tmp_path, CLAIMED, claims=[CLAIM | change])
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert re.search(message, str(caught.value)), str(caught.value)
    line = int(re.search(r"study\.yaml:(\d+)", str(caught.value))[1])  # type: ignore[index]
    assert line > path.read_text().splitlines().index(' "claims": [')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": {"seeds": 3, "max_seeds": 2}}, "`search.max_seeds` must be at least `seeds`"),
        ({"claims": [], "search": {"seeds": 3, "max_seeds": 5}}, "no claims"),
        ({"search": {"sampler": "random", "trials": 4, "seeds": 3}}, "`search.sampler` must be grid"),
        ({"search": {"seeds": 3, "pruner": "median"}}, "`search.pruner` must be none"),
        ({"claims": [CLAIM, CLAIM]}, "different names"),
    ],
)
def test_a_search_that_cannot_decide_claims_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(write_study(tmp_path, CLAIMED | change))
    assert message in str(caught.value)


def test_an_arm_is_a_choice_on_every_axis_that_counts(tmp_path: Path) -> None:
    space = open_space(load_study(write_study(tmp_path, CLAIMED)))
    assert arm_choices("K=13, reparam=null", space) == {"K": (13,) * 4, "reparam": None}
    assert arm_choices("reparam=5, K=[31, 29, 27, 13]", space) == {"K": (31, 29, 27, 13), "reparam": 5}
    assert arm_choices("K=3", space) == {"K": (3,) * 4}


def test_a_formula_is_a_number_from_metrics() -> None:
    metrics = {"latency_ms_p50": 8.0, "macs": 2.0}
    assert Formula("log2(latency_ms_p50 / macs)").value(metrics.get) == 2.0
    assert Formula("latency_ms_p50 - miou").value(metrics.get) is None
    assert Formula("log(macs - macs)").value(metrics.get) is None
    assert Formula("latency_ms_p50 ** 999").value(metrics.get) is None
    for text in (
        "macs.real",
        "[macs]",
        "log(macs, 2)",
        "pow(macs)",
        "'macs'",
        "macs if macs else 0",
        "",
        "macs; 1",
        "log",
    ):
        with pytest.raises(StudyError):
            Formula(text)


# The quick profile


def test_quick_is_a_study_of_its_own_with_the_changes_merged(tmp_path: Path) -> None:
    path = write_study(tmp_path, CLAIMED, quick={"search": {"seeds": 2, "max_seeds": 2}, "proxy": {"epochs": 1}})
    quick, whole = load_study(path, is_quick=True).study, load_study(path).study
    assert (quick.study, quick.search.seeds, quick.proxy.epochs) == ("question_quick", 2, 1)
    assert quick.proxy.schedule.warmup_epochs == 0 and quick.claims == whole.claims
    assert (whole.study, whole.search.seeds) == ("question", 3)


@pytest.mark.parametrize(
    ("keys", "quick", "at", "fitted", "note"),
    [
        ({}, {"epochs": 1}, "schedule.warmup_epochs", 0.1, "0.1` in place of 1.0, to fit `proxy.epochs: 1`"),
        ({"epochs": 20, "schedule": {"warmup_epochs": 5}}, {"epochs": 2}, "schedule.warmup_epochs", 0.5, "of 5"),
        ({"epochs": 20, "schedule": {"warmup_epochs": 5}}, {"epochs": 6}, "schedule.warmup_epochs", 5, None),
        ({"schedule": {"final": 0.1}}, {"epochs": 1}, "schedule.final", 0.1, "proxy.schedule.warmup_epochs"),
        ({}, {"epochs": 1, "schedule": {"warmup_epochs": 0}}, "schedule.warmup_epochs", 0, None),
        ({"train_size": 500}, {"train_size": 20}, "batch_size", 20, "20` in place of 32"),
        ({"batch_size": 8, "transfer": {}}, {"train_size": 9}, "transfer.batch_size", 9, "transfer.batch_size: 9` in"),
        ({"val_size": 500}, {"final_val_size": 100}, "val_size", 100, "100` in place of 500"),
    ],
)
def test_values_that_a_quick_profile_leaves_open_are_fitted_to_those_it_gives(
    tmp_path: Path, keys: dict[str, Any], quick: dict[str, Any], at: str, fitted: float, note: str | None
) -> None:
    path = write_study(tmp_path, SCRIPTED, proxy=keys, quick={"proxy": quick})
    file = load_study(path, is_quick=True)
    value: Any = file.study.proxy
    for key in at.split("."):
        value = getattr(value, key)
    assert value == fitted
    assert len(file.notes) == (note is not None) and (note or "") in "".join(file.notes)
    load_study(path)
    assert load_study(path).study.proxy == load_study(write_study(tmp_path, SCRIPTED, proxy=keys)).study.proxy


def test_a_quick_profile_of_one_epoch_prunes_nothing_and_the_plan_states_it(tmp_path: Path) -> None:
    path = write_study(
        tmp_path,
        TINY,
        proxy=BRIEF | {"epochs": 4, "schedule": {"warmup_epochs": 1}},
        search={"seeds": 2, "pruner": "successive_halving"},
        quick={"proxy": {"epochs": 1}},
    )
    result = called("run", path, "--quick", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "has `search.pruner: none` in place of successive_halving, to fit `proxy.epochs: 1`" in text
    assert "`proxy.schedule.warmup_epochs: 0.25` in place of 1" in text
    result = called("run", path, "--quick", "--executor", "inline", cwd=tmp_path)
    assert result.returncode == 0 and "warmup_epochs: 0.25" in result.stdout


def test_an_invalid_quick_profile_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write_study(tmp_path, CLAIMED, quick={"proxy": {"epochs": "few"}})
    with pytest.raises(StudyError, match=r"`proxy\.epochs` must be a whole number") as caught:
        load_study(path, is_quick=True)
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if '"few"' in text)
    assert f"study.yaml:{line}" in str(caught.value)
    with pytest.raises(StudyError, match="must have a key `quick`"):
        load_study(write_study(tmp_path, CLAIMED), is_quick=True)
