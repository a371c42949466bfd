"""Stages of kernel, shortcut, depthwise and the ratios as axes: choices, conditions, rules, derived axes, arms."""

from pathlib import Path
from typing import Any

import pytest
from tiny_studies import SCRIPTED, Played, called, write_study

from harness.analysis.study_reader import open_space
from harness.config.claim_arms import arm_choices
from harness.config.effects import axes_of
from harness.config.space import Space, axis_value
from harness.config.study_file import load_study
from harness.errors import StudyError

AXES: dict[str, Any] = {
    "K": [3, 7],
    "shortcut[3]": [True, False],
    "kernel[0]": ["plain", "peripheral", "bands"],
    "ffn_ratio[1]": {"low": 2, "high": 4, "step": 1},
}


def _space(folder: Path, **keys: Any) -> Space:
    return open_space(load_study(write_study(folder, SCRIPTED, **{"axes": AXES, "when": {}} | keys)))


def _refusal(folder: Path, **keys: Any) -> str:
    with pytest.raises(StudyError) as caught:
        _space(folder, **keys)
    return str(caught.value)


def test_each_stage_is_an_axis_of_its_own(tmp_path: Path) -> None:
    space = _space(tmp_path)
    candidate = space.candidate({"K": 7, "shortcut[3]": False, "kernel[0]": "bands", "ffn_ratio[1]": 3})
    assert candidate.spec is not None and candidate.recipe is not None
    assert candidate.spec.by_stage("shortcut") == (True, True, True, False)
    assert candidate.spec.by_stage("kernel") == ("bands", "plain", "plain", "plain")
    assert candidate.spec.ffn_ratio == (4, 3, 4, 4)
    assert candidate.spec.reparam == (None, 5, 5, 5), "bands have no small kernel, so the base's is dropped there"
    values = {name: axis_value(name, candidate.spec, candidate.recipe) for name in (*space.axes, "shortcut[6]")}
    expected = {"shortcut[3]": False, "kernel[0]": "bands", "ffn_ratio[1]": 3.0, "shortcut[6]": None}
    assert {name: values[name] for name in expected} == expected
    grid = list(space.grid())
    assert len(grid) == 36 - 2 * 2 * 3, "with K of 3 and 7, plain and peripheral are the same"
    assert axes_of("shortcut", space) == ("shortcut[3]",)


def test_whole_fields_take_lists_next_to_single_values(tmp_path: Path) -> None:
    axes = {"shortcut": [True, [True, True, False, False]], "kernel": ["plain", ["plain", "stripes", "plain", "plain"]]}
    space = _space(tmp_path, axes=axes)
    specs = [cell.spec for cell in space.grid()]
    assert [spec and (spec.shortcut, spec.kernel) for spec in specs] == [
        (True, "plain"),
        (True, ("plain", "stripes", "plain", "plain")),
        ((True, True, False, False), "plain"),
        ((True, True, False, False), ("plain", "stripes", "plain", "plain")),
    ]
    assert arm_choices("shortcut=[true,true,false,false], kernel=plain", space) == {
        "shortcut": (True, True, False, False),
        "kernel": "plain",
    }


def test_conditions_and_rules_use_stages(tmp_path: Path) -> None:
    axes = {"reparam[3]": [None, 5], "shortcut[3]": [True, False], "shortcut[0]": [True, False]}
    space = _space(tmp_path, axes=axes, when={"reparam[3]": "shortcut[3]"}, rules=["any(shortcut[i] for i in [0, 3])"])
    cells = list(space.grid())
    assert [cell.is_feasible for cell in cells].count(False) == 1
    assert all(("reparam[3]" in cell.params) == cell.params["shortcut[3]"] for cell in cells)
    assert next(iter(space.axes)) == "shortcut[3]", "an axis follows those that its condition uses"


def test_single_values_in_expressions_mean_what_they_meant(tmp_path: Path) -> None:
    axes = {"shortcut": [True, False], "kernel": ["plain", "peripheral"], "reparam": [None, 5], "ffn_ratio": [2, 4]}
    keys = {
        "when": {"reparam": "shortcut and kernel == 'plain'"},
        "rules": ["ffn_ratio >= 2 * dw_ratio", "max(ffn_ratio, dw_ratio) < 5", "kernel in ['plain', 'peripheral']"],
    }
    cells = list(_space(tmp_path, axes=axes, **keys).grid())
    assert all(cell.is_feasible for cell in cells)
    assert {cell.params["shortcut"] for cell in cells if "reparam" in cell.params} == {True}


def test_a_single_value_of_stages_that_differ_is_refused_with_the_remedy(tmp_path: Path) -> None:
    text = _refusal(tmp_path, rules=["ffn_ratio > 1"])
    assert "stages differ in `ffn_ratio`; write `ffn_ratio[0]`" in text and "study.yaml:" in text


def test_derived_axes_set_and_use_stages(tmp_path: Path) -> None:
    axes = {
        "shortcut[0]": [True, False],
        "shortcut[3]": "not shortcut[0]",
        "dw_ratio": [1, 0.5],
        "ffn_ratio": "[4 * r for r in dw_ratio]",
        "kernel": "['plain', 'plain', 'stripes' if shortcut[0] else 'plain', 'plain']",
    }
    specs = [cell.spec for cell in _space(tmp_path, axes=axes).grid()]
    assert [spec and spec.at("shortcut", 3) for spec in specs] == [False, False, True, True]
    assert [spec and spec.ffn_ratio for spec in specs] == [4, 2, 4, 2]
    assert [spec and spec.kernel == "plain" for spec in specs] == [False, False, True, True]


@pytest.mark.parametrize(
    ("base", "axes", "words"),
    [
        ("mobilenet_v2_nano", {"ffn_ratio[0]": [2, 4]}, "`axes.ffn_ratio[0]` must change the network, but all of"),
        ("mobilenet_v2_nano", {"shortcut[0]": [True, False]}, "`axes.shortcut[0]` must change the network"),
        ("mobilenet_v2_nano", {"dw_ratio[1]": [1, 2]}, "`dw_ratio` must keep its default where it changes nothing"),
        ("convnext_nano", {"dw_ratio[1]": [1, 2]}, "`dw_ratio` must keep its default where it changes nothing"),
        ("convnext_nano", {"kernel[7]": ["plain"]}, "`kernel` has the stages 0 to 3"),
        ("replknet_nano", {"kernel[1]": ["plain", "star"]}, "`kernel[1]` must be a known one"),
        ("replknet_nano", {"dw_ratio[1]": [1, 1.3]}, "`dw_ratio[1]` must be positive and give every stage a whole"),
        ("replknet_nano", {"shortcut": [[True, False]]}, "`shortcut` must have one value per stage, 4 in all"),
        ("replknet_nano", {"shortcut": [True], "shortcut[1]": [True]}, "must not decide the same stage"),
        ("replknet_nano", {"stem_stride[0]": [2, 4]}, "`stem_stride` has one value for all stages"),
    ],
)
def test_what_a_family_ignores_and_what_is_none_is_refused(
    base: str, axes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    text = _refusal(tmp_path, base=base, axes=axes)
    assert words in text and "study.yaml:" in text


def test_stages_that_may_change_the_network_with_other_choices_are_axes(tmp_path: Path) -> None:
    space = _space(tmp_path, base="mobilenet_v2_nano", axes={"B[0]": [1, 2], "shortcut[0]": [True, False]})
    assert len(list(space.grid())) == 3, "with one block in the stage, it has no shortcut"


def test_a_played_search_tables_the_stages_and_passes_its_best_on(tmp_path: Path) -> None:
    study = Played(tmp_path, axes=AXES, when={}, search={"sampler": "tpe", "trials": 12, "seeds": 1})
    winner = study.answer().best
    assert winner is not None
    shown = called("show", study.path, cwd=tmp_path).stdout
    assert all(name in shown for name in ("shortcut[3]", "kernel[0]", "ffn_ratio[1]"))
    best = called("best", study.path, cwd=tmp_path)
    assert best.returncode == 0, best.stderr
    (tmp_path / "best.yaml").write_text(best.stdout)
    grown = load_study(write_study(tmp_path, SCRIPTED, base="best.yaml", axes={"B": [1, 2]}, when={}))
    assert grown.base == winner.spec
