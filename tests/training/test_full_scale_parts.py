"""The parts of a training at full scale: its target, its pace, its rates by layer, its images."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_scale_cases import CPU, RECIPE, full_spec, recipe_of, write_folder
from PIL import Image
from study_texts import PLAIN

from harness.config.recipes.full_scale import adapt_to_data
from harness.config.study_file import full_scale_network, load_study
from harness.data.batching import BatchPlan
from harness.data.image_file import UnreadableFile
from harness.data.image_sources import count_classes, count_images, open_classification
from harness.data.loading import BatchReader, TrainingItems, ValidationItems, step_batches, worker_indices
from harness.data.preprocessing import Preprocessing
from harness.data.seeding import seeded_streams
from harness.errors import DataError, SpecError, UserError
from harness.models.build import build
from harness.models.spec.presets import PRESETS
from harness.training.metrics.classification import validate_classifier
from harness.training.optim import (
    LR_SCALE,
    full_scale_learning_rate,
    layer_count,
    layer_of,
    parameter_groups,
)

# Target


def study(folder: Path, text: str) -> Any:
    path = folder / "study.yaml"
    path.write_text(text)
    return load_study(path)


def test_choices_are_put_on_the_full_scale_base(tmp_path: Path) -> None:
    text = "study: a\nbase: replknet_nano\naxes: {K: [[3, 3, 3, 3], [13, 13, 13, 13]], shortcut: [true, false]}\n"
    file = study(tmp_path, text + "full_scale: {base: replknet_31b}\n")
    network = full_scale_network(file, {"K": [3, 3, 3, 3], "shortcut": False})
    assert network == PRESETS["replknet_31b"].replace(K=3, reparam=None, shortcut=False)


def test_a_choice_of_a_small_base_is_not_taken_over(tmp_path: Path) -> None:
    text = "study: a\naxes: {base: [replknet_nano, replknet_tiny], K: [3, 13]}\nfull_scale: {base: replknet_31b}\n"
    file = study(tmp_path, text)
    assert full_scale_network(file, {"base": "replknet_tiny", "K": 13}) == PRESETS["replknet_13"]
    assert full_scale_network(file, {"base": "replknet_tiny"}) == PRESETS["replknet_31b"]


def test_without_a_full_scale_base_there_is_no_target(tmp_path: Path) -> None:
    assert full_scale_network(study(tmp_path, PLAIN), {}) is None


def test_choices_that_do_not_fit_name_the_line(tmp_path: Path) -> None:
    text = "study: a\nbase: mobilenet_v2_nano\naxes: {K: [[3, 3, 3, 3, 3, 3, 3]]}\n"
    file = study(tmp_path, text + "full_scale:\n  base: replknet_31b\n")
    with pytest.raises(SpecError, match="4 in all") as caught:
        full_scale_network(file, {"K": [3] * 7})
    assert str(caught.value.place).endswith("study.yaml:5")


def test_a_network_is_fitted_to_images_and_recipe() -> None:
    network = adapt_to_data(PRESETS["replknet_nano"].replace(in_channels=1), recipe_of(drop_path=0.5), 21)
    assert (network.classes, network.in_channels, network.drop_path) == (21, 3, 0.5)
    assert adapt_to_data(PRESETS["replknet_31b"], recipe_of(drop_path=None), 10).drop_path == 0.3


# Pace


@pytest.mark.parametrize(("workers", "micro", "parts"), [(1, 64, 32), (8, 64, 4), (32, 64, 1), (64, 32, 1)])
def test_the_batch_of_the_paper_is_kept_by_any_number_of_workers(workers: int, micro: int, parts: int) -> None:
    batch_plan = BatchPlan.of(recipe_of(batch_size=2048, micro_batch=64), 1_281_167, workers)
    assert (batch_plan.micro_batch, batch_plan.accumulation_steps, batch_plan.steps) == (micro, parts, 625)


def test_a_step_sees_the_same_images_however_many_workers_share_them() -> None:
    recipe = recipe_of(batch_size=12, micro_batch=4)
    order = list(range(40))[::-1]
    steps = []
    for workers in (1, 2, 3):
        batch_plan = BatchPlan.of(recipe, 40, workers)
        lists = [list(batch_plan.micro_batches(order, rank, 1)) for rank in range(workers)]
        assert all(len(micro_batches) == 2 * batch_plan.accumulation_steps for micro_batches in lists)
        steps.append(
            [
                sorted(
                    i
                    for micro_batches in lists
                    for part in micro_batches[s * batch_plan.accumulation_steps :][: batch_plan.accumulation_steps]
                    for i in part
                )
                for s in (0, 1)
            ]
        )
    assert steps[0] == steps[1] == steps[2] == [sorted(order[12:24]), sorted(order[24:36])]


@pytest.mark.parametrize(
    ("images", "workers", "micro", "words"),
    [
        (8, 1, 8, "`batch_size` must be at most the 8 training images"),
        (100, 3, 8, "`--workers` must divide `batch_size` (16), but got 3. Near it: 1, 2, 4 workers"),
        (100, 16, 8, "equal parts of 2 to 8 images"),
    ],
)
def test_what_cannot_be_divided(images: int, workers: int, micro: int, words: str) -> None:
    with pytest.raises(UserError) as caught:
        BatchPlan.of(recipe_of(micro_batch=micro), images, workers)
    assert words in str(caught.value)


# Learning rates


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("stem.3.bn.weight", 0),
        ("stages.0.blocks.3.pw1.conv.weight", 1),
        ("transitions.0.1.conv.weight", 1),
        ("stages.1.blocks.0.prelkb_bn.weight", 2),
        ("transitions.1.0.bn.bias", 2),
        ("stages.2.blocks.3.pw2.conv.weight", 3),
        ("stages.2.blocks.4.pw1.conv.weight", 4),
        ("stages.2.blocks.35.pw1.conv.weight", 11),
        ("transitions.2.0.conv.weight", 11),
        ("stages.3.blocks.0.pw1.conv.weight", 12),
        ("norm.weight", 13),
        ("head.bias", 13),
    ],
)
def test_layers_are_grouped_as_in_the_paper_s_code(name: str, group: int) -> None:
    spec = PRESETS["replknet_31b"]
    assert layer_count(spec) == 14 and layer_of(name, spec) == group


@pytest.mark.parametrize(
    "preset", ["replknet_nano", "convnext_nano", "mobilenet_v2_nano", "replknet_31b", "convnext_t"]
)
def test_every_parameter_has_a_group_and_every_group_parameters(preset: str) -> None:
    spec = PRESETS[preset]
    with torch.device("meta"):
        names = [name for name, _ in build(spec).named_parameters()]
    assert {layer_of(name, spec) for name in names} == set(range(layer_count(spec)))


def test_rates_fall_towards_the_stem_and_vectors_do_not_decay() -> None:
    recipe = recipe_of(optimizer={"layer_decay": 0.5, "weight_decay": 0.1})
    spec = full_spec(recipe)
    model = build(spec)
    groups: list[dict[str, Any]] = parameter_groups(model, spec, recipe)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for group in groups:
        assert group["weight_decay"] == (0.1 if group["params"][0].ndim > 1 else 0.0)
        assert len({parameter.ndim > 1 for parameter in group["params"]}) == 1
    assert {group[LR_SCALE] for group in groups} == {0.5**i for i in range(layer_count(spec))}
    assert groups[-1][LR_SCALE] == 1.0 and any(p is model.get_parameter("head.weight") for p in groups[-1]["params"])


def test_the_rate_rises_from_0_to_its_peak_and_falls_to_its_least() -> None:
    recipe = recipe_of(epochs=10, optimizer={"lr": 0.5}, schedule={"warmup_epochs": 2, "min_lr": 0.1})
    rates = [full_scale_learning_rate(recipe, step, 8) for step in range(81)]
    assert rates[0] == 0 and rates[8] == 0.25 and rates[16] == 0.5 == max(rates)
    assert rates[16:] == sorted(rates[16:], reverse=True)
    assert math.isclose(rates[48], 0.3) and math.isclose(rates[80], 0.1)


# Images


def folder_recipe(**changes: Any) -> Any:
    return recipe_of(**{"data": {"dataset": "imagefolder"}, "batch_size": 8, **changes})


def test_images_in_imagenet_s_layout(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "imagenet")
    recipe = folder_recipe()
    pictures = open_classification(recipe, root, tmp_path)
    assert pictures.val is not None
    assert (pictures.classes, len(pictures.train.labels), len(pictures.val.labels)) == (3, 24, 12)
    assert count_classes(recipe, root) == 3 and count_images(recipe, root) == 24
    picture = pictures.train.image_or_failure(23)
    assert isinstance(picture, Image.Image) and picture.mode == "RGB" and picture.size == (24, 31)
    assert np.asarray(picture).mean((0, 1)).argmax() == 2 == pictures.train.labels[23]
    few = open_classification(folder_recipe(data={"dataset": "imagefolder", "train_size": 6}), root, tmp_path)
    assert np.bincount(few.train.labels).tolist() == [2, 2, 2]


def test_without_validation_images_there_is_no_val(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "imagenet22k", val=0)
    pictures = open_classification(folder_recipe(data={"dataset": "imagefolder", "has_val": False}), root, tmp_path)
    assert pictures.val is None and len(pictures.train.labels) == 24


def test_grey_cmyk_palette_and_turned_images_become_colour(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "imagenet", train=0, classes=1)
    folder = root / "train" / "n00000000"
    plain = Image.new("RGB", (20, 10), (200, 30, 30))
    plain.convert("L").save(folder / "a.png")
    plain.convert("CMYK").save(folder / "b.jpg")
    plain.convert("P").save(folder / "c.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    plain.save(folder / "d.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(folder / "e.png")
    pictures = open_classification(folder_recipe(data={"dataset": "imagefolder", "has_val": False}), root, tmp_path)
    items = [pictures.train.image_or_failure(i) for i in range(5)]
    images = [image for image in items if isinstance(image, Image.Image)]
    assert [image.mode for image in images] == ["RGB"] * 5
    assert [image.size for image in images] == [(20, 10)] * 3 + [(10, 20), (1, 1)]
    batch = next(_batches(pictures.train, folder_recipe(batch_size=4, micro_batch=4), loaders=0))
    assert batch[0].shape == (4, 3, 16, 16) and batch[0].isfinite().all()


def test_images_that_cannot_be_read_are_replaced_in_training_and_left_out_of_validation(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "imagenet")
    for path in (root / "train" / "n00000001" / "n00000001_2.JPEG", root / "val" / "n00000002" / "n00000002_3.JPEG"):
        path.write_bytes(path.read_bytes()[:300])
    recipe = folder_recipe()
    pictures = open_classification(recipe, root, tmp_path)
    assert pictures.val is not None and isinstance(pictures.train.image_or_failure(10), UnreadableFile)
    batches = list(_batches(pictures.train, recipe, loaders=0))
    assert sum(int(passed.sum()) for _, _, passed in batches) == 2  # once in each epoch
    assert all((labels >= 0).all() for _, labels, _ in batches)
    preprocessing = Preprocessing.of(recipe)
    shown = BatchReader(ValidationItems(pictures.val, preprocessing), 0).read(worker_indices(12, 5, rank=0, size=1))
    scores = validate_classifier(build(full_spec(recipe, classes=3)), shown, preprocessing, CPU)
    assert scores.unreadable == 1 and scores["top5"] == 100  # of three classes


def test_a_folder_of_damaged_images_is_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "imagenet")
    for path in root.glob("train/*/*"):
        path.write_bytes(b"no image")
    pictures = open_classification(folder_recipe(), root, tmp_path)
    with pytest.raises(DataError, match="one must be readable"):
        list(_batches(pictures.train, folder_recipe(), loaders=0))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"dataset": "imagefolder", "classes": 1000}, "the images must be of 1,000 classes"),
        ({"dataset": "cifar10"}, "must hold cifar10 as it is distributed"),
    ],
)
def test_a_folder_that_does_not_suit_the_recipe(tmp_path: Path, data: dict[str, Any], words: str) -> None:
    root = write_folder(tmp_path / "imagenet", train=1, val=1)
    with pytest.raises(DataError) as caught:
        count_classes(recipe_of(data=data), root)
    assert words in str(caught.value) and "proxy" not in str(caught.value)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    for root, words in (
        (None, "`--data` must name"),
        (tmp_path / "no", "`--data` must be an existing"),
        (tmp_path, "`train`"),
    ):
        with pytest.raises(DataError) as caught:
            open_classification(folder_recipe(), root, tmp_path)
        assert words in str(caught.value) and "proxy" not in str(caught.value)


def _batches(images: Any, recipe: Any, *, loaders: int, epoch: int = 1, first_step: int = 0) -> Any:
    """The batches from there to the last epoch."""
    batch_plan = BatchPlan.of(recipe, len(images.labels), 1)
    items = TrainingItems(images, recipe)
    return step_batches(items, recipe, batch_plan, epoch=epoch, rank=0, first_step=first_step, loaders=loaders)


def test_images_depend_on_seed_epoch_and_number_and_not_on_who_reads_them(tmp_path: Path) -> None:
    recipe = recipe_of()
    images = open_classification(recipe, None, tmp_path).train
    torch.manual_seed(3)
    before = torch.get_rng_state()
    here = list(_batches(images, recipe, loaders=0))
    assert torch.equal(before, torch.get_rng_state())  # nothing is drawn from the training's own stream
    there = list(_batches(images, recipe, loaders=2))
    late = list(_batches(images, recipe, loaders=0, first_step=1))
    second = list(_batches(images, recipe, loaders=1, epoch=2))
    assert (len(here), len(late), len(second)) == (8, 6, 4)  # of two epochs
    pairs = [*zip(here, there, strict=True), *zip(here[2:], late, strict=True), *zip(here[4:], second, strict=True)]
    for a, b in pairs:
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(here[4][0], here[0][0])
    assert not torch.equal(next(_batches(images, recipe_of(seed=1), loaders=0))[0], here[0][0])


def test_validation_images_are_shared_without_overlap(tmp_path: Path) -> None:
    recipe = recipe_of(evaluation={"batch_size": 5})
    images = open_classification(recipe, None, tmp_path).val
    assert images is not None
    items = ValidationItems(images, Preprocessing.of(recipe))
    parts = [list(BatchReader(items, 0).read(worker_indices(24, 5, rank=rank, size=3))) for rank in range(3)]
    assert [[len(labels) for _, labels, _ in part] for part in parts] == [[5, 3]] * 3
    labels = torch.stack([torch.cat([batch_labels for _, batch_labels, _ in part]) for part in parts], 1).flatten()
    assert labels.tolist() == images.labels.tolist()


@pytest.mark.parametrize(("mode", "corner"), [("center", False), ("squash", True)])
def test_validation_cuts_as_in_the_recipe(mode: str, corner: bool) -> None:
    picture = Image.new("RGB", (64, 32))
    picture.paste((255, 255, 255), (0, 0, 8, 32))  # a white strip at the left of a wide image
    recipe = recipe_of(
        evaluation={"crop": 1.0, "mode": mode}, data=RECIPE["data"] | {"mean": [0, 0, 0], "std": [1, 1, 1]}
    )
    seen = Preprocessing.of(recipe).transform()(picture)
    assert seen.shape == (3, 16, 16) and bool(seen[:, :, 0].mean() > 0.5) == corner


def test_streams_are_put_back() -> None:
    np.random.seed(1)
    before = np.random.get_state(legacy=False)["state"]["key"].copy(), torch.get_rng_state()
    with seeded_streams(0, 1, 2):
        first = np.random.rand(), torch.rand(()).item()
    with seeded_streams(0, 1, 2):
        assert first == (np.random.rand(), torch.rand(()).item())
    with seeded_streams(0, 1, 3):
        assert first != (np.random.rand(), torch.rand(()).item())
    assert (np.random.get_state(legacy=False)["state"]["key"] == before[0]).all() and torch.equal(
        torch.get_rng_state(), before[1]
    )
