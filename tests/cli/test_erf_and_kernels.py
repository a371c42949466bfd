"""The verbs `erf` and `kernels` on presets, checkpoints and weights; which network is meant; and mistakes."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import tiny_spec
from tiny_studies import INLINE, TINY, called, text_of, write_study
from torch import nn

from harness.analysis.networks import load_network
from harness.cli import main
from harness.config.network_file import dump_network_spec
from harness.data import load
from harness.errors import UserError
from harness.measures.base import TrainedRun
from harness.measures.erf_comparison import FieldResult, center_offset, compare_fields
from harness.measures.receptive_field import ERF_IMAGES, ReceptiveField, erf, receptive_fields
from harness.models.build import build, merge
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.models.spec.published import PUBLISHED_FIELDS
from harness.models.weights import import_weights
from harness.report.plots.style import file_names
from harness.report.receptive_field import fields_values, fields_view
from harness.storage.load_network import LoadedNetwork, WeightsOrigin
from harness.system.code_revision import operator_digest

SMALL = ("--images", "4", "--resolution", "32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of one run."""
    folder = tmp_path_factory.mktemp("trained")
    base = TINY["base"] | {"K": [5, 5, 3, 3], "reparam": [3, 3, None, None]}
    write_study(folder, TINY, base=base, axes={"shortcut": [True]}, search={"seeds": 1})
    result = called("run", "study.yaml", *INLINE, "--quiet", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def checkpoint(trained: Path) -> Path:
    (path,) = (trained / "results" / "tiny" / "checkpoints").glob("*.pt")
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that contains its network's spec, a merged one with three channels."""
    spec = tiny_spec(in_channels=3, K=5, reparam=3)
    torch.save(merge(build(spec, seed=0)).state_dict(), tmp_path / "released.pth")
    import_weights(tmp_path / "released.pth", tmp_path / "mine.safetensors", spec)
    return tmp_path / "mine.safetensors"


def photos(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3) -> Path:
    generator = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def opens(path: Path) -> bool:
    with Image.open(path) as image:
        colors = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
        return image.format == "PNG" and min(image.size) > 200 and len(colors) > 50


def subject(spec: NetworkSpec, origin: WeightsOrigin = WeightsOrigin.FILE) -> LoadedNetwork:
    return LoadedNetwork("it", spec, nn.Identity(), origin)


# Which network


def test_a_preset_and_a_spec_file_have_random_weights(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(dump_network_spec(PRESETS["convnext_nano"]))
    preset, mine = load_network("convnext_nano"), load_network(str(tmp_path / "mine.yaml"))
    assert (preset.name, mine.name) == ("convnext_nano", "mine") and preset.spec == mine.spec
    assert preset.origin == mine.origin == WeightsOrigin.RANDOM and preset.recipe is None
    assert not preset.model.training
    assert all(map(torch.equal, preset.model.state_dict().values(), mine.model.state_dict().values()))


def test_a_runs_checkpoint_brings_its_network_and_recipe(checkpoint: Path) -> None:
    network = load_network(str(checkpoint))
    assert network.spec.K == (5, 5, 3, 3) and network.spec.in_channels == 1 and network.spec.classes == 8
    assert network.recipe is not None and (network.recipe.resolution, network.epochs) == (16, 2)
    assert network.name == f"tiny/{checkpoint.stem[:8]}" and network.about == "a run's weights after 2 of 2 epochs"
    kept = torch.load(checkpoint, weights_only=True)["model"]
    assert all(torch.equal(value, kept[name]) for name, value in network.model.state_dict().items())


def test_a_database_elsewhere_is_given(checkpoint: Path, trained: Path, tmp_path: Path) -> None:
    moved = shutil.copy(checkpoint, tmp_path / checkpoint.name)
    with pytest.raises(UserError, match="must be known to a database"):
        load_network(str(moved))
    network = load_network(str(moved), f"sqlite:///{trained / 'results' / 'studies.db'}")
    assert network.spec.K == (5, 5, 3, 3)


# Fields


def test_erf_of_presets_warns_that_random_weights_mislead(tmp_path: Path) -> None:
    result = called("erf", "replknet_nano", "mobilenet_v2_nano", *SMALL, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("random weights mislead") == 2
    assert "by the paper's equations" in result.stdout and "by the paper's code" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    rows = [line for line in lines if line[:2] == ["replknet_nano", "31-29-27-13"]]
    assert len(rows) == 2 and all(len(row) == 10 for row in rows)
    assert all(0 < float(cell) <= 100 for row in rows for cell in row[2:])
    assert result.stderr == "" and "table 10" not in result.stdout


@pytest.mark.long
def test_erf_of_a_checkpoint_is_the_runs_measure(checkpoint: Path, trained: Path, tmp_path: Path) -> None:
    result = called("erf", checkpoint, "replknet_nano", "--json", "--output", tmp_path, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("written: ") == 3 and all(map(opens, tmp_path.glob("erf*.png")))
    assert {path.name for path in tmp_path.iterdir()} == {
        "erf.png",
        "erf_replknet_nano.png",
        f"erf_tiny_{checkpoint.stem[:8]}.png",
    }
    mine, preset = json.loads(result.stdout)
    assert (mine["resolution"], mine["fields"]["paper"]["images"]) == (64, ERF_IMAGES)
    assert mine["environment"]["operator"] == operator_digest() and mine["environment"]["threads"] is not None
    assert mine["notes"] == [] and "after 2 of 2 epochs" in mine["weights"]
    assert (preset["resolution"], preset["data"]) == (64, mine["data"]), "shown what the run is shown"
    network = load_network(str(checkpoint))
    assert network.recipe is not None and network.data_cache is not None
    dataset = load(network.recipe, network.data_cache, 0)
    metrics = dict(erf(TrainedRun(network.model, dataset, network.recipe, torch.device("cpu"))))
    for kind in ("raw", "log"):
        for t, share in mine["fields"]["paper"]["r"][kind].items():
            assert metrics[f"erf_{kind}_r{t}_pct"] == pytest.approx(100 * share)


def test_erf_at_a_side_of_ones_own(checkpoint: Path, trained: Path) -> None:
    result = called("erf", checkpoint, *SMALL, "--data", "shapes", "--json", cwd=trained)
    (values,) = json.loads(result.stdout)
    assert (values["resolution"], values["fields"]["paper"]["images"]) == (32, 4)
    assert "center of the last map" not in "".join(values["notes"])


@pytest.mark.parametrize("inner", ["", "val"])
def test_erf_on_a_folder_of_images(weights: Path, tmp_path: Path, inner: str) -> None:
    photos(tmp_path / "photos" / inner)
    (tmp_path / "photos" / inner / "cat" / "0.png").write_bytes(b"damaged")
    result = called("erf", weights, "--data", "photos", "--resolution", "16", "--json", cwd=tmp_path)
    (values,) = json.loads(result.stdout)
    assert values["fields"]["code"]["images"] == 5 and values["weights"] == "weights from a file"
    assert "1 images could not be read" in values["notes"][0]


def test_folders_without_classes_and_grey_images_will_do(weights: Path, tmp_path: Path) -> None:
    flat = photos(tmp_path / "flat", ("only",)) / "only"
    (first,) = compare_fields([load_network(str(weights))], images=2, resolution=16, data=str(flat))
    assert first.fields["paper"].images == 2
    (second,) = compare_fields([load_network(str(weights))], images=2, resolution=16)
    assert "shapes" in second.about and second.fields["paper"].images == 2


def seen(spec: NetworkSpec, raw: float, **counts: int) -> FieldResult:
    fields = {name: ReceptiveField(np.full((4, 4), raw), **counts) for name in ("paper", "code")}
    return FieldResult(subject(spec), 4, "images", fields, ())


def test_the_papers_rows_are_shown_with_its_networks() -> None:
    counts = {"images": 2, "skipped": 0, "dead": 0}
    text = text_of(fields_view([seen(PRESETS["replknet_13"], 1.0, **counts)]))
    lines = [line.split() for line in text.splitlines()]
    for row in PUBLISHED_FIELDS:
        assert lines.count([row.network, "(paper)", *"----", *(f"{r:.1f}" for r in row.r_pct)]) == 1
    assert "1024 px" in text and "ResNet" not in text_of(fields_view([seen(PRESETS["replknet_7"], 1.0, **counts)]))


def test_published_fields_are_in_the_papers_order() -> None:
    """ResNet-101 below ResNet-152 far below RepLKNet-13 below RepLKNet-31, at every t; all presets exist."""
    for before, after in pairwise(PUBLISHED_FIELDS):
        assert all(a < b for a, b in zip(before.r_pct, after.r_pct, strict=True))
    assert {row.preset for row in PUBLISHED_FIELDS} - {None} <= set(PRESETS)


def test_a_dead_network_is_reported_with_a_message(tmp_path: Path) -> None:
    spec = tiny_spec()
    model = build(spec, seed=0)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    torch.save(model.state_dict(), tmp_path / "dead.pth")
    import_weights(tmp_path / "dead.pth", tmp_path / "dead.safetensors", spec)
    result = called("erf", "dead.safetensors", *SMALL, "--output", "out", cwd=tmp_path)
    assert result.returncode == 0 and "no pixel of 4 images changes the center" in result.stdout
    row = next(line.split() for line in result.stdout.splitlines() if line.startswith("dead "))
    assert row == ["dead", "3", *"--------"] and (tmp_path / "out" / "erf_dead.png").is_file()
    (values,) = json.loads(called("erf", "dead.safetensors", *SMALL, "--json", cwd=tmp_path).stdout)
    assert set(values["fields"]["paper"]["r"]["raw"].values()) == {None}


@pytest.mark.parametrize(
    ("name", "side", "off"),
    [
        ("replknet_31b", 1024, 0),
        ("replknet_31b", 224, -16),
        ("mobilenet_v2", 224, -16),
        ("convnext_t", 224, -0.5),
        ("convnext_t", 1024, 15.5),
        ("replknet_nano", 64, 0),
    ],
)
def test_where_the_centre_looks(name: str, side: int, off: float) -> None:
    assert center_offset(subject(PRESETS[name]), side) == off


@pytest.mark.parametrize(("name", "side"), [("replknet_nano", 48), ("convnext_nano", 64), ("mobilenet_v2_nano", 80)])
def test_where_the_centre_looks_is_where_gradients_are(name: str, side: int) -> None:
    """With kernels of 1 and weights without a sign, a field is symmetrical about the place where the centre looks."""
    spec = PRESETS[name].replace(K=1, reparam=None)
    model = build(spec, seed=0).double()
    for parameter in model.parameters():
        parameter.data.abs_()
    faint = torch.full((1, 3, side, side), 1e-60, dtype=torch.float64)  # far below what ReLU6 cuts off
    map = receptive_fields(model, faint)["paper"].raw
    middle = (map.sum(0) * np.arange(side)).sum() / map.sum()
    assert middle == pytest.approx(side // 2 + center_offset(subject(spec), side), abs=1.5)


def test_tables_and_values_have_every_network() -> None:
    counts = {"images": 2, "skipped": 1, "dead": 0}
    results = [seen(PRESETS["replknet_nano"], 1.0, **counts), seen(PRESETS["replknet_tiny"], 0.0, **counts)]
    values = fields_values(results)
    assert [entry["fields"]["paper"]["skipped"] for entry in values] == [1, 1]
    assert "…" not in text_of(fields_view(results), width=80)


# Kernels


def test_kernels_of_a_checkpoint(checkpoint: Path, trained: Path, tmp_path: Path) -> None:
    result = called("kernels", checkpoint, "--output", tmp_path, cwd=trained)
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    rows = {line[0]: line for line in lines if len(line) == 7 and line[0].isdigit()}
    assert [row[2] for row in rows.values()] == ["5+3", "5+3", "3", "3"]
    assert "-" not in rows["1"] and rows["3"][3:] == ["-", "100.0", "-", "-"]
    assert ["paper", "13+3", "8.3", "22.7", "0.268", "3.7x"] in lines and "Random" not in result.stdout
    assert "Stage 4 was trained on maps of 1 x 1" in result.stdout and "Stage 3" not in result.stdout
    assert opens(next(tmp_path.glob("kernels_tiny_*.png")))


@pytest.mark.long
def test_kernels_of_a_preset_in_json(tmp_path: Path) -> None:
    result = called("kernels", "mobilenet_v2_nano", "--json", "--output", ".", cwd=tmp_path)
    values = json.loads(result.stdout)
    assert len(values["layers"]) == 9 and "Random weights" in values["notes"][0]
    assert all(np.max(layer["maps"]["after"]) == 1 and layer["maps"]["before"] is None for layer in values["layers"])
    assert opens(tmp_path / "kernels_mobilenet_v2_nano.png")


def test_merged_kernels_are_marked(weights: Path, tmp_path: Path) -> None:
    result = called("kernels", weights, cwd=tmp_path)
    assert result.returncode == 0 and "merged form" in result.stdout and "paper" not in result.stdout


def test_files_have_names_of_their_own() -> None:
    assert file_names("erf", ["a", "b/c", "a", "a_2"]) == ["erf_a.png", "erf_b_c.png", "erf_a_2.png", "erf_a_2_2.png"]


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("erf", "replknet_nanno"), ("must be a preset", "Did you mean `replknet_nano`")),
        (("erf", "nowhere.yaml"), ("must exist", "nowhere.yaml")),
        (("erf", "results/x/checkpoints/0123456789abcdef.pt"), ("known to a database", "0123456789abcdef")),
        (("erf", "0123456789abcdef.pt"), ("known to a database", "0123456789abcdef.pt", "--storage")),
        (("erf", "text.safetensors"), ("whole checkpoint", "text.safetensors")),
        (("erf", "study.yaml"), ("this is a study file",)),
        (("erf", "replknet_nano", "--images", "0"), ("must be at least 1",)),
        (("erf", "replknet_nano", "--resolution", "7"), ("from 8 to 4096", "but got 7")),
        (("erf", "replknet_nano", "--resolution", "5000"), ("from 8 to 4096", "but got 5000")),
        (("erf", "convnext_nano", "--resolution", "8"), ("16 pixels", "8")),
        (("erf", "replknet_nano", "--data", "nowhere"), ("existing folder", "nowhere")),
        (("erf", "replknet_nano", "--data", "empty"), ("must hold images", "empty")),
        (("erf", "grey.yaml", "--data", "photos", *SMALL), ("1 channel of the network", "3 channels")),
        (("erf", "replknet_nano", *SMALL, "--output", "text.safetensors"), ("must be writable", "text.safetensors")),
        (("erf",), ("NETWORK",)),
        (("kernels", "replknet_nanno"), ("Did you mean `replknet_nano`",)),
        (("kernels", "replknet_nano", "--output", "text.safetensors"), ("must be writable",)),
    ],
)
def test_mistakes_are_one_message(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "0123456789abcdef.pt").write_text("no run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "grey.yaml").write_text(dump_network_spec(tiny_spec()))
    photos(tmp_path / "photos", ("only",), 1)
    write_study(tmp_path, TINY)
    result = called(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr and all(word in result.stderr for word in words), result.stderr


def test_a_damaged_checkpoint_is_one_message(trained: Path, checkpoint: Path) -> None:
    broken = checkpoint.with_name(f"{'0' * 16}.pt")
    broken.write_bytes(b"damaged")
    try:
        result = called("erf", broken, cwd=trained)
        assert result.returncode == 2 and "known to a database" in result.stderr
    finally:
        broken.unlink()


def test_help_names_both_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    output = capsys.readouterr().out
    assert "erf" in output and "kernels" in output
