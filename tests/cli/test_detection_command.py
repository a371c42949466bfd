"""`harness downstream detect`, from the command line to the files that it leaves."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from coco_folders import write_coco
from detection_cases import DETECTORS, RECIPE
from tiny_studies import CommandResult, called

from harness.analysis.network_forms import NetworkForm
from harness.analysis.networks import recognize
from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.loading import load_task_recipe, recipe_names
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.models.weights import save_weights
from harness.training.tasks.weights_file import read_dense

SPEC = {"B": 1, "C": [4, 4, 8, 8], "K": 5, "reparam": 3, "stem_stride": 2}
ALONE = ("--workers", "1", "--loaders", "0")


@pytest.fixture(autouse=True)
def _one_processor() -> Iterator[None]:
    """Networks this small are slower on several threads, even more so while other tests run."""
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(affinity)})
    yield
    os.sched_setaffinity(0, affinity)


def write(folder: Path, kind: str = "fcos", **changes: Any) -> None:
    (folder / "net.yaml").write_text(yaml.safe_dump(SPEC))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"detector": DETECTORS[kind]} | changes))


def detect(folder: Path, network: str | Path, *options: str | Path) -> CommandResult:
    return called("downstream", "detect", network, *ALONE, *options, cwd=folder)


def folder_of(folder: Path) -> Path:
    (path,) = (path for path in (folder / "results" / "downstream").iterdir() if path.is_dir())
    return path


@pytest.mark.long
def test_trains_merges_last_and_judges(tmp_path: Path) -> None:
    write(tmp_path, "mask_rcnn")
    result = detect(tmp_path, "net.yaml", "--recipe", "recipe.yaml")
    assert result.returncode == 0, result.stderr
    for words in ("trained un-merged and merged last", "random weights", "epoch 2/2", "AP of boxes", "AP of masks"):
        assert words in result.stdout, words
    for words in ("AP50", "small", "large", "crescent", "in merged form", "estimated time:"):
        assert words in result.stdout, words
    folder = folder_of(tmp_path)
    assert not read_dense(folder / "best.safetensors").is_merged
    merged = read_dense(folder / "merged.safetensors")
    assert merged.is_merged and merged.spec.in_channels == 3 and isinstance(merged.recipe, DetectionRecipe)
    kept = json.loads((folder / "evaluation.json").read_text())
    assert {"ap", "ap50", "ap75", "mask_ap", "ap_disc", "mask_ap_disc"} <= set(kept["figures"])
    assert kept["maps_apart"] < 1e-4 and abs(kept["merged_apart"]["ap"]) < 5

    again = detect(tmp_path, "net.yaml", "--recipe", "recipe.yaml")
    assert again.returncode == 0 and "trained to its last epoch already" in again.stdout

    values = []
    for path in (folder, folder / "merged.safetensors"):
        evaluation = detect(tmp_path, path, "--evaluate-only", "--json")
        assert evaluation.returncode == 0, evaluation.stderr
        values.append(json.loads(evaluation.stdout)["figures"])
    assert values[0] == pytest.approx(kept["figures"], abs=1e-3) and values[1] == pytest.approx(values[0], abs=1e-3)


@pytest.mark.long
def test_begins_from_weights_in_grey_or_in_colour_and_on_cocos_format(tmp_path: Path) -> None:
    write(tmp_path, data={"dataset": "coco"}, epochs=1)
    root = write_coco(tmp_path / "coco", train=6, val=3)
    spec = NetworkSpec.from_mapping(SPEC | {"in_channels": 1, "classes": 5})
    save_weights(tmp_path / "grey.safetensors", spec, build(spec, seed=0), "a test")
    result = detect(tmp_path, "grey.safetensors", "--recipe", "recipe.yaml", "--data", root)
    assert result.returncode == 0, result.stderr
    assert "green" in result.stdout and "grey.safetensors" in result.stdout
    best = folder_of(tmp_path) / "best.safetensors"
    assert recognize(str(best)) == NetworkForm.WITH_HEAD and read_dense(best).spec.in_channels == 1

    smaller = detect(tmp_path, best, "--evaluate-only", "--data", root, "--short", "16", "--longest", "20")
    assert smaller.returncode == 0 and "AP of boxes" in smaller.stdout
    shapes = detect(tmp_path, best, "--evaluate-only")
    assert shapes.returncode == 2 and "`--data` must name the folder" in shapes.stderr

    merged = folder_of(tmp_path) / "merged.safetensors"
    refused = detect(tmp_path, merged, "--recipe", "recipe.yaml", "--data", root)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "`--recipe` must name a recipe"),
        (["--recipe", "shapes"], "the recipe must be for detection"),
        (["--recipe", "shapes_fcoss"], "Did you mean `shapes_fcos`?"),
        (["--recipe", "coco_fcos_2x"], "`--data` must name the folder of the images"),
        (["--recipe", "coco_fcos_2x", "--data", "nowhere"], "existing folder"),
        (["--recipe", "shapes_fcos", "--evaluate-only"], "net.yaml"),
    ],
)
def test_invalid_options_are_reported(tmp_path: Path, options: list[str], message: str) -> None:
    write(tmp_path)
    refused = detect(tmp_path, "net.yaml", *options)
    assert refused.returncode == 2 and message in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize("options", [(), ("--data", "nowhere")])
def test_a_dry_run_needs_no_images(tmp_path: Path, options: tuple[str, ...]) -> None:
    write(tmp_path, data={"dataset": "coco"})
    result = detect(tmp_path, "net.yaml", "--recipe", "recipe.yaml", "--dry-run", *options)
    assert (result.returncode, result.stderr) == (0, "")
    for words in ("not read", "117,266", "instances_train2017.json", "not measured", "random weights"):
        assert words in result.stdout
    assert not (tmp_path / "results").exists()


def test_a_broken_annotation_file_is_reported_with_its_position(tmp_path: Path) -> None:
    write(tmp_path, data={"dataset": "coco"})
    root = write_coco(tmp_path / "coco")
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace('"bbox"', '"box"', 1))
    refused = detect(tmp_path, "net.yaml", "--recipe", "recipe.yaml", "--data", root)
    assert refused.returncode == 2 and "`bbox` is missing" in refused.stderr and "annotations[0]" in refused.stderr
    shutil.rmtree(root / "annotations")
    refused = detect(tmp_path, "net.yaml", "--recipe", "recipe.yaml", "--data", root)
    assert refused.returncode == 2 and "there is none" in refused.stderr


@pytest.mark.parametrize("name", recipe_names("detection"))
def test_every_recipe_is_sound_and_fits_a_network(name: str) -> None:
    recipe = load_task_recipe(name, "detection", DetectionRecipe)
    assert recipe.schedule.milestones == sorted(recipe.schedule.milestones)
    assert recipe.schedule.milestones[-1] < recipe.epochs and recipe.batch_size % recipe.micro_batch == 0
    assert ("coco" in name) == (recipe.data.dataset == "coco")
    assert recipe.evaluation.short in recipe.views.short


def test_there_are_recipes_for_every_network_of_the_paper_and_for_every_detector() -> None:
    recipes = {name: load_task_recipe(name, "detection", DetectionRecipe) for name in recipe_names("detection")}
    assert set(recipes) >= {"coco_fcos_2x", *(f"coco_cascade_3x_{which}" for which in ("1k", "22k", "31l", "xl"))}
    assert {recipe.detector.name for name, recipe in recipes.items() if name.startswith("shapes")} == set(DETECTORS)
    assert recipes["coco_cascade_3x_xl"].detector.normed and PRESETS["replknet_xl"].reparam[0] is None
