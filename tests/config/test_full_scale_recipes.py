"""Full-scale recipes: those shipped equal the published ones, and an error in a file is reported with its line."""

from pathlib import Path
from typing import Any

import pytest
from full_scale_cases import recipe_of
from study_texts import PLAIN

from harness.config.recipes.loading import load_classification_recipe, recipe_file, recipe_names
from harness.config.study_file import load_study
from harness.errors import StudyError

PUBLISHED = {
    # name: classes, resolution, epochs, batch, lr, weight decay, layer decay, warm-up, min lr, mixup, cutmix, drop, EMA
    "imagenet_120": (1000, 224, 120, 2048, 4e-3, 0.05, 1.0, 10, 1e-6, 0.8, 1.0, 0.3, None),
    "imagenet_300": (1000, 224, 300, 2048, 4e-3, 0.05, 1.0, 10, 1e-6, 0.8, 1.0, 0.5, 0.9999),
    "imagenet_384_finetune": (1000, 384, 30, 1024, 4e-4, 1e-8, 0.7, 1, 1e-6, 0.0, 0.0, 0.8, 0.9999),
    "imagenet22k_pretrain": (21841, 224, 90, 4096, 4e-3, 0.05, 1.0, 5, 1e-6, 0.8, 1.0, 0.1, None),
    "imagenet22k_to_1k_224": (1000, 224, 30, 512, 4e-4, 1e-8, 0.7, 1, 1e-6, 0.0, 0.0, 0.2, 0.9999),
    "imagenet22k_to_1k_384": (1000, 384, 30, 512, 4e-4, 1e-8, 0.7, 1, 3e-4, 0.0, 0.0, 0.3, 0.9999),
    "mobilenet_v2_100": (1000, 224, 100, 256, 0.1, 4e-5, 1.0, 5, 0.0, 0.0, 0.0, None, None),
}
"""arXiv 2203.06717, appendix A, and the official code's commands."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_recipe_equals_the_published_one(name: str) -> None:
    recipe = load_classification_recipe(name)
    optimizer, schedule, augmentation = recipe.optimizer, recipe.schedule, recipe.augmentation
    assert (
        recipe.data.classes,
        recipe.resolution,
        recipe.epochs,
        recipe.batch_size,
        optimizer.lr,
        optimizer.weight_decay,
        optimizer.layer_decay,
        schedule.warmup_epochs,
        schedule.min_lr,
        augmentation.mixup,
        augmentation.cutmix,
        recipe.drop_path,
        recipe.ema,
    ) == PUBLISHED[name]


def test_every_recipe_that_ships_names_its_source_and_what_to_expect() -> None:
    assert set(recipe_names()) == {*PUBLISHED, "shapes"}
    for name in recipe_names():
        text = recipe_file(name).read_text(encoding="utf-8")
        assert "# Source " in text and "# Expect " in text, name
        assert load_classification_recipe(name).about


def test_fine_tuning_needs_weights_and_squashes_its_images_from_384_pixels_on() -> None:
    for name in recipe_names():
        recipe = load_classification_recipe(name)
        assert recipe.needs_weights == (recipe.optimizer.layer_decay < 1), name
        assert (recipe.evaluation.mode == "squash") == (recipe.resolution >= 384), name


def test_what_decides_nothing_changes_no_fingerprint() -> None:
    recipe = recipe_of()
    same = recipe_of(keep_last=9, save_minutes=1.0, about="another", evaluation={"batch_size": 7}, channels_last=True)
    assert same.fingerprint() == recipe.fingerprint()
    changes: list[dict[str, Any]] = [{"seed": 1}, {"micro_batch": 4}, {"evaluation": {"crop": 1.0}}, {"ema": None}]
    assert len({recipe_of(**change).fingerprint() for change in [{}, *changes]}) == 5


def test_a_file_with_faults_is_refused_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("about: a\nepochs: 3\nbatch_size: 1\noptimiser: {}\noptimizer: {lr: fast}\nresolution: '224'\n")
    with pytest.raises(StudyError) as caught:
        load_classification_recipe(str(path))
    output = str(caught.value)
    for words in (
        f"`batch_size` must be at least 2, but got 1 ({path}:3)",
        f"`optimiser` is no key of a recipe ({path}:4). Did you mean `optimizer`?",
        f'`optimizer.lr` must be a number, but got "fast" ({path}:5)',
        "Write it without quotes",
    ):
        assert words in output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedule": {"warmup_epochs": 2}}, "`schedule.warmup_epochs` must be below `epochs` (2), but got 2"),
        ({"schedule": {"warmup_epochs": 0, "min_lr": 1}}, "`schedule.min_lr` must be at most `optimizer.lr` (0.003)"),
        ({"data": {"dataset": "shapes", "has_val": False}}, "`data.has_val` must be true of shapes"),
        ({"augmentation": {"crop_scale": [0.5, 0.1]}}, "must be a least and a largest share"),
        ({"data": {"dataset": "shapes", "std": [1.0, 0.0, 1.0]}}, "must be above 0, but got 0"),
    ],
)
def test_rules_across_keys(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        recipe_of(**change)
    assert words in str(caught.value)


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(StudyError, match="Did you mean `imagenet_300`") as caught:
        load_classification_recipe("imagenet_30")
    assert "imagenet22k_pretrain" in str(caught.value)


def test_a_study_must_name_a_recipe_that_ships(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(PLAIN + "full_scale:\n  base: replknet_31b\n  recipe: imagenet_200\n")
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert "`full_scale.recipe` must be a recipe that comes with the harness" in str(caught.value)
    assert str(caught.value.place).endswith(f"study.yaml:{len(path.read_text().splitlines())}")
