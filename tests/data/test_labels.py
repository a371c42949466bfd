"""Which class of a network an image is of: by name where both sides have names, as numbers, and never silently."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_scale_cases import epochs_of, full_spec, job_of, recipe_of, trained
from PIL import Image
from tiny_runs import tiny_spec
from tiny_studies import called

from harness.analysis.networks import load_network
from harness.config.network_file import dump_network_spec
from harness.config.recipes.full_scale import ClassificationDataConfig
from harness.config.yaml_file import write_yaml
from harness.data.image_folder import classes_of
from harness.data.labels import IMAGENET_CLASSES, assign_labels, imagenet_synsets, label_order
from harness.data.validation_images import open_validation
from harness.errors import DataError, UserError
from harness.models.build import build
from harness.models.weights import read_weights, save_weights
from harness.storage.load_network import LoadedNetwork, WeightsOrigin, class_names
from harness.training.full_scale.folder import CLASSES, NETWORK, RECIPE
from harness.training.full_scale.messages import Message
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.tasks.classification import ClassificationTask

PADDED = tuple(f"{i:02d}" for i in range(12))
NUMBERED = tuple(str(i) for i in range(12))
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")


# Names


def test_whole_numbers_are_sorted_as_numbers_and_nothing_else_is() -> None:
    assert label_order(sorted(NUMBERED)) == list(NUMBERED)
    assert label_order(["b2", "b10", "a"]) == ["a", "b10", "b2"]
    assert label_order(["10", "9", "x"]) == ["10", "9", "x"]
    assert label_order(["1", "01"]) == ["01", "1"]  # no numbers of their own


def test_folders_are_listed_in_the_order_of_their_labels(tmp_path: Path) -> None:
    for name in NUMBERED:
        (tmp_path / "val" / name).mkdir(parents=True)
    assert classes_of(tmp_path, "val") == NUMBERED


@pytest.mark.parametrize(
    ("names", "classes", "labels", "about"),
    [
        (PADDED, PADDED, tuple(range(12)), "by name: 12 of 12 classes"),
        (("b", "a"), ("a", "b"), (1, 0), "by name: 2 of 2 classes"),
        (tuple(sorted(NUMBERED)), NUMBERED, (0, 1, 10, 11, *range(2, 10)), "by name: 12 of 12 classes"),
        (NUMBERED, PADDED, tuple(range(12)), "by number: 12 of 12 classes"),
        (NUMBERED, tuple(sorted(NUMBERED)), (0, 1, *range(4, 12), 2, 3), "by name: 12 of 12 classes"),
        (("c", "a"), ("a", "b", "c"), (2, 0), "by name: 2 of 3 classes have images, and answers are among all 3"),
        (("7", "3"), PADDED, (7, 3), "by number: 2 of 12 classes have images"),
    ],
)
def test_names_decide_where_both_sides_have_them(names: Any, classes: Any, labels: Any, about: str) -> None:
    result = assign_labels(names, classes, len(classes), "val")
    assert result.labels == labels and result.about.startswith(about)


@pytest.mark.parametrize(
    ("names", "classes", "words"),
    [
        (WORDS, PADDED, ("12 unknown (`zero`, `one`, `two`, ...)", "12 missing (`00`", "--labels position")),
        (("a", "c"), ("a", "b"), ("1 unknown (`c`)", "1 missing (`b`)")),
        (("0", "12"), PADDED, ("2 unknown (`0`, `12`)",)),
        (("a", "b"), ("a", "a"), ("must have different names",)),
    ],
)
def test_names_that_differ_are_refused_and_named(names: Any, classes: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        assign_labels(names, classes, len(classes), "val")
    assert all(word in str(caught.value) for word in words)


def test_without_names_positions_decide_and_that_is_reported() -> None:
    result = assign_labels(("a", "b"), None, 2, "val")
    assert result.labels == (0, 1) and result.about.startswith("by position, in order from `a` to `b`: the weights")
    assert "as numbers" in assign_labels(NUMBERED, None, 12, "val").about
    with pytest.raises(DataError, match="the 12 classes that the network tells apart"):
        assign_labels(("a", "b"), None, 12, "val")


def test_synsets_of_imagenet_are_known_to_networks_for_it() -> None:
    synsets = imagenet_synsets()
    assert len(synsets) == IMAGENET_CLASSES and list(synsets) == sorted(synsets)
    result = assign_labels((synsets[5], synsets[900]), None, IMAGENET_CLASSES, "val")
    assert result.labels == (5, 900) and "2 of 1,000 classes have images" in result.about
    numbers = tuple(sorted(map(str, range(IMAGENET_CLASSES)), key=int))  # as ImageNetV2 has its folders
    assert assign_labels(numbers, None, IMAGENET_CLASSES, "val").labels == tuple(range(IMAGENET_CLASSES))


# Images


def write_images(root: Path, names: tuple[str, ...], count: int = 2) -> Path:
    """Noise for every class, by its place among the names."""
    for label, name in enumerate(names):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng([label, i])
            Image.fromarray(rng.integers(0, 255, (24, 24, 3)).astype(np.uint8)).save(folder / f"{i}.png")
    return root


def labels_by_file(root: Path, names: Any, classes: int = 12) -> dict[str, int]:
    images = open_validation(ClassificationDataConfig(dataset="imagefolder"), classes, 16, root, root, names)
    files = getattr(images.images, "images", images.images).files  # type: ignore[union-attr]
    return {
        Path(file.decode()).parent.name: int(label) for file, label in zip(files, images.images.labels, strict=True)
    }


def test_validation_images_get_the_labels_of_the_network(tmp_path: Path) -> None:
    root = write_images(tmp_path / "val", NUMBERED)
    assert labels_by_file(root, PADDED) == {name: int(name) for name in NUMBERED}
    assert labels_by_file(root, tuple(reversed(NUMBERED))) == {name: 11 - int(name) for name in NUMBERED}
    assert labels_by_file(root, None) == {name: int(name) for name in NUMBERED}
    assert labels_by_file(root, (*NUMBERED, "12"), 13) == {name: int(name) for name in NUMBERED}


def training_folder(folder: Path, names: tuple[str, ...]) -> Path:
    """A training at full scale whose class names are in `classes.json` alone."""
    spec = tiny_spec(in_channels=3, classes=len(names))
    folder.mkdir()
    (folder / NETWORK).write_text(dump_network_spec(spec))
    (folder / RECIPE).write_text(write_yaml(recipe_of(data={"dataset": "imagefolder"}).model_dump(mode="json")))
    (folder / CLASSES).write_text(json.dumps(names))
    model = build(spec, seed=1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)))  # so that images matter
    save_weights(folder / "best.safetensors", spec, model, "a test")
    return folder


def loss_and_labels(folder: Path, data: Path, *options: str) -> tuple[float, str]:
    result = called("evaluate", folder, "--data", data, "--json", *options, cwd=folder.parent)
    assert result.returncode == 0, result.stderr
    evaluation = json.loads(result.stdout)
    return evaluation["forms"]["training"]["loss"], evaluation["labels"]


def test_evaluate_matches_names_and_refuses_others(tmp_path: Path) -> None:
    folder = training_folder(tmp_path / "training", PADDED)
    padded = write_images(tmp_path / "padded" / "val", PADDED)
    numbered = write_images(tmp_path / "numbered" / "val", NUMBERED)
    renamed = write_images(tmp_path / "renamed" / "val", WORDS)
    loss, labels = loss_and_labels(folder, padded)
    assert labels == "by name: 12 of 12 classes"
    assert loss_and_labels(folder, numbered) == (loss, "by number: 12 of 12 classes")
    result = called("evaluate", folder, "--data", renamed, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "") and "`zero`" not in result.stdout
    assert "12 unknown (`eight`, `eleven`, `five`, ...)" in result.stderr and "--labels position" in result.stderr
    other, labels = loss_and_labels(folder, renamed, "--labels", "position")
    assert labels.startswith("by position") and "as `--labels position` requests" in labels and other != loss
    result = called("evaluate", folder, "--data", padded, cwd=tmp_path)
    assert "labels     by name: 12 of 12 classes" in result.stdout and "as in its training" in result.stdout


@pytest.mark.parametrize("content", ["{", '["a"]', '{"a": 0}'])
def test_names_that_cannot_be_read_are_not_passed_over(tmp_path: Path, content: str) -> None:
    folder = training_folder(tmp_path / "training", PADDED)
    (folder / CLASSES).write_text(content)
    with pytest.raises(UserError, match="must list the names of the 12 classes"):
        class_names(load_network(str(folder)))
    (folder / CLASSES).unlink()
    assert class_names(load_network(str(folder))) is None


def test_a_file_of_weights_keeps_the_names_when_it_leaves_its_folder(tmp_path: Path) -> None:
    names = ("b", "a", "c")
    spec = tiny_spec(in_channels=3, classes=3)
    save_weights(tmp_path / "x.safetensors", spec, build(spec, seed=1), "a test", classes=names)
    write_images(tmp_path / "d" / "val", ("a", "b"))
    result = called("evaluate", "x.safetensors", "--data", "d", "--json", "--resolution", "16", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["labels"].startswith("by name: 2 of 3 classes have images")


def test_only_imagenet_s_own_classes_are_compared_with_published_accuracies(tmp_path: Path) -> None:
    """A thousand classes of other names, or a part of ImageNet's, are not what was published."""
    from harness.cli.network_accuracy import _evaluation_images, _is_imagenet

    synsets = imagenet_synsets()
    spec = tiny_spec(in_channels=3, classes=IMAGENET_CLASSES)
    network = LoadedNetwork("mine", spec, torch.nn.Identity(), WeightsOrigin.FILE)
    for names, is_imagenet in ((synsets, True), (synsets[:20], False), (tuple(map(str, range(1000))), False)):
        root = tmp_path / f"{len(names)}{names[0]}"
        for name in names:
            (root / name).mkdir(parents=True)
            (root / name / "0.png").touch()
        args = Namespace(data=str(root), results=tmp_path, labels="name")
        assert _is_imagenet(_evaluation_images(args, network, 16), spec.classes) is is_imagenet


# Trainings that begin from weights


def test_a_training_keeps_its_classes_in_its_weights(tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", recipe_of(epochs=1))
    epochs_of(trained(job))
    names = read_weights(job.folder / "last.safetensors").classes
    assert names is not None and len(names) == 8 and "triangle" in names


@pytest.mark.parametrize(("turned", "words"), [(True, "put in the order"), (False, "a fresh classifier, for")])
def test_a_classifier_of_other_classes_is_not_taken_silently(tmp_path: Path, turned: bool, words: str) -> None:
    recipe = recipe_of()
    spec = full_spec(recipe)
    classes = tuple(read_names(tmp_path, recipe))
    names = tuple(reversed(classes)) if turned else tuple(f"other {i}" for i in range(8))
    before = build(spec, seed=5)
    save_weights(tmp_path / "x.safetensors", spec, before, "a test", classes=names)
    task = ClassificationTask(
        job_of(tmp_path / "job", recipe, weights=tmp_path / "x.safetensors"), ProcessGroup(torch.device("cpu"))
    )
    model, message = task.build()
    assert isinstance(message, Message) and words in message.text
    head, saved_head = model.state_dict()["head.weight"], before.state_dict()["head.weight"]
    expected = saved_head.flip(0) if turned else build(spec, seed=recipe.seed).state_dict()["head.weight"]
    assert torch.equal(head, expected)
    assert torch.equal(model.state_dict()["norm.weight"], before.state_dict()["norm.weight"])


def read_names(folder: Path, recipe: Any) -> list[str]:
    return list(ClassificationTask(job_of(folder / "names", recipe), ProcessGroup(torch.device("cpu"))).names)


def test_shape_bias_matches_synsets_by_name() -> None:
    from harness.measures.cue_conflict import _class_order

    synsets = imagenet_synsets()
    spec = tiny_spec(in_channels=3, classes=IMAGENET_CLASSES)
    network = LoadedNetwork("mine", spec, torch.nn.Identity(), WeightsOrigin.FILE)
    assert _class_order(network)[0] is None and _class_order(network)[1].startswith("by position")
    order, about = _class_order(replace(network, classes=tuple(reversed(synsets))))
    assert order == list(range(999, -1, -1)) and about.startswith("by name")
    with pytest.raises(UserError, match="must be the synsets of ImageNet-1K"):
        _class_order(replace(network, classes=tuple(f"class {i}" for i in range(IMAGENET_CLASSES))))


def test_a_segmentation_s_classes_are_compared_by_name() -> None:
    from harness.cli.full_scale_dense import _check_classes

    _check_classes(("a", "b"), ("a", "b"), "x")
    with pytest.raises(UserError, match="in the same order, but got '`b` for `a` as class 0'"):
        _check_classes(("b", "a"), ("a", "b"), "x")
    with pytest.raises(UserError, match="1 unknown"):
        _check_classes(("a", "c"), ("a", "b"), "x")
