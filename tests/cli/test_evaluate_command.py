"""`harness evaluate` reports what a direct computation yields, in both forms, and what the training reported."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cifar_folders import write_cifar10, write_cifar100
from full_scale_cases import RECIPE, epochs_of, full_spec, job_of, recipe_of, trained, write_folder
from PIL import Image
from random_statistics import randomize
from timm.data import create_transform
from tiny_runs import tiny_spec
from tiny_studies import BRIEF, INLINE, TINY, CommandResult, called, text_of, write_study
from torch import nn
from torch.nn import functional as F

from harness.config.network_file import dump_network_spec
from harness.config.recipes.full_scale import ClassificationRecipe
from harness.config.yaml_file import write_yaml
from harness.data.preprocessing import Preprocessing
from harness.models.build import build, merge
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.models.spec.published import accuracies
from harness.models.weights import save_weights
from harness.report.evaluation import AccuracyReport, evaluation_view, progress_line
from harness.storage import Store
from harness.storage.load_network import LoadedNetwork, WeightsOrigin
from harness.system.code_revision import operator_digest
from harness.training.accuracy_results import AccuracyProgress, AccuracyResult, FormAccuracy
from harness.training.full_scale.messages import FullScaleEpoch, Scores
from harness.training.run import Started

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = tiny_spec(in_channels=3, classes=3, K=5, reparam=3)


def network(folder: Path, spec: NetworkSpec = SPEC) -> Path:
    """A file of weights whose answers are all but random."""
    model = build(spec, seed=1)
    randomize(model, seed=0)
    save_weights(folder / "net.safetensors", spec, model, "a test")
    return folder / "net.safetensors"


def values(*arguments: str | Path, cwd: Path) -> dict[str, Any]:
    result = called("evaluate", *arguments, "--json", cwd=cwd)
    assert result.returncode == 0, result.stderr
    evaluation: dict[str, Any] = json.loads(result.stdout)
    computed_by = evaluation["environment"]
    assert (
        computed_by["operator"] == operator_digest() and computed_by["precision"] == evaluation["viewing"]["precision"]
    )
    return evaluation


def straight(path: Path, root: Path, **options: Any) -> tuple[float, float]:
    """Top-1 and loss over the folders of `root`, image by image, by timm's own transform."""
    from harness.models.weights import load_weights

    _, model = load_weights(path)
    transform = create_transform(**{"mean": MEAN, "std": STD, "interpolation": "bicubic", **options})
    right, losses = [], []
    for label, folder in enumerate(sorted(path for path in root.iterdir() if path.is_dir())):
        for file in sorted(folder.iterdir()):
            with Image.open(file) as image, torch.no_grad():
                logits = model(transform(image.convert("RGB"))[None])
            right.append(int(logits.argmax()) == label)
            losses.append(F.cross_entropy(logits, torch.tensor([label])).item())
    return 100 * sum(right) / len(right), sum(losses) / len(losses)


# Images in folders


@pytest.mark.parametrize(
    ("options", "timm"),
    [
        ((), {"input_size": 224, "crop_pct": 0.875}),
        (("--resolution", "384"), {"input_size": 384, "crop_pct": 1.0, "crop_mode": "squash"}),
        (("--resolution", "18", "--crop", "0.6"), {"input_size": 18, "crop_pct": 0.6}),
        (
            ("--resolution", "20", "--crop-mode", "border", "--interpolation", "bilinear", "--batch", "5"),
            {"input_size": 20, "crop_pct": 0.875, "crop_mode": "border", "interpolation": "bilinear"},
        ),
        (
            ("--resolution", "16", "--mean", "0.5", "0.4", "0.3", "--std", "0.5", "0.5", "0.6", "--loaders", "2"),
            {"input_size": 16, "crop_pct": 0.875, "mean": (0.5, 0.4, 0.3), "std": (0.5, 0.5, 0.6)},
        ),
    ],
)
def test_accuracy_is_that_of_a_straight_computation(
    options: tuple[str, ...], timm: dict[str, Any], tmp_path: Path
) -> None:
    spec = SPEC.replace(stem_stride=4)
    root, path = write_folder(tmp_path / "imagenet", train=0, val=6), network(tmp_path, spec)
    evaluation = values(path, "--data", root / "val", *options, cwd=tmp_path)
    top1, loss = straight(path, root / "val", **timm)
    form = evaluation["forms"]["training"]
    assert (evaluation["images"], evaluation["unreadable"], form["top5"]) == (18, 0, 100)
    assert form["top1"] == pytest.approx(top1) and form["loss"] == pytest.approx(loss, rel=1e-4)
    assert evaluation["device"].startswith("cpu (") or evaluation["device"].startswith("cuda (")
    assert "torch" in evaluation["versions"] and form["images_per_s"] > 0


def test_a_folder_with_train_and_val_is_numbered_by_train(tmp_path: Path) -> None:
    root, path = write_folder(tmp_path / "imagenet", train=1, val=2), network(tmp_path)
    both = values(path, "--data", root, "--resolution", "16", cwd=tmp_path)
    alone = values(path, "--data", root / "val", "--resolution", "16", cwd=tmp_path)
    assert both["forms"]["training"]["loss"] == alone["forms"]["training"]["loss"] and both["images"] == 6


def test_unreadable_images_are_counted_and_left_out(tmp_path: Path) -> None:
    root, path = write_folder(tmp_path / "imagenet", train=0, val=4) / "val", network(tmp_path)
    for n, cut in ((0, 100), (1, 0)):
        file = root / "n00000001" / f"n00000001_{n}.JPEG"
        file.write_bytes(file.read_bytes()[:cut])
    Image.new("L", (1, 1), 128).save(root / "n00000000" / "dot.png")
    Image.new("CMYK", (9, 30)).save(root / "n00000002" / "cmyk.jpg")
    evaluation = values(path, "--data", root, "--resolution", "16", "--batch", "3", cwd=tmp_path)
    assert (evaluation["images"], evaluation["unreadable"]) == (12, 2)
    for file in root.glob("*/*"):
        file.write_bytes(b"")
    result = called("evaluate", path, "--data", root, "--resolution", "16", cwd=tmp_path)
    assert result.returncode == 2 and "one must be readable" in result.stderr


def test_both_forms_agree_within_rounding(tmp_path: Path) -> None:
    root, path = write_folder(tmp_path / "imagenet", train=0, val=6) / "val", network(tmp_path)
    both = values(path, "--data", root, "--resolution", "16", "--both", cwd=tmp_path)
    training, merged = (both["forms"][form] for form in ("training", "merged"))
    assert training["loss"] == pytest.approx(merged["loss"], rel=1e-4)
    assert both["difference"]["predictions"] == both["difference"]["top1"] == 0
    assert 0 < both["difference"]["logits_max_abs"] < 1e-3
    alone = values(path, "--data", root, "--resolution", "16", "--merged", cwd=tmp_path)
    assert list(alone["forms"]) == ["merged"] and alone["difference"] is None
    result = called("evaluate", path, "--data", root, "--resolution", "16", "--both", cwd=tmp_path)
    assert "0 of 18 predictions differ" in result.stdout and "merged  " in result.stdout


def test_merged_weights_are_evaluated_as_they_are(tmp_path: Path) -> None:
    path, root = network(tmp_path), write_folder(tmp_path / "imagenet", train=0) / "val"
    model = build(SPEC, seed=1)
    randomize(model, seed=0)
    torch.save(merge(model.eval()).state_dict(), tmp_path / "merged.pth")
    (tmp_path / "net.yaml").write_text(dump_network_spec(SPEC))
    result = called(
        *("weights", "import", "merged.pth", "--network", "net.yaml", "--output", "merged.safetensors"), cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    options = ("--data", root, "--resolution", "16")
    evaluation = values("merged.safetensors", *options, cwd=tmp_path)
    assert list(evaluation["forms"]) == ["merged"]
    before = values(path, *options, cwd=tmp_path)
    assert evaluation["forms"]["merged"]["loss"] == pytest.approx(before["forms"]["training"]["loss"], rel=1e-4)
    both = called("evaluate", "merged.safetensors", *options, "--both", cwd=tmp_path)
    assert both.returncode == 2 and "`--both` needs weights in training form" in both.stderr


# What trainings have reported


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FullScaleEpoch]]:
    """The folder of a training on `shapes`, as `harness train` leaves it, and its epochs."""
    folder = tmp_path_factory.mktemp("training") / "net-01234567"
    recipe = recipe_of(precision="bfloat16", evaluation={"crop": 0.9, "mode": "squash", "batch_size": 7})
    epochs = epochs_of(trained(job_of(folder, recipe, spec=full_spec(recipe, K=5, reparam=3))))
    spec = json.loads(json.dumps({"B": 1, "C": [4, 4, 8, 8], "K": 5, "reparam": 3, "stem_stride": 2, "classes": 8}))
    (folder / "network.yaml").write_text(write_yaml(spec, "A test."))
    (folder / "recipe.yaml").write_text(write_yaml(recipe.model_dump(mode="json"), "A test."))
    return folder, epochs


def test_a_training_s_folder_is_evaluated_as_it_was_validated(
    training: tuple[Path, list[FullScaleEpoch]], tmp_path: Path
) -> None:
    folder, epochs = training
    best = next(epoch for epoch in reversed(epochs) if epoch.is_best)
    evaluation = values(folder, cwd=tmp_path)
    assert evaluation["network"] == "net-01234567/best" and evaluation["images"] == RECIPE["data"]["val_size"]
    assert evaluation["forms"]["training"]["top1"] == best.value
    assert (evaluation["viewing"]["crop"], evaluation["viewing"]["mode"]) == (0.9, "squash")
    assert (
        evaluation["viewing"]["precision"] == "bfloat16" and "trained at full scale (a test)" in evaluation["weights"]
    )
    assert values(folder / "best.safetensors", "--data", "shapes", cwd=tmp_path)["forms"].keys() == {"training"}
    for which, scores in (("last", epochs[-1].val), ("last-ema", epochs[-1].ema)):
        form = values(folder, "--which", which, cwd=tmp_path)["forms"]["training"]
        assert scores is not None and form["top1"] == scores["top1"]
        assert form["loss"] == pytest.approx(scores["loss"], rel=1e-5)


def test_options_take_precedence_over_what_a_training_used(
    training: tuple[Path, list[FullScaleEpoch]], tmp_path: Path
) -> None:
    options = ("--resolution", "24", "--crop", "1", "--crop-mode", "center", "--precision", "float32")
    viewing = values(training[0], *options, cwd=tmp_path)["viewing"]
    assert (viewing["resolution"], viewing["crop"], viewing["mode"]) == (24, 1.0, "center")
    assert (viewing["precision"], viewing["batch_size"]) == ("float32", 7)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a study that was trained in this process."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, TINY, search={"seeds": 1}, proxy=BRIEF)
    result = called("run", "study.yaml", "--quiet", *INLINE, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "results"


@pytest.mark.long
def test_a_run_of_a_study_is_evaluated_as_it_was_validated(results: Path, tmp_path: Path) -> None:
    with Store.open(results / "studies.db", read_only=True) as store:
        ids = [path.stem for path in (results / "tiny" / "checkpoints").glob("*.pt")]
        recorded = {run_id: curve[-1].top1 for run_id, curve in store.epochs_of_runs(ids).items()}
    assert len(recorded) == 2
    for run_id, top1 in recorded.items():
        path = results / "tiny" / "checkpoints" / f"{run_id}.pt"
        evaluation = values(path, cwd=tmp_path)
        assert evaluation["forms"]["training"]["top1"] == pytest.approx(top1) and evaluation["images"] == 64
    larger = values(path, "--resolution", "24", cwd=tmp_path)
    assert larger["viewing"]["resolution"] == 24 and len(larger["viewing"]["mean"]) == 1


def test_a_grey_network_sees_a_folder_in_grey(results: Path, tmp_path: Path) -> None:
    (path, *_) = (results / "tiny" / "checkpoints").glob("*.pt")
    root = write_folder(tmp_path / "images", train=0, val=2, classes=8)
    evaluation = values(path, "--data", root, "--labels", "position", cwd=tmp_path)
    assert evaluation["labels"].startswith("by position")
    assert evaluation["images"] == 16 and evaluation["viewing"]["crop"] == 1.0


def test_cifar_is_known_by_its_files(tmp_path: Path) -> None:
    for write, classes, count in ((write_cifar10, 10, 30), (write_cifar100, 100, 100)):
        folder = tmp_path / str(classes)
        folder.mkdir()
        path = network(folder, SPEC.replace(classes=classes))
        evaluation = values(path, "--data", write(folder), "--resolution", "16", cwd=tmp_path)
        assert evaluation["images"] == count and evaluation["data"] == f"test images of cifar{classes}"


# Published figures


def test_published_accuracies_are_looked_up_by_resolution() -> None:
    published = {name: [row.top1 for row in accuracies(PRESETS[name], side)] for name, side in SIDES.items()}
    assert published == {"replknet_31b": [83.48, 85.20], "replknet_31l": [86.63], "replknet_xl": [87.57]}
    assert [row.top1 for row in accuracies(PRESETS["replknet_31b"], 384)] == [84.84, 85.99]
    assert accuracies(PRESETS["replknet_31b"], 256) == () == accuracies(PRESETS["replknet_31b"].replace(K=5), 224)
    assert [(row.top1, row.top5) for row in accuracies(PRESETS["convnext_t"], 224)] == [(82.1, None)]


SIDES = {"replknet_31b": 224, "replknet_31l": 384, "replknet_xl": 320}


@pytest.mark.parametrize(
    ("name", "resolution", "expected"),
    [
        ("replknet_31b", 224, (0.875, "center", MEAN)),
        ("replknet_31b", 384, (1.0, "squash", MEAN)),
        ("replknet_31l", 224, (0.875, "center", MEAN)),
        ("replknet_xl", 320, (0.875, "center", (0.5, 0.5, 0.5))),
        ("replknet_nano", 64, (1.0, "center", MEAN)),
        ("convnext_t", 224, (0.875, "center", MEAN)),
    ],
)
def test_presets_are_shown_images_as_published(name: str, resolution: int, expected: tuple[Any, ...]) -> None:
    preprocessing = Preprocessing.published(PRESETS[name], resolution)
    assert (
        preprocessing.crop,
        preprocessing.mode,
        preprocessing.mean,
    ) == expected and preprocessing.interpolation == "bicubic"


def test_the_published_accuracy_is_shown_with_ours() -> None:
    spec = PRESETS["replknet_31b"]
    form = FormAccuracy(Scores({"loss": 0.7, "top1": 83.40, "top5": 96.50}), 100.0)
    result = AccuracyReport(
        network=LoadedNetwork("official", spec, nn.Identity(), WeightsOrigin.FILE),
        data="images of val",
        preprocessing=Preprocessing(224),
        result=AccuracyResult({"training": form}, None, 50_000, 1, 500.0, 0.02),
        published=accuracies(spec, 224),
        started=Started("host", 1, "cuda (a GPU)", 1, {"torch": "2.15.0"}, epochs=0),
        loaders=8,
        labels="by name",
        normalized="0.5",
    )
    text = text_of(evaluation_view(result), width=200)
    assert "83.48, top-5 96.57 (ImageNet-1K; the released weights" in text and "here -0.08 points" in text
    assert "50,000" in text and "2.0 % of it waiting" in text and "here -1.80 points" in text
    assert progress_line(AccuracyProgress(640, 50_000, 83.5, 320.0, 154.0)).startswith(
        "640 of 50,000 images  top-1 83.50 so far"
    )


# Mistakes


def mistaken(result: CommandResult, *words: str) -> None:
    assert (result.returncode, result.stdout) == (2, "") and "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("`--data` must name the images", "val/n01440764")),
        (("--data", "shapes"), ("the 3 classes that the network tells apart", "but got 8")),
        (("--data", "nowhere"), ("`--data` must be an existing folder", "nowhere")),
        (("--data", "empty"), ("must be a folder with one folder of images per class",)),
        (("--data", "images", "--resolution", "4"), ("`--resolution` must be from 8 to 4096",)),
        (("--data", "images", "--crop", "1.5"), ("`--crop` must be above 0",)),
        (("--data", "images", "--mean", "0.5"), ("`--mean`", "channels (3)")),
        (("--data", "images", "--std", "1", "1", "0"), ("`--std` must be above 0",)),
        (("--data", "images", "--merged", "--both"), ("not allowed with",)),
        (("--data", "images", "--batch", "0"), ("must be at least 1",)),
    ],
)
def test_mistakes_are_one_message(options: tuple[str, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    write_folder(tmp_path / "images", train=0, val=1)
    (tmp_path / "empty").mkdir()
    network(tmp_path)
    mistaken(called("evaluate", "net.safetensors", *options, cwd=tmp_path), *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_what_only_a_gpu_can_do(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", train=0, val=1)
    network(tmp_path)
    command = ("evaluate", "net.safetensors", "--data", "images")
    mistaken(called(*command, "--device", "cuda", cwd=tmp_path), "one that PyTorch can use")
    mistaken(called(*command, "--precision", "float16", cwd=tmp_path), "`--precision float16` needs a GPU")


def test_folders_that_are_no_trainings_or_have_no_such_weights(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    mistaken(called("evaluate", "images", cwd=tmp_path), "must be that of a training at full scale")
    (tmp_path / "images" / "network.yaml").write_text("{}")
    (tmp_path / "images" / "recipe.yaml").write_text("{}")
    mistaken(called("evaluate", "images", cwd=tmp_path), "the training has not completed an epoch")
    network(tmp_path).rename(tmp_path / "images" / "best.safetensors")
    mistaken(called("evaluate", "images", "--which", "last", cwd=tmp_path), "written after the last epoch", "best")
    mistaken(called("evaluate", "images", cwd=tmp_path), "recipe.yaml")


def test_a_fresh_preset_is_evaluated_by_chance(tmp_path: Path) -> None:
    recipe = ClassificationRecipe(about="a test", epochs=11, batch_size=2)
    assert Preprocessing.of(recipe) == Preprocessing(224, batch_size=64)
    (tmp_path / "net.yaml").write_text(dump_network_spec(tiny_spec(in_channels=3)))
    result = called("evaluate", "net.yaml", "--data", "shapes", "--resolution", "16", cwd=tmp_path)
    assert result.returncode == 0 and "random weights" in result.stdout and "1,000" in result.stdout, result.stderr


def test_other_verbs_take_a_training_s_folder_too(training: tuple[Path, list[FullScaleEpoch]], tmp_path: Path) -> None:
    from harness.analysis.networks import load_network

    network = load_network(str(training[0]), which="last")
    assert isinstance(network, LoadedNetwork) and network.name == "net-01234567/last"
    result = called("kernels", training[0], "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
