"""Axes that set a key of the proxy: what they accept, what they refuse, and the recipe that follows from a choice."""

import re
from pathlib import Path
from typing import Any

import pytest
from claim_studies import CLAIM
from tiny_studies import SCRIPTED, TINY, write_study

from harness.analysis.study_reader import open_space
from harness.config.axes import random_sampler
from harness.config.calibration_candidates import plan_calibration
from harness.config.claim_arms import arm_choices
from harness.config.json_schema import json_schema
from harness.config.recipe_axes import FIXED_KEYS, RECIPE_AXES, RECIPE_NAMES, recipe_changes, with_changes
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import Candidate, Space
from harness.config.study_file import build_space, full_scale_network, load_study, recipe_of_most_images
from harness.errors import StudyError
from harness.models.cost import network_cost
from harness.training.run import Run

PROXY: dict[str, Any] = {"epochs": 4, "train_size": 256, "batch_size": 32, "schedule": {"warmup_epochs": 1}}
KEYS: dict[str, Any] = {
    "study": "rates",
    "base": "replknet_nano",
    "axes": {"K": [3, 7], "recipe.optimizer.lr": [0.1, 0.2]},
    "proxy": PROXY,
}


def space_of(folder: Path, **overrides: Any) -> Space:
    return open_space(load_study(write_study(folder, KEYS, **overrides)))


def axes(**values: Any) -> dict[str, Any]:
    """Axes by the last part of their names."""
    return {"K": [3, 7]} | {name.replace("__", "."): value for name, value in values.items()}


def refusal(folder: Path, **overrides: Any) -> str:
    with pytest.raises(StudyError) as refused:
        space_of(folder, **overrides)
    return str(refused.value)


def cells(space: Space) -> list[Candidate]:
    return list(space.grid())


# The recipe of a configuration


def test_a_configuration_is_a_network_with_its_recipe(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    grid = cells(space)
    assert [(cell.trained[0].K[0], cell.trained[1].optimizer.lr) for cell in grid] == [
        *((3, 0.1), (3, 0.2)),
        *((7, 0.1), (7, 0.2)),
    ]
    assert len({cell.fingerprint for cell in grid}) == 4
    proxy = ProxyRecipe.model_validate(PROXY)
    changed = ProxyRecipe.model_validate(PROXY | {"optimizer": {"lr": 0.1}})
    assert grid[1].trained[1] == proxy
    # so that a run of any other study with the same network, recipe and seed is the same run
    assert Run(*grid[0].trained, 5).id == Run(grid[0].trained[0], changed, 5).id


def test_without_such_axes_a_configuration_is_its_network(tmp_path: Path) -> None:
    space = space_of(tmp_path, axes={"K": [3, 7]})
    for cell in cells(space):
        assert cell.fingerprint == cell.trained[0].fingerprint()
        assert cell.trained[1] is space.recipe


@pytest.mark.parametrize(
    ("axis", "value", "adapted"),
    [
        ("recipe.epochs", 1, {"recipe.epochs": 1, "recipe.schedule.warmup_epochs": 0.25}),
        ("recipe.epochs", 8, {"recipe.epochs": 8}),
        ("recipe.train_size", 16, {"recipe.train_size": 16, "recipe.batch_size": 16}),
        ("recipe.train_size", 512, {"recipe.train_size": 512}),
        ("recipe.optimizer.clip_norm", None, {"recipe.optimizer.clip_norm": None}),
    ],
)
def test_what_depends_on_a_choice_is_adapted_and_told(
    tmp_path: Path, axis: str, value: Any, adapted: dict[str, Any]
) -> None:
    file = load_study(write_study(tmp_path, KEYS, axes={"K": [3, 7], axis: [value]}))
    recipe = open_space(file).candidate({"K": 3, axis: value}).trained[1]
    assert recipe_changes(recipe, file.study.proxy) == adapted
    assert with_changes(file.study.proxy, adapted) == recipe
    others = adapted.keys() - {axis}
    assert len(file.notes) == len(others)
    for name in others:
        key = name.replace("recipe.", "proxy.", 1)
        assert f"where `{axis}` is {value}, `{key}` is {adapted[name]} in place of" in file.notes[0]


def test_a_dependent_value_with_an_axis_of_its_own_is_not_adapted(tmp_path: Path) -> None:
    given = {"recipe.epochs": [1, 4], "recipe.schedule.warmup_epochs": [0.5, 2.0]}
    file = load_study(write_study(tmp_path, KEYS, axes=given))
    reasons = {
        (cell.params["recipe.epochs"], cell.params["recipe.schedule.warmup_epochs"]): cell.reason
        for cell in cells(open_space(file))
    }
    assert reasons.pop((1, 2.0)) == "`recipe.schedule.warmup_epochs` must be below `epochs` (1), but got 2."
    assert set(reasons.values()) == {None}
    assert file.notes == ()


def test_batches_larger_than_the_images_are_left_out_in_words(tmp_path: Path) -> None:
    space = space_of(tmp_path, axes=axes(recipe__batch_size=[16, 64], recipe__train_size=[32, 128]))
    left_out = {cell.reason: cell.violations for cell in cells(space) if not cell.is_feasible}
    assert left_out == {"`recipe.batch_size` must be at most the 32 training images, but got 64.": {"recipe": 1.0}}


def test_the_cost_is_that_of_the_chosen_resolution(tmp_path: Path) -> None:
    space = space_of(tmp_path, axes={"K": [3], "recipe.resolution": [32, 64]})
    small, large = cells(space)
    assert small.cost == network_cost(small.trained[0], 32) and large.cost == network_cost(large.trained[0], 64)
    assert small.cost.params == large.cost.params
    limit = small.cost.macs * 1.5
    within = space_of(tmp_path, axes={"K": [3], "recipe.resolution": [32, 64]}, budgets={"macs": limit})
    assert [cell.is_feasible for cell in cells(within)] == [True, False]


def test_ranges_and_conditions_and_rules(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        axes={
            "recipe.epochs": {"low": 2, "high": 8, "step": 2},
            "recipe.label_smoothing": {"low": 0.0, "high": 0.2, "step": 0.1},
            "recipe.optimizer.name": ["sgd", "adamw"],
            "recipe.optimizer.momentum": [0.8, 0.9],
            "recipe.batch_size": {"low": 8, "high": 64, "log": True},
        },
        when={"recipe.optimizer.momentum": "recipe.optimizer.name == 'sgd'"},
        rules=["recipe.schedule.warmup_epochs < recipe.epochs / 3", "recipe.epochs * recipe.batch_size <= 256"],
        search={"sampler": "random", "trials": 5},
    )
    choose = random_sampler(1)
    for _ in range(200):
        cell = space.sample(choose)
        assert ("recipe.optimizer.momentum" in cell.params) == (cell.params["recipe.optimizer.name"] == "sgd")
        epochs, batch = cell.params["recipe.epochs"], cell.params["recipe.batch_size"]
        assert isinstance(epochs, int) and isinstance(batch, int)
        assert cell.is_feasible == (epochs > 3 and epochs * batch <= 256)


def test_a_condition_on_an_adapted_value_waits_for_what_it_is_adapted_to(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        axes={"K": [3, 7], "recipe.epochs": [1, 4]},
        when={"K": "recipe.schedule.warmup_epochs >= 1"},
    )
    assert list(space.axes) == ["recipe.epochs", "K"]
    assert [cell.params for cell in cells(space)] == [
        {"recipe.epochs": 1},
        {"recipe.epochs": 4, "K": 3},
        {"recipe.epochs": 4, "K": 7},
    ]


def test_recipe_axes_do_not_enter_the_network_at_full_scale(tmp_path: Path) -> None:
    file = load_study(write_study(tmp_path, KEYS, full_scale={"base": "replknet_31b"}))
    large = full_scale_network(file, {"K": 7, "recipe.optimizer.lr": 0.1})
    assert large == full_scale_network(file, {"K": 7})
    assert full_scale_network(file, {"recipe.optimizer.lr": 0.1}) == file.full_scale_base


# Refusals


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        ({"axes": axes(recipe__optimizer__lr=[0.1, -1])}, "-1", "`recipe.optimizer.lr` must be above 0, but got -1"),
        ({"axes": axes(recipe__epochs=[2.5])}, "2.5", "`recipe.epochs` must be a whole number, but got 2.5"),
        ({"axes": axes(recipe__epochs=[True, 2])}, "true", "`recipe.epochs` must be a whole number, but got true"),
        ({"axes": axes(recipe__epochs=[0, 2])}, "0", "`recipe.epochs` must be at least 1, since untrained"),
        ({"axes": axes(recipe__optimizer__name=["adam"])}, '"adam"', "must be one of 'sgd' or 'adamw'"),
        ({"axes": axes(recipe__epochs=[[1, 2]])}, "[", "`recipe.epochs` must be a whole number"),
        ({"axes": axes(recipe__resolution=[4])}, "4", "`recipe.resolution` must be at least 8, but got 4"),
        ({"axes": axes(recipe__epochs={"low": 0, "high": 4})}, "recipe.epochs", "must be at least 1, since untrained"),
        ({"axes": axes(recipe__optimizer__rate=[1])}, "recipe.optimizer.rate", "must be a key of the proxy"),
        ({"axes": axes(recipe__optimizer=[1])}, "recipe.optimizer", "one key of the proxy, and not a section"),
        ({"axes": axes(optimizer__lr=[1])}, "optimizer.lr", "Write `recipe.optimizer.lr` for the key of the proxy"),
        ({"axes": axes(recipe__difficulty=[0.5])}, "recipe.difficulty", "on the same validation images"),
        ({"axes": axes(recipe__measures=["erf"])}, "recipe.measures", "must yield the same metrics"),
        ({"axes": axes(recipe__precision=["float32"])}, "recipe.precision", "part of the environment of a run"),
        ({"axes": axes(recipe__transfer__lr=[0.1])}, "recipe.transfer.lr", "left out where `proxy.transfer` is null"),
        ({"axes": axes(recipe__transfer=[None])}, "recipe.transfer", "Take a key of it, as `recipe.transfer.lr`"),
        ({"axes": axes(recipe__cue_correlation=[0.5])}, "recipe.cue_correlation", "where images have no textures"),
        (
            {"proxy": {"epochs": 0}, "objectives": {"macs": "minimize"}},
            "recipe.optimizer.lr",
            "must be left out where `proxy.epochs` is 0",
        ),
        ({"rules": ["recipe.optimizer.rate > 1"]}, "recipe.optimizer.rate > 1", "which is no key of the proxy"),
        ({"rules": ["recipe > 1"]}, "recipe > 1", "names `recipe`, which is no field"),
        ({"rules": ["K.real > 1"]}, "K.real > 1", "`K.real` is none of them"),
        ({"rules": ["recipe.optimizer.lr"]}, "recipe.optimizer.lr", "With recipe.optimizer.lr=0."),
        ({"rules": ["all(k > 1 for recipe.epochs in K)"]}, "for recipe.epochs", "as the variable of a loop"),
        ({"rules": ["recipe.transfer.lr > 1"]}, "transfer.lr > 1", "must be true or false"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_line(tmp_path: Path, overrides: dict[str, Any], key: str, message: str) -> None:
    text = refusal(tmp_path, **overrides)
    assert message in text, text
    lines = (tmp_path / "study.yaml").read_text().splitlines()
    places = [int(line) for line in re.findall(r"study\.yaml:(\d+)", text)]
    assert any(key in line for place in places for line in lines[place - 1 : place + 1]), (places, lines)


@pytest.mark.parametrize("axis", ["recipe.epochs", "recipe.train_size"])
@pytest.mark.parametrize("pruner", ["median", "successive_halving", "hyperband"])
def test_a_pruner_is_refused_where_equal_epochs_are_unequal_computing(tmp_path: Path, axis: str, pruner: str) -> None:
    search = {"sampler": "random", "trials": 4, "pruner": pruner}
    text = refusal(tmp_path, axes={"K": [3, 7], axis: [64, 128]}, search=search)
    assert f"`search.pruner` must be none where `{axis}` is an axis" in text
    space_of(tmp_path, search=search)  # another axis of the recipe


def test_training_images_of_a_resampled_folder_are_no_axis(tmp_path: Path) -> None:
    folder = {"dataset": "imagefolder", "root": "images"}
    text = refusal(tmp_path, axes=axes(recipe__train_size=[64, 128]), proxy=PROXY | folder)
    assert "`recipe.train_size` cannot be an axis where images of a folder are resampled" in text
    assert "Write `resample: none`" in text
    load_study(
        write_study(tmp_path, KEYS, axes=axes(recipe__train_size=[64]), proxy=PROXY | folder | {"resample": "none"})
    )


def test_values_that_need_more_images_than_a_folder_has_are_refused_with_their_line(tmp_path: Path) -> None:
    proxy = PROXY | {"dataset": "imagefolder", "root": "images", "resample": "none", "train_size": None}
    given = {"K": [3], "recipe.train_size": [32, 41], "recipe.batch_size": [8, 64]}
    file = load_study(write_study(tmp_path, KEYS, axes=given, proxy=proxy))
    with pytest.raises(StudyError) as refused:
        build_space(file, classes=2, channels=3, train_images=40)
    problems = refused.value.problems
    lines = (tmp_path / "study.yaml").read_text().splitlines()
    assert [problem.rule for problem in problems] == [
        "`recipe.train_size` must be at most the 40 training images of the data set",
        "`recipe.batch_size` must be at most the 40 training images",
    ]
    places = [int(str(problem.place).rpartition(":")[2]) for problem in problems]
    assert [lines[place - 1].strip(" ,") for place in places] == ["41", "64"]
    assert recipe_of_most_images(file).train_size == 41
    build_space(file, classes=2, channels=3, train_images=64)


def test_every_key_of_the_proxy_is_an_axis_or_refused_with_a_reason(tmp_path: Path) -> None:
    assert {*RECIPE_AXES, *(f"recipe.{key}" for key in FIXED_KEYS)} >= set(RECIPE_NAMES)
    assert not set(RECIPE_AXES) & {f"recipe.{key}" for key in FIXED_KEYS}
    for name in set(RECIPE_NAMES) - set(RECIPE_AXES):
        assert "cannot be an axis" in refusal(tmp_path, axes={name: [1]})


def test_the_schema_has_every_axis_of_the_recipe() -> None:
    properties = json_schema()["properties"]
    for name in RECIPE_AXES:
        assert name in properties["axes"]["properties"] and name in properties["when"]["properties"]
    lists = properties["axes"]["properties"]["recipe.optimizer.lr"]["anyOf"]
    assert lists[0]["items"] == {"exclusiveMinimum": 0, "type": "number"} and len(lists) == 4
    only, *_ = properties["axes"]["properties"]["recipe.augmentation.flip"]["anyOf"]
    assert only["items"] == {"type": "boolean"}


# Claims and calibrations

RATED = SCRIPTED | {
    "axes": {"K": [3, 13], "recipe.optimizer.lr": [0.1, 0.2]},
    "when": {},
    "claims": [CLAIM | {"contrast": {"K=13, recipe.optimizer.lr=0.1": 1, "K=3, recipe.optimizer.lr=0.2": -1}}],
}


def test_the_arms_of_a_claim_choose_on_axes_of_the_recipe(tmp_path: Path) -> None:
    space = open_space(load_study(write_study(tmp_path, RATED)))
    assert arm_choices("recipe.optimizer.lr=1e-1, K=13", space) == {"K": 13, "recipe.optimizer.lr": 0.1}
    with pytest.raises(StudyError, match=r"choose on every axis that counts.*Add `recipe.optimizer.lr=\.\.\.`"):
        arm_choices("K=13", space)
    twice = {"K=3, recipe.optimizer.lr=0.1": 1, "recipe.optimizer.lr=0.10, K=3": -1}
    with pytest.raises(StudyError, match="must name each network and recipe once"):
        load_study(write_study(tmp_path, RATED, claims=[CLAIM | {"contrast": twice}]))


def test_arms_of_one_network_may_differ_in_their_recipe_alone(tmp_path: Path) -> None:
    contrast = {"K=3, recipe.optimizer.lr=0.1": 1, "K=3, recipe.optimizer.lr=0.2": -1}
    load_study(write_study(tmp_path, RATED, claims=[CLAIM | {"contrast": contrast}]))


def test_a_calibration_takes_the_recipe_that_all_arms_have(tmp_path: Path) -> None:
    contrast = {"K=13, recipe.optimizer.lr=0.1": 1, "K=3, recipe.optimizer.lr=0.1": -1}
    calibrate = {"vary": {"epochs": [2]}}
    file = load_study(write_study(tmp_path, RATED, claims=[CLAIM | {"contrast": contrast}], calibrate=calibrate))
    plan = plan_calibration(file)
    own, brief = (candidate.study(3).study.proxy for candidate in plan.candidates)
    assert (own.optimizer.lr, own.epochs) == (0.1, 4) and (brief.optimizer.lr, brief.epochs) == (0.1, 2)
    assert list(plan.candidates[0].networks) == ["K=13", "K=3"]


def test_a_calibration_of_arms_with_several_recipes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="all arms of the claims must have one recipe"):
        plan_calibration(load_study(write_study(tmp_path, RATED)))


def test_a_quick_profile_may_replace_values_of_an_axis(tmp_path: Path) -> None:
    quick = {"axes": {"recipe.epochs": [1, 2]}, "proxy": {"schedule": {"warmup_epochs": 0.5}}}
    path = write_study(tmp_path, TINY, axes=TINY["axes"] | {"recipe.epochs": [2, 4]}, quick=quick)
    assert load_study(path, is_quick=True).study.axes["recipe.epochs"] == [1, 2]
