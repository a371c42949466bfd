"""What an export leaves in its folder, what it leaves alone, and what it refuses."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from export_cases import SIDE, product_of, subject_of, tiny, written
from torch import nn

from harness.errors import ExportFailure, UserError
from harness.export.export import CARD, RECORD_FILE, export_network, write_formats
from harness.export.formats import FORMATS, chosen_formats
from harness.models.weights import read_weights

# The folder


def test_a_second_export_takes_the_place_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    written(product_of(tiny()), folder, "safetensors", "timm")
    (folder / "mine.txt").write_text("kept")
    exportable = product_of(tiny(classes=3))
    written(exportable, folder, "safetensors")
    assert {path.name for path in folder.iterdir()} == {"mine.txt", "model.safetensors", CARD, RECORD_FILE}
    assert read_weights(folder / "model.safetensors").spec.classes == 3
    record = json.loads((folder / RECORD_FILE).read_text())
    assert record["files"]["model.safetensors"]["bytes"] == (folder / "model.safetensors").stat().st_size
    assert record["verified"]["safetensors"]["relative"] <= record["tolerance"] and "torch" in record["versions"]


def test_a_failed_export_leaves_the_one_before_it_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    written(product_of(tiny()), folder, "safetensors")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    file_format = FORMATS["safetensors"]()._replace(load=lambda *_: lambda images: images.new_zeros(len(images), 7))
    (result,) = write_formats(product_of(tiny(K=5)), {"safetensors": file_format}, folder)
    assert result.error is not None
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_from_python_writes_what_the_command_does_or_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = subject_of(tiny())
    results = export_network(network, str(tmp_path / "out"), ["safetensors"], resolution=SIDE)
    assert [(result.format, list(result.sizes), result.error) for result in results] == [
        ("safetensors", ["model.safetensors"], None)
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors", CARD, RECORD_FILE}
    with pytest.raises(UserError, match=r"a format must be a known one, but got 'safetensor'.*`safetensors`"):
        export_network(network, tmp_path / "none", ["safetensor"], resolution=SIDE)
    wrong = FORMATS["safetensors"]()._replace(load=lambda *_: lambda images: images.new_zeros(len(images), 7))
    monkeypatch.setitem(FORMATS, "safetensors", lambda: wrong)
    with pytest.raises(ExportFailure, match="safetensors of tiny logits are off by"):
        export_network(network, tmp_path / "none", ["safetensors"], resolution=SIDE)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, words in (("full", "a new or an empty"), ("file", "a new or an empty"), ("file/below", "writable")):
        with pytest.raises(UserError, match=words):
            written(product_of(tiny()), tmp_path / name, "safetensors")
    written(product_of(tiny()), tmp_path / "empty", "safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


# What cannot be exported


def test_what_a_network_cannot_have_is_reported() -> None:
    mobile = product_of(tiny("mobilenet_v2"))
    with pytest.raises(UserError, match="timm has no mobilenet_v2"):
        chosen_formats(mobile, ["timm"])
    formats, notes = chosen_formats(mobile, None)
    assert list(formats) == ["safetensors", "onnx", "torch"] and "timm left out" in notes[0]
    for fields in ({"stem_stride": 2}, {"stem_stride": 4, "shortcut": False}, {"stem_stride": 4, "kernel": "bands"}):
        with pytest.raises(UserError, match="timm's ConvNeXt has"):
            chosen_formats(product_of(tiny("convnext", **fields)), ["timm"])


def test_missing_packages_are_reported_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UserError, match="pip install onnxscript"):
        chosen_formats(product_of(tiny()), None)
    assert list(chosen_formats(product_of(tiny()), ["torch"])[0]) == ["torch"]


def test_merged_weights_have_no_training_form() -> None:
    merged = subject_of(tiny(reparam=3), is_merged=True)
    assert product_of(tiny(reparam=3), subject=merged).weights.is_merged
    with pytest.raises(UserError, match="merged already"):
        product_of(tiny(reparam=3), subject=merged, is_merged=False)


def test_a_network_that_diverged_is_refused(tmp_path: Path) -> None:
    network = subject_of(tiny())
    with torch.no_grad():
        next(layer for layer in network.model.modules() if isinstance(layer, nn.Linear)).weight.fill_(torch.nan)
    with pytest.raises(UserError, match="finite logits"):
        written(product_of(tiny(), subject=network), tmp_path / "out", "safetensors")
    assert list(tmp_path.iterdir()) == []
