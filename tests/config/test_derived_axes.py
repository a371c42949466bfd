"""Derived axes: values that follow from others by an expression."""

from pathlib import Path
from typing import Any

import pytest
from claim_studies import CLAIM
from tiny_studies import Played, called, text_of, well, write_study

from harness.analysis.plan import plan_study
from harness.analysis.results import study_results
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.axes import random_sampler
from harness.config.claim_arms import arm_choices
from harness.config.json_schema import json_schema
from harness.config.space import Space
from harness.config.study_file import full_scale_network, load_study, resolved_yaml
from harness.config.study_growth import compare_studies
from harness.errors import StudyError
from harness.report.plan import plan_view
from harness.report.study import results_view

KEYS: dict[str, Any] = {
    "study": "question",
    "base": "replknet_nano",
    "axes": {"K[0]": [5, 7, 9], "K[1]": "K[0] - 2", "K[2]": "max(K[1] // 2 * 2 - 1, 3)"},
    "proxy": {"epochs": 4, "schedule": {"warmup_epochs": 0}},
}


def space_of(folder: Path, **overrides: Any) -> Space:
    return open_space(load_study(write_study(folder, KEYS, **overrides)))


def refusal(folder: Path, **overrides: Any) -> str:
    with pytest.raises(StudyError) as refused:
        space_of(folder, **overrides)
    return str(refused.value)


def kernels(space: Space) -> list[tuple[int, ...]]:
    return [cell.trained[0].K for cell in space.grid() if cell.is_feasible]


def test_a_derived_axis_follows_from_the_others_and_is_not_chosen(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    assert list(space.axes) == ["K[0]"] and space.size == 3
    assert [k[:3] for k in kernels(space)] == [(5, 3, 3), (7, 5, 3), (9, 7, 5)]
    assert [cell.params for cell in space.grid()] == [{"K[0]": 5}, {"K[0]": 7}, {"K[0]": 9}]


def test_axes_are_computed_in_the_order_that_their_expressions_need(tmp_path: Path) -> None:
    axes = {"K[2]": "K[1] + 2", "K[1]": "K[0] + 2", "shortcut": [True, False], "K[0]": [3, 5]}
    space = space_of(tmp_path, axes=axes, when={"shortcut": "K[2] > 7"})
    assert list(space.derived) == ["K[1]", "K[2]"]
    assert [cell.params for cell in space.grid()] == [
        {"K[0]": 3},
        {"K[0]": 5, "shortcut": True},
        {"K[0]": 5, "shortcut": False},
    ]


def test_whole_fields_numbers_and_text_can_be_derived(tmp_path: Path) -> None:
    axes = {
        "B[0]": [1, 2],
        "C": "[16 * B[0] * 2 ** i for i in [0, 1, 2, 3]]",
        "drop_path": "0.1 * 3 / B[0]",
        "kernel": "'stripes' if B[0] > 1 else 'plain'",
        "shortcut": "B[0] == 1",
        "reparam": "null",
    }
    first, second = (cell.trained[0] for cell in space_of(tmp_path, axes=axes).grid())
    assert (first.C, second.C) == ((16, 32, 64, 128), (32, 64, 128, 256))
    assert (first.drop_path, second.drop_path) == (0.3, 0.15)
    assert (first.kernel, second.kernel) == ("plain", "stripes")
    assert (first.shortcut, second.shortcut) == (True, False)
    assert first.reparam == second.reparam == (None,) * 4


def test_a_key_of_the_recipe_can_be_derived(tmp_path: Path) -> None:
    axes = {"recipe.batch_size": [16, 32, 64], "recipe.optimizer.lr": "0.3 * recipe.batch_size / 32"}
    space = space_of(tmp_path, axes=axes)
    recipes = [cell.trained[1] for cell in space.grid()]
    assert [(recipe.batch_size, recipe.optimizer.lr) for recipe in recipes] == [(16, 0.15), (32, 0.3), (64, 0.6)]
    assert len({cell.fingerprint for cell in space.grid()}) == 3


def test_a_condition_of_a_derived_axis(tmp_path: Path) -> None:
    space = space_of(tmp_path, axes={"K[0]": [5, 9], "K[1]": "K[0]"}, when={"K[1]": "K[0] > 5"})
    base = space.base.K[1]
    assert [k[1] for k in kernels(space)] == [base, 9]


def test_what_forms_no_network_is_left_out_in_words(tmp_path: Path) -> None:
    axes = {"K[0]": [3, 5], "K[1]": [3, 5], "K[2]": "max(K[0] + K[1] - 5, 2)"}
    cells = list(space_of(tmp_path, axes=axes).grid())
    assert [cell.is_feasible for cell in cells] == [False, True, True, True]
    assert "`K[2]` must be odd" in str(cells[0].reason)


def test_an_expression_without_a_value_is_left_out_in_words(tmp_path: Path) -> None:
    channels = {"low": 4, "high": 400, "step": 4}
    axes = {"C[0]": channels, "C[1]": channels, "K[1]": "3 + 0 // ((C[0] - 40) ** 2 + (C[1] - 40) ** 2)"}
    space = space_of(tmp_path, axes=axes, search={"sampler": "random", "trials": 2})
    cell = space.candidate({"C[0]": 40, "C[1]": 40})
    assert cell.violations == {"derived": 1.0}
    assert "`axes.K[1]` must have a value for every configuration" in str(cell.reason)
    assert "With C=[40, 40, 64, 128]: integer division or modulo by zero." in str(cell.reason)
    choose = random_sampler(3)
    assert all(space.sample(choose).trained[0].K[1] == 3 for _ in range(10))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"axes": {"K[0]": [5], "K[1]": "K[0] -"}}, "`axes.K[1]` must be an expression"),
        ({"axes": {"K[0]": [5], "K[1]": "k0 - 2"}}, "names `k0`, which is no field of a network"),
        ({"axes": {"kernel": "plain", "K": [3]}}, "A value to choose has brackets, as `[plain]`."),
        ({"axes": {"base": "replknet_nano", "K": [3]}}, "`axes.base` must be a list of names of networks"),
        ({"axes": {"K[0]": "K[0] + 2", "shortcut": [True]}}, "but `K[0]` waits for itself"),
        ({"axes": {"K[0]": "K[1]", "K[1]": "K[0]", "B": [1]}}, "`K[0]` and `K[1]` wait for each other"),
        ({"axes": {"K": [3, 5], "K[1]": "C[0]"}}, "The axes `K` and `K[1]` must not decide the same stage"),
        ({"axes": {"K[0]": [5], "K[9]": "K[0]"}}, "`K` has the stages 0 to 3"),
        ({"axes": {"K[0]": [5], "widht": "K[0]"}}, "`widht` must be a field of the network"),
        ({"axes": {"K[0]": [5], "recipe.difficulty": "K[0] / 10"}}, "`recipe.difficulty` cannot be an axis"),
        ({"axes": {"K[0]": [5, 7], "K[1]": "K[0] - 1"}}, "It is `K[0] - 1`."),
        ({"axes": {"K[0]": [5, 7], "K[1]": "K[0] / 0"}}, "`axes.K[1]` must have a value for every configuration"),
        ({"axes": {"K[0]": [5, 7], "K[1]": "[[1], 2]"}}, "must be a finite number, text, true, false, null, or a list"),
        ({"axes": {"K[0]": [5, 7], "C[1]": "1e308 * 1e308"}}, "must be a finite number"),
    ],
)
def test_a_mistake_is_refused(tmp_path: Path, overrides: dict[str, Any], message: str) -> None:
    text = refusal(tmp_path, **overrides)
    assert message in text, text
    assert "study.yaml:" in text


def test_a_value_with_which_a_derived_one_never_fits_is_refused_at_its_line(tmp_path: Path) -> None:
    text = refusal(tmp_path, axes={"K[0]": [5, 7], "K[1]": "K[0] // 2"})
    assert "`K[1]` must be odd" in text and "but got 2" in text and "It is `K[0] // 2`." in text
    line = int(text.split("study.yaml:")[1].split(")")[0])
    assert (tmp_path / "study.yaml").read_text().splitlines()[line - 1].strip(" ,") == "5"


def test_arms_leave_derived_axes_out(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    assert arm_choices("K[0]=7", space) == {"K[0]": 7}
    with pytest.raises(StudyError, match=r"axes that are not derived.*It follows from them, as `K\[0\] - 2`"):
        arm_choices("K[0]=7, K[1]=5", space)
    load_study(write_study(tmp_path, KEYS, claims=[CLAIM | {"contrast": {"K[0]=5": 1, "K[0]=9": -1}}]))


def test_derived_axes_apply_at_full_scale(tmp_path: Path) -> None:
    file = load_study(write_study(tmp_path, KEYS, full_scale={"base": "replknet_31b"}))
    large = full_scale_network(file, {"K[0]": 9})
    assert large is not None and large.K[:3] == (9, 7, 5) and large.C == file.full_scale_base.C  # type: ignore[union-attr]


def test_the_expression_of_a_study_stays_as_it_is(tmp_path: Path) -> None:
    before = resolved_yaml(load_study(write_study(tmp_path, KEYS)))
    assert compare_studies(before, before).refused == ()
    other = KEYS["axes"] | {"K[1]": "K[0]"}
    after = resolved_yaml(load_study(write_study(tmp_path, KEYS, axes=other)))
    (refused,) = compare_studies(before, after).refused
    assert refused.startswith("`axes.K[1]` from") and "(without `K[0] - 2`)" in refused
    more = resolved_yaml(load_study(write_study(tmp_path, KEYS, axes=KEYS["axes"] | {"K[0]": [5, 7, 9, 11]})))
    assert compare_studies(before, more).refused == () and len(compare_studies(before, more).added) == 1


def test_tables_show_derived_values(tmp_path: Path) -> None:
    study = Played(tmp_path, **KEYS, when={}, search={"seeds": 1})
    plan = text_of(plan_view(plan_study(study.file.study, open_space(study.file), None, workers=1)))
    assert "K[0]  K[1]  K[2]" in plan
    study.answer(well)
    with open_study_reader(study.path, study.workspace) as reader:
        results = study_results(reader.file.study, reader.store, reader.trials, {})
    assert [row.derived for row in results.rows] == [
        {"K[1]": 7, "K[2]": 5},
        {"K[1]": 5, "K[2]": 3},
        {"K[1]": 3, "K[2]": 3},
    ]
    assert results.to_dict()["configurations"][0]["derived"] == {"K[1]": 7, "K[2]": 5}
    table = [line.split()[:5] for line in text_of(results_view(results)).splitlines()]
    assert ["●", "2", "9", "7", "5"] in table or ["2", "9", "7", "5"] in [line[:4] for line in table]
    assert called("show", study.path, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_take_derived_axes(tmp_path: Path, sampler: str) -> None:
    search = {"sampler": sampler, "trials": 6, "seeds": 1}
    axes = {"K[0]": {"low": 5, "high": 31, "step": 2}, "K[1]": "K[0] - 2"}
    study = Played(tmp_path, **(KEYS | {"axes": axes}), when={}, search=search)
    results = study.answer(well)
    assert {row.spec.K[0] - row.spec.K[1] for row in results.rows} == {2}
    assert sum(len(row.values) for row in results.rows) == 6


def test_the_schema_takes_expressions() -> None:
    axes = json_schema()["properties"]["axes"]["properties"]
    assert {"type": "string"}.items() <= axes["K[1]"]["anyOf"][-1].items()
    assert {"type": "string"}.items() <= axes["recipe.optimizer.lr"]["anyOf"][-1].items()
    assert "anyOf" not in axes["base"]
