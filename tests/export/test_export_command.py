"""`harness export`, from the command line to the files: presets, runs, trainings, files of weights; and mistakes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from export_cases import noise, subject_of, tiny
from full_scale_cases import job_of, trained
from tiny_studies import INLINE, TINY, CommandResult, called, write_study

from harness.analysis.networks import load_network
from harness.export.exportable import preprocessing_of
from harness.export.formats import FORMATS
from harness.models.weights import export_weights, import_weights, load_weights, save_weights
from harness.storage.load_network import class_names
from harness.training.full_scale.folder import CLASSES
from harness.training.full_scale.records import write_description


def exported(network: str | Path, *options: str, cwd: Path) -> CommandResult:
    return called("export", network, "--format", "safetensors,timm", "--to", "out", *options, cwd=cwd)


def card(folder: Path) -> str:
    return (folder / "out" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a study's one run."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, TINY, base=TINY["base"] | {"reparam": 3}, axes={"shortcut": [True]}, search={"seeds": 1})
    result = called("run", "study.yaml", *INLINE, "--quiet", cwd=folder)
    assert result.returncode == 0, result.stderr
    (checkpoint,) = (folder / "results" / "tiny" / "checkpoints").glob("*.pt")
    return checkpoint


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training at full scale."""
    job = job_of(tmp_path_factory.mktemp("full") / "net-0123")
    write_description(job)
    trained(job)
    return job.folder


def test_a_preset_is_written_to_the_folder_of_its_name(tmp_path: Path) -> None:
    result = called("export", "replknet_nano", "--format", "safetensors", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "the weights are random" in result.stderr and "model.safetensors" in result.stdout
    assert result.stdout.endswith("written: exports/replknet_nano\n")
    assert load_weights(tmp_path / "exports" / "replknet_nano" / "model.safetensors")[0].K == (31, 29, 27, 13)


@pytest.mark.long
def test_a_run_brings_its_figures_its_images_and_its_classes(run: Path, tmp_path: Path) -> None:
    result = exported(run, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    text = card(tmp_path)
    network = load_network(str(run))
    mean = preprocessing_of(network, 16).mean
    for words in (
        f"run: `{run.stem}` of the study `tiny`, complete",
        "epochs: 2 of 2",
        "| top-1 % |",
        "n = 256 validation images of shapes, 16 px, one seed",
        "| latency_ms_p50 |",
        f"mean: {mean[0]:.6g}",
        "color: gray",
        "train_size: 256",
    ):
        assert words in text, words
    names = class_names(network)
    assert names is not None and all(f'"{name}"' in text for name in names)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["label_names"] == list(names) and config["pretrained_cfg"]["input_size"] == [1, 16, 16]
    spec, model = load_weights(tmp_path / "out" / "model.safetensors")
    images = noise(spec, 3, 16)
    torch.testing.assert_close(model(images), network.model(images), rtol=1e-4, atol=1e-4)


def test_a_run_whose_images_are_gone_is_exported_all_the_same(run: Path) -> None:
    network = load_network(str(run))
    assert network.recipe is not None
    object.__setattr__(network, "recipe", network.recipe.model_copy(update={"dataset": "cifar10", "root": "nowhere"}))
    assert class_names(network) is None
    assert preprocessing_of(network, 16).known_from.startswith("an assumption")


@pytest.mark.parametrize(
    ("weights", "words"), [("best", "after epoch"), ("last", "network"), ("last-ema", "moving average")]
)
def test_a_training_brings_its_recipe_and_the_figures_of_the_weights(
    training: Path, weights: str, words: str, tmp_path: Path
) -> None:
    result = exported(training, "--which", weights, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    text = card(tmp_path)
    for phrase in (words, "recipe: a test", "epochs: 2 of 2", "n = 24 validation images of shapes", "| top-5 % |"):
        assert phrase in text, phrase
    operator = json.loads((training / "environments.json").read_text())[0]["environment"]["operator"]
    assert f"computed by: operator revision {operator}" in text and f"compared by: operator revision {operator}" in text
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["environment"]["operator"] == operator and record["environment"]["device"] == "cpu"
    last = json.loads((training / "epochs.jsonl").read_text().splitlines()[-1])
    if weights != "best":
        metrics = last["val" if weights == "last" else "ema"]
        assert f"| top-1 % | {metrics['top1']:.4g} |" in text and f"| loss | {metrics['loss']:.4g} |" in text
    kept = load_network(str(training), which=weights)
    spec, model = load_weights(tmp_path / "out" / "model.safetensors")
    torch.testing.assert_close(model(noise(spec, 2)), kept.model(noise(spec, 2)), rtol=1e-4, atol=1e-4)


def test_a_training_without_a_log_is_exported_without_figures(training: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(training, tmp_path / "net")
    assert exported(folder, cwd=tmp_path).returncode == 0
    assert '"triangle"' in card(tmp_path)
    (folder / "epochs.jsonl").unlink()
    (folder / CLASSES).write_text("{")
    assert exported(folder, cwd=tmp_path).returncode == 0
    assert "None is recorded" in card(tmp_path) and '"triangle"' in card(tmp_path)


def test_names_of_classes_that_are_not_those_of_the_weights_are_refused(training: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(training, tmp_path / "net")
    (folder / CLASSES).write_text(json.dumps([f"class {i}" for i in range(8)]))
    result = exported(folder, cwd=tmp_path)
    assert (
        result.returncode == 2 and "8 unknown (`class 0`, " in result.stderr and "Remove classes.json" in result.stderr
    )


def test_imported_weights_keep_their_origin_and_its_licence(tmp_path: Path) -> None:
    network = subject_of(tiny(reparam=3))
    save_weights(tmp_path / "own.safetensors", network.spec, network.model, "a test")
    export_weights(tmp_path / "own.safetensors", tmp_path / "official.pth")
    import_weights(tmp_path / "official.pth", tmp_path / "net.safetensors", network.spec)
    result = exported("net.safetensors", "--unmerged", "--resolution", "24", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    text = card(tmp_path)
    assert "imported from `official.pth`" in text and "SHA-256 of that file" in text
    assert "The license under which" in text and "made for images of 24 px" in text and "training form" in text
    state_dict = load_weights(tmp_path / "out" / "model.safetensors")[1].state_dict()
    assert all(torch.equal(value, state_dict[name]) for name, value in network.model.state_dict().items())


def test_a_file_over_the_tolerance_ends_with_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = FORMATS["timm"]()._replace(load=lambda *_: lambda images: images.new_ones(len(images), 10))
    monkeypatch.setitem(FORMATS, "timm", lambda: off)
    result = exported("replknet_nano", cwd=tmp_path)
    assert result.returncode == 1
    assert "error: timm of replknet_nano" in result.stderr and "Nothing was written." in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("replknet_nan",), "Did you mean `replknet_nano`?"),
        (("replknet_nano", "--format", "onyx"), "must be of safetensors, onnx, torch, timm"),
        (("replknet_nano", "--format", ","), "must be of safetensors, onnx, torch, timm"),
        (("mobilenet_v2_nano", "--format", "timm"), "timm has no mobilenet_v2"),
        (("convnext_nano", "--resolution", "15"), "needs images of 16 pixels"),
        (("replknet_nano", "--resolution", "0"), "`--resolution` must be from 1"),
        (("replknet_nano", "--which", "last"), "with the folder of a training at full scale"),
        (("replknet_nano", "--to", "file"), "a new or an empty folder"),
        ((".",), "must be that of a training"),
    ],
)
def test_mistakes_are_one_clear_message(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "file").write_text("")
    result = called("export", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr and "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
