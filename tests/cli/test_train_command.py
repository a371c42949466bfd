"""`harness train` and `harness recipes`, from the command line to the files that they leave."""

import json
import os
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from filelock import FileLock
from full_scale_cases import RECIPE, folder_of, train, write, write_folder
from tiny_studies import Played, called

from harness.analysis.networks import NetworkQuery, resolve_network
from harness.cli.train import USE
from harness.config.network_file import load_network_spec
from harness.config.recipes.loading import load_classification_recipe
from harness.errors import Diverged, ExecutorError, HarnessError, SpecError, Stopped, UserError
from harness.executors.full_scale import raise_worker_error, write_worker_error
from harness.models.spec.presets import PRESETS
from harness.storage.workspace import Workspace


def test_trains_a_network_and_the_same_command_again_finds_it_done(tmp_path: Path) -> None:
    write(tmp_path)
    result = train(tmp_path)
    assert result.returncode == 0, result.stderr
    for words in (
        "estimated time:",
        "2 epochs of 2 steps of 16 images",
        "accumulated 2 times",
        "epoch 2/2",
        "EMA loss",
    ):
        assert words in result.stdout
    folder = folder_of(tmp_path / "results")
    assert folder.name.startswith("net-")
    assert {path.name for path in folder.iterdir()} >= {
        "best.safetensors",
        "last.safetensors",
        "last_ema.safetensors",
        "epochs.jsonl",
        "tensorboard",
        "network.yaml",
        "recipe.yaml",
        "classes.json",
    }
    assert load_network_spec(folder / "network.yaml").classes == 8
    assert (
        load_classification_recipe(str(folder / "recipe.yaml")).fingerprint()
        == load_classification_recipe(str(tmp_path / "recipe.yaml")).fingerprint()
    )
    again = train(tmp_path)
    assert (
        again.returncode == 0
        and "epoch 2/2" not in again.stdout
        and "trained to its last epoch already" in again.stdout
    )
    fresh = train(tmp_path, "--fresh")
    assert fresh.stdout.count("epoch 2/2") == 1
    assert len((folder / "epochs.jsonl").read_text().splitlines()) == 2


def test_a_dry_run_prints_cost_and_time_and_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    result = train(tmp_path, "--dry-run")
    assert result.returncode == 0 and "parameters" in result.stdout and "estimated time" in result.stdout
    assert not (tmp_path / "results").exists()


FOLDER_RECIPE = {
    **RECIPE,
    "data": {"dataset": "imagefolder", "classes": 1000},
    "batch_size": 16,
}


@pytest.mark.parametrize("options", [(), ("--data", "no/such/folder")])
def test_a_dry_run_needs_no_images(options: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, FOLDER_RECIPE)
    result = train(tmp_path, "--dry-run", *options)
    assert (result.returncode, result.stderr) == (0, "")
    for words in (
        "1,000 classes",
        "(1,281,167 in all, as ImageNet-1K has)",
        "not read",
        "folders train and val, each with one folder of images per class",
        "estimated time:",
        "noise in place of the images",
    ):
        assert words in result.stdout, words
    assert ("no/such/folder" if options else "no `--data`") in result.stdout
    assert not (tmp_path / "results").exists()
    assert train(tmp_path, *options).returncode == 2


def test_a_dry_run_without_images_of_unknown_number_promises_no_total(tmp_path: Path) -> None:
    write(tmp_path, FOLDER_RECIPE | {"data": {"dataset": "imagefolder"}})
    result = train(tmp_path, "--dry-run")
    assert result.returncode == 0 and "in all" not in result.stdout
    assert "their number depends on the images" in result.stdout and "for every 10,000 training images" in result.stdout


def test_a_dry_run_needs_neither_images_nor_weights(tmp_path: Path) -> None:
    write(tmp_path, FOLDER_RECIPE | {"needs_weights": True})
    for options in ((), ("--data", "FOLDER", "--weights", "FILE")):
        result = train(tmp_path, "--dry-run", *options)
        assert result.returncode == 0 and "weights: not checked" in result.stdout, result.stderr


def test_images_that_are_there_are_looked_at_in_a_dry_run(tmp_path: Path) -> None:
    write(tmp_path, FOLDER_RECIPE)
    write_folder(tmp_path / "images")
    result = train(tmp_path, "--dry-run", "--data", "images")
    assert result.returncode == 2 and "must be of 1,000 classes" in result.stderr


def test_options_change_the_recipe_and_open_another_folder(tmp_path: Path) -> None:
    write(tmp_path)
    result = train(tmp_path, "--epochs", "1", "--precision", "bfloat16", "--micro-batch", "4", "--seed", "5")
    assert result.returncode == 0 and "epoch 1/1" in result.stdout and "accumulated 4 times" in result.stdout
    kept = load_classification_recipe(str(folder_of(tmp_path / "results") / "recipe.yaml"))
    assert (kept.epochs, kept.precision, kept.micro_batch, kept.seed) == (1, "bfloat16", 4, 5)


def test_images_from_a_folder(tmp_path: Path) -> None:
    write(tmp_path, RECIPE | {"data": {"dataset": "imagefolder"}, "batch_size": 8, "epochs": 1})
    write_folder(tmp_path / "images")
    result = train(tmp_path, "--data", tmp_path / "images")
    assert result.returncode == 0 and "3 classes" in result.stdout, result.stderr
    line = json.loads((folder_of(tmp_path / "results") / "epochs.jsonl").read_text())
    assert line["unreadable"] == 0 and line["val"]["top5"] == 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("net.yaml",), "`--recipe` must name a recipe if no study does. Recipes: imagenet22k_pretrain"),
        (("net.yaml", "--recipe", "imagenet_30"), "Did you mean `imagenet_300`"),
        (("nets.yaml", "--recipe", "recipe.yaml"), "nets.yaml"),
        (("replknet_31", "--recipe", "shapes"), "Did you mean"),
        (("net.yaml", "net.yaml", "--recipe", "shapes"), "one network must be named"),
        (("best-of", "--recipe", "shapes"), "`best-of` must be followed by one study file"),
        (("net.yaml", "--trial", "1", "--recipe", "shapes"), "`--trial` must be used with `best-of STUDY.yaml`"),
        (("net.yaml", "--recipe", "imagenet_300"), "`--data` must name the folder of the images"),
        (("net.yaml", "--recipe", "imagenet_384_finetune"), "`--weights` must name a weights file"),
        (("net.yaml", "--recipe", "shapes", "--weights", "no.pth"), "`--weights` must be an existing file"),
        (("net.yaml", "--recipe", "recipe.yaml", "--workers", "3"), "`--workers` must divide `batch_size` (16)"),
        (("net.yaml", "--recipe", "recipe.yaml", "--micro-batch", "1"), "the options must leave a valid recipe"),
        (("net.yaml", "--recipe", "recipe.yaml", "--precision", "float16"), "float16` needs a GPU"),
        (("results/a/checkpoints/0123456789abcdef.pt", "--recipe", "shapes"), "must be known to a database"),
    ],
)
def test_mistakes_of_the_user_are_reported_in_one_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    write(tmp_path)
    result = called("train", *arguments, cwd=tmp_path)
    assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.glob("results/full_scale/*/checkpoints"))


def test_two_processes_cannot_train_the_same(tmp_path: Path) -> None:
    write(tmp_path)
    train(tmp_path)
    folder = folder_of(tmp_path / "results")
    with FileLock(f"{folder}.lock"):
        result = train(tmp_path)
    assert result.returncode == 2 and "another process is running this one" in result.stderr


def test_ctrl_c_stops_it_at_the_next_step_and_the_same_command_resumes(tmp_path: Path) -> None:
    write(tmp_path, RECIPE | {"epochs": 40})

    def interrupt() -> None:
        deadline = time.monotonic() + 100
        while not list(tmp_path.glob("results/full_scale/*/checkpoints/*.pt")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()
    result = train(tmp_path)
    other.join()
    assert result.returncode == 130 and "epoch 1/40" in result.stdout
    assert "nothing is lost. To resume:" in result.stderr
    again = train(tmp_path, "--dry-run")
    assert again.returncode == 0 and "estimated time" not in again.stdout  # it has begun


def test_a_training_that_diverges_ends_with_1(tmp_path: Path) -> None:
    write(
        tmp_path,
        RECIPE | {"optimizer": {"name": "sgd", "lr": 1e15, "weight_decay": 1e15}, "schedule": {"warmup_epochs": 0}},
    )
    result = train(tmp_path)
    assert result.returncode == 1 and "error: the training loss is" in result.stderr


def test_the_best_of_a_study_on_its_full_scale_base(tmp_path: Path) -> None:
    played = Played(tmp_path, full_scale={"base": "replknet_31b", "recipe": "imagenet_300"})
    played.answer()
    best = resolve_network(["best-of", str(played.path)], NetworkQuery(played.workspace), USE)
    assert (best.name, best.spec) == ("question", PRESETS["replknet_31b"])
    assert (best.recipe, best.study, best.path) == ("imagenet_300", "question", None)
    small = resolve_network(["best-of", str(played.path)], NetworkQuery(played.workspace, trial=0), USE)
    assert (small.name, small.spec) == ("question-0", PRESETS["replknet_3"])
    assert (small.recipe, small.study, small.trial) == ("imagenet_300", "question", 0)
    result = called("train", "best-of", played.path, "--results", played.workspace.results, cwd=tmp_path)
    assert result.returncode == 2 and "`--data` must name the folder" in result.stderr


def test_the_best_of_a_study_without_a_full_scale_base_is_trained_as_it_is(played: Played, tmp_path: Path) -> None:
    network_ref = resolve_network(["best-of", str(played.path)], NetworkQuery(played.workspace), USE)
    assert (
        network_ref.recipe is None
        and network_ref.spec.K == (31, 29, 27, 13)
        and network_ref.spec.C == PRESETS["replknet_nano"].C
    )
    configuration = played.answer().best
    assert configuration is not None
    run = played.workspace.results / "question" / "checkpoints" / f"{configuration.runs[0].row.id}.pt"
    run_ref = resolve_network([str(run)], NetworkQuery(Workspace(tmp_path)))
    assert run_ref.name == f"question-{run.stem[:8]}" and run_ref.spec == network_ref.spec.replace(
        in_channels=1, classes=8
    )
    assert (
        (run_ref.study, run_ref.trial)
        == ("question", configuration.trials[0])
        == (network_ref.study, network_ref.trial)
    )


def test_a_study_that_was_never_started_has_no_best(tmp_path: Path) -> None:
    played = Played(tmp_path)
    result = called("train", "best-of", played.path, "--recipe", "shapes", cwd=tmp_path)
    assert result.returncode == 2 and "a study must have been run here" in result.stderr


def test_recipes_are_listed_and_printed(tmp_path: Path) -> None:
    result = called("recipes", cwd=tmp_path)
    assert result.returncode == 0 and "imagenet_300" in result.stdout and "31B (table 6)" in result.stdout
    printed = called("recipes", "imagenet_300", cwd=tmp_path).stdout
    (tmp_path / "mine.yaml").write_text(printed)
    assert load_classification_recipe(str(tmp_path / "mine.yaml")) == load_classification_recipe("imagenet_300")
    assert called("recipes", "no", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Stopped("stopped in epoch 1"), Stopped),
        (Diverged("the training loss is nan"), Diverged),
        (SpecError("`K` must be odd", field="K", value=4, place="a.yaml:3"), UserError),
    ],
)
def test_the_error_of_a_worker_reaches_the_command_line(
    tmp_path: Path, error: HarnessError, kind: type[HarnessError]
) -> None:
    fitting: Future[None] = Future()
    fitting.set_exception(RuntimeError("as Ray says it"))
    with pytest.raises(ExecutorError, match="the workers must live to the end"):
        raise_worker_error(tmp_path, fitting)
    write_worker_error(tmp_path, error)
    with pytest.raises(kind) as caught:
        raise_worker_error(tmp_path, fitting)
    assert str(caught.value).rstrip(".") == str(error).rstrip(".")
