"""`harness downstream segment` trains, resumes as if undisturbed, merges last, and can be evaluated from its files."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from full_scale_cases import CPU, epochs_of, job_of, outcome, recipe_of, trained
from full_scale_states import after, equal, last_state
from random_statistics import randomize
from safetensors import safe_open
from segmentation_cases import (
    SEGMENTATION,
    segmentation_job,
    segmentation_recipe,
    segmentation_spec,
    write_ade20k,
    write_cityscapes,
)
from tiny_studies import CommandResult, called
from torch.nn.parallel import DistributedDataParallel

from harness.data.batching import BatchPlan
from harness.errors import Stopped, UserError
from harness.models.build import build, merge
from harness.models.weights import read_weights, save_weights
from harness.training.full_scale.messages import Message
from harness.training.tasks.dense import evaluate_merged
from harness.training.tasks.segmentation import SegmentationTask
from harness.training.tasks.weights_file import read_dense

SPEC = {"B": 1, "C": [4, 4, 8, 8], "K": 5, "reparam": 3, "stem_stride": 2}


# The loop


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """An undisturbed training: its folder, and its rounds."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, epochs_of(trained(segmentation_job(folder)))


def test_rounds_end_with_the_figures_of_network_and_average(whole: tuple[Path, list[Any]]) -> None:
    folder, epochs = whole
    assert [(epoch.epoch, epoch.epochs, epoch.steps) for epoch in epochs] == [(1, 2, 3), (2, 2, 6)]
    for epoch in epochs:
        assert set(epoch.val.metrics) == {"loss", "miou", "pixel_accuracy", "mean_accuracy"}
        assert epoch.val.main == "miou" and epoch.value == max(epoch.val["miou"], epoch.ema["miou"])
    lines = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert lines[1]["val"]["miou"] == epochs[1].val["miou"] and lines[1]["val"]["main"] == "miou"
    (events,) = (folder / "tensorboard").glob("events.out.tfevents.*")
    assert b"epoch/val_miou" in events.read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("step", [2, 3, 5])
def test_resumes_bitwise_from_any_step(whole: tuple[Path, list[Any]], tmp_path: Path, step: int) -> None:
    folder, undisturbed = whole
    job = segmentation_job(tmp_path / "parts")
    with pytest.raises(Stopped):
        trained(job, after(step))
    rest = trained(job)
    assert any(isinstance(record, Message) and record.text.startswith("resuming in") for record in rest)
    assert outcome(epochs_of(rest))[-1] == outcome(undisturbed)[-1]
    assert equal(last_state(job.folder), last_state(folder))


@pytest.mark.long
def test_learns_to_find_easy_shapes(tmp_path: Path) -> None:
    recipe = segmentation_recipe(
        data={"dataset": "shapes", "side": 32, "difficulty": 0.0, "train_size": 64, "val_size": 16},
        iterations=48,
        validate_every=24,
        batch_size=16,
        micro_batch=16,
        optimizer={"lr": 0.01},
        views={"short": 32, "longest": 32, "scales": [1.0, 1.0], "crop": [32, 32], "distort": False},
        evaluation={"batch_size": 16},
        segmenter={"head": "deeplabv3plus", "channels": 16, "auxiliary": 0.0},
        drop_path=None,
        ema=None,
    )
    first, last = epochs_of(trained(segmentation_job(tmp_path / "run", recipe)))
    assert last.val is not None and last.train_loss < first.train_loss
    assert last.val["loss"] < 0.8 * 2.2  # of chance, the logarithm of 9
    assert last.val["pixel_accuracy"] > 70 and last.val["miou"] > 9


def test_a_network_s_weights_are_the_start_and_merged_ones_are_refused(tmp_path: Path) -> None:
    recipe = segmentation_recipe()
    spec = segmentation_spec(recipe, classes=5)
    network = build(spec, seed=9)
    save_weights(tmp_path / "net.safetensors", spec, network, "a test")
    job = segmentation_job(tmp_path / "run", recipe, spec=spec, weights=tmp_path / "net.safetensors")
    model, _ = SegmentationTask(job, CPU).build()
    assert torch.equal(
        model.get_parameter("encoder.network.stem.0.conv.weight"), network.get_parameter("stem.0.conv.weight")
    )
    torch.save(merge(network.eval()).state_dict(), tmp_path / "merged.pth")
    with pytest.raises(UserError, match="training form"):
        SegmentationTask(segmentation_job(tmp_path, recipe, spec=spec, weights=tmp_path / "merged.pth"), CPU).build()


def test_merging_comes_last_and_changes_nothing_but_the_form(tmp_path: Path) -> None:
    task = SegmentationTask(segmentation_job(tmp_path / "run"), CPU)
    model, _ = task.build()
    randomize(model, seed=0)
    task.save(tmp_path / "a.safetensors", model, "a test")
    merged, evaluation = evaluate_merged(task.load(read_dense(tmp_path / "a.safetensors")), task)
    task.save(tmp_path / "b.safetensors", merged, "a test", is_merged=True)
    assert evaluation.feature_difference < 1e-4 and all(
        abs(points) < 0.5 for points in evaluation.metric_differences.values()
    )
    again = task.load(read_dense(tmp_path / "b.safetensors"))
    assert not any("lkb_origin" in name for name in again.state_dict())
    x = torch.randn(2, 3, 24, 32)
    with torch.no_grad():
        assert torch.equal(again(x), merged(x))
        assert torch.allclose(again(x), model.eval()(x), atol=1e-3)


# The command


def write(folder: Path, **changes: Any) -> None:
    (folder / "net.yaml").write_text(yaml.safe_dump(SPEC))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(SEGMENTATION | changes))


def segment(folder: Path, *options: str | Path, network: str | Path = "net.yaml") -> CommandResult:
    return called("downstream", "segment", network, *options, cwd=folder)


def folder_of(results: Path) -> Path:
    (path,) = (path for path in (results / "downstream").iterdir() if path.is_dir())
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CommandResult]:
    """A network that was trained by `harness train`, then on segmentation: its folder, and the command's result."""
    root = tmp_path_factory.mktemp("finished")
    write(root)
    first = job_of(root / "full_scale" / "net", recipe_of(epochs=1, schedule={"warmup_epochs": 0}))
    trained(first)
    for name, text in (("network.yaml", yaml.safe_dump(SPEC)), ("recipe.yaml", "about: a")):
        (first.folder / name).write_text(text)
    return root, segment(root, "--recipe", "recipe.yaml", network=first.folder)


@pytest.mark.long
def test_from_a_full_scale_training_to_figures_by_class(finished: tuple[Path, CommandResult]) -> None:
    root, result = finished
    assert result.returncode == 0, result.stderr
    for words in (
        "trained un-merged and merged last",
        "estimated time:",
        "best.safetensors",
        "in merged form",
        "mIoU",
        "ground",
    ):
        assert words in result.stdout
    folder = folder_of(root / "results")
    assert folder.name.startswith("net-segment-")
    values = json.loads((folder / "evaluation.json").read_text())
    assert values["figures"]["miou"] >= 0 and values["maps_apart"] < 1e-4
    assert values["trained_by"] == [{"epoch": 1, "environment": values["environment"]}]
    assert values["environment"]["operator"] and values["environment"]["device"] == "cpu"
    assert {path.name for path in folder.iterdir()} >= {"merged.safetensors", "best.safetensors", "last.safetensors"}
    with safe_open(folder / "merged.safetensors", framework="pt") as file:
        assert file.metadata()["form"] == "merged" and "ground" in file.metadata()["classes"]


@pytest.mark.long
def test_the_same_command_again_judges_without_training(finished: tuple[Path, CommandResult]) -> None:
    root, result = finished
    again = segment(root, "--recipe", "recipe.yaml", network=root / "full_scale" / "net")
    assert again.returncode == 0 and "trained to its last epoch already" in again.stdout
    assert "epoch 2/2" not in again.stdout and _means(again.stdout) == _means(result.stdout)


def _means(text: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith("mIoU "))
    return line


def test_weights_are_judged_again_in_either_form_and_in_other_ways(finished: tuple[Path, CommandResult]) -> None:
    root, result = finished
    folder = folder_of(root / "results")
    for name in ("best", "merged"):
        again = segment(root, "--evaluate-only", network=folder / f"{name}.safetensors")
        assert again.returncode == 0 and _means(again.stdout) == _means(result.stdout), again.stderr
    whole, many = (
        segment(root, "--evaluate-only", "--json", *options, network=folder)
        for options in (["--whole"], ["--slide", "16", "8", "--scales", "0.5", "1", "--flip"])
    )
    losses = [json.loads(evaluation.stdout)["figures"]["loss"] for evaluation in (whole, many)]
    assert losses[0] != losses[1]


def test_a_network_without_weights_is_warned_of(tmp_path: Path) -> None:
    write(tmp_path)
    result = segment(tmp_path, "--recipe", "recipe.yaml", "--dry-run")
    assert result.returncode == 0 and "random weights (warning" in result.stdout and "2 parts, each" in result.stdout
    assert not (tmp_path / "results" / "downstream").exists()


@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k"])
def test_folders_as_they_are_distributed(tmp_path: Path, dataset: str) -> None:
    changes: dict[str, Any] = {"iterations": 2, "validate_every": 2, "schedule": {"warmup_steps": 0}, "ema": None}
    write(tmp_path, data={"dataset": dataset}, batch_size=4, micro_batch=4, **changes)
    root = (write_cityscapes if dataset == "cityscapes" else write_ade20k)(tmp_path / "images")
    result = segment(tmp_path, "--recipe", "recipe.yaml", "--data", root)
    assert result.returncode == 0, result.stderr
    assert ("sidewalk" if dataset == "cityscapes" else "class 150") in result.stdout
    figures = json.loads((folder_of(tmp_path / "results") / "evaluation.json").read_text())["figures"]
    names = {name for name in figures if name.startswith("accuracy_")}
    expected = {"accuracy_sky", "accuracy_road", "accuracy_car"}
    assert names == (expected if dataset == "cityscapes" else {"accuracy_class 1", "accuracy_class 150"})
    assert "occur neither in the masks" in result.stdout


@pytest.mark.parametrize(("dataset", "layout"), [("ade20k", "annotations/"), ("cityscapes", "gtFine/")])
def test_a_dry_run_needs_no_images(dataset: str, layout: str, tmp_path: Path) -> None:
    write(tmp_path, data={"dataset": dataset})
    result = segment(tmp_path, "--recipe", "recipe.yaml", "--dry-run")
    assert (result.returncode, result.stderr) == (0, "")
    assert "not read (no `--data`)" in result.stdout and layout in result.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        ("net.yaml", (), "`--recipe` must name a recipe. Recipes for segmentation: ade20k_upernet_512"),
        ("net.yaml", ("--recipe", "imagenet_300"), "the recipe must be for segmentation"),
        ("net.yaml", ("--recipe", "ade20k_upernet_512"), "`--data` must name the folder of the images"),
        ("net.yaml", ("--recipe", "recipe.yaml", "--iterations", "5"), "the options must leave a valid recipe"),
        ("net.yaml", ("--recipe", "recipe.yaml", "--epochs", "5"), "either `epochs` or `iterations`"),
        ("net.yaml", ("--recipe", "recipe.yaml", "--workers", "3"), "`--workers` must divide `batch_size` (8)"),
        ("replknet_31", ("--recipe", "recipe.yaml"), "Did you mean"),
        ("merged.safetensors", ("--recipe", "recipe.yaml"), "must be in training form"),
        (
            "merged.safetensors",
            ("--evaluate-only",),
            "this is a weights file (merged.safetensors). Without `--evaluate-only`",
        ),
        (
            "headed.safetensors",
            ("--recipe", "recipe.yaml"),
            "this is a network with a head, written by `harness downstream` (headed.safetensors). Evaluate it with",
        ),
        ("no.safetensors", ("--evaluate-only",), "must be a preset, a network file"),
    ],
)
def test_mistakes_of_the_user_are_reported_in_one_line(
    finished: tuple[Path, CommandResult], tmp_path: Path, network: str, options: tuple[str, ...], words: str
) -> None:
    write(tmp_path)
    spec = segmentation_spec(segmentation_recipe())
    if network == "merged.safetensors":
        save_weights(tmp_path / "net.safetensors", spec, build(spec, seed=0), "a test")
        from harness.models.weights import Weights, write_weights

        entries = {name: value.contiguous() for name, value in merge(build(spec, seed=0).eval()).state_dict().items()}
        write_weights(tmp_path / network, Weights(spec, True, entries))
        assert read_weights(tmp_path / network).is_merged
    if network == "headed.safetensors":
        shutil.copy(folder_of(finished[0] / "results") / "best.safetensors", tmp_path / network)
    result = segment(tmp_path, *options, network=network)
    assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert not list(tmp_path.glob("results/downstream/*/checkpoints"))


def test_recipes_of_all_tasks_are_listed(tmp_path: Path) -> None:
    result = called("recipes", cwd=tmp_path)
    assert "cityscapes_upernet_769" in result.stdout and "imagenet_300" in result.stdout
    assert "iterations: 20000" in called("recipes", "cityscapes_upernet_769", cwd=tmp_path).stdout


def test_a_job_travels_to_workers_with_its_task(tmp_path: Path) -> None:
    job = segmentation_job(tmp_path / "run")
    assert pickle.loads(pickle.dumps(job)) == job


@pytest.mark.filterwarnings("ignore:Grad strides do not match")
def test_many_workers_can_share_its_steps(tmp_path: Path) -> None:
    """Each part is one call of the wrapped model, in which every parameter takes part."""
    dist.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    try:
        task = SegmentationTask(segmentation_job(tmp_path / "run"), CPU)
        model, _ = task.build()
        network = DistributedDataParallel(model.train())
        batches = task.batches(BatchPlan.of(task.recipe, task.images, 1), epoch=1, rank=0, first_step=0)
        for part in range(2):
            task.loss(network, next(batches), (1, 0, part)).backward()  # type: ignore[no-untyped-call]
        assert all(parameter.grad is not None for parameter in model.parameters())
    finally:
        dist.destroy_process_group()
