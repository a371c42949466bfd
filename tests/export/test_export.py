"""Exported networks: every format of every family, both forms, all kinds of kernels; and that faults are found."""

import contextlib
import functools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from export_cases import noise, product_of, subject_of, tiny, written

from harness.errors import ExportFailure
from harness.export import onnx as onnx_file
from harness.export import safetensors
from harness.export.comparison import TOLERANCE, ExampleInputs, FormatResult, compare
from harness.export.export import CARD, RECORD_FILE, write_formats
from harness.export.exportable import Exportable
from harness.export.formats import FORMATS, Format
from harness.models.build import build
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import KERNEL_KINDS
from harness.models.spec.presets import PRESETS
from harness.models.weights import read_weights, write_weights
from harness.storage.load_network import WeightsOrigin

CASES: dict[str, Exportable] = {
    "replknet": product_of(tiny(reparam=3)),
    "mobilenet_v2": product_of(tiny("mobilenet_v2", reparam=5)),
    "convnext": product_of(tiny("convnext", K=9, reparam=3), side=16, is_merged=False),
}
"""A network of every family; the last one in its training form, for images of one size."""
SIDES = ["batch", 1, "height", "width"]
"""Of the input of a graph."""
Exported = Callable[[str], tuple[Path, list[FormatResult]]]
"""The folder and the rows of a family's network, for its name."""
THEIRS = ("convnext_t", "convnext_s", "convnext_t_31")
"""Presets that are networks of timm's own, merged."""


def blocks_of(card: str) -> list[str]:
    """The code of a card: first the images, then a block for every file."""
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def fault_of(exportable: Exportable, folder: Path, file_format: Format) -> str:
    """The fault of the one format, which leaves nothing behind."""
    (result,) = write_formats(exportable, {"it": file_format}, folder)
    assert result.error is not None and list(folder.parent.iterdir()) == []
    return result.error


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The whole export of a family's network, made once."""

    @functools.cache
    def export_once(family: str) -> tuple[Path, list[FormatResult]]:
        folder = tmp_path_factory.mktemp(family) / "out"
        return folder, written(CASES[family], folder)

    return export_once


# What is written


@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=() if family == "replknet" else pytest.mark.long) for family in sorted(FAMILIES)],
)
def test_each_file_is_loaded_by_the_code_of_the_card(family: str, exported: Exported) -> None:
    exportable, (folder, results) = CASES[family], exported(family)
    names = {name for result in results for name in result.sizes}
    assert names == {FORMATS[name]().file for name in FORMATS} - {"config.json"} | ({"config.json"} & names)
    assert ("config.json" in names) is (family == "replknet")
    assert {path.name for path in folder.iterdir()} == names | {CARD, RECORD_FILE}
    assert all(
        result.comparison is not None and result.comparison.relative <= TOLERANCE and result.error is None
        for result in results
    )
    preamble, *blocks = blocks_of((folder / CARD).read_text())
    assert len(blocks) == len(results)
    scope: dict[str, Any] = {}
    exec(preamble, scope)
    assert scope["images"].shape == (2, 1, exportable.resolution, exportable.resolution)
    more = 0 if exportable.least_side is None else 3
    scope["images"] = images = noise(exportable.spec, 5, exportable.resolution + more)
    expected = exportable.network.model(images).detach().numpy()
    for code in blocks:
        with contextlib.chdir(folder), torch.no_grad():
            exec(code, scope)
        np.testing.assert_allclose(np.asarray(scope.pop("logits")), expected, atol=1e-4 * np.abs(expected).max())


def test_a_graph_is_open_and_contains_its_spec(exported: Exported) -> None:
    import onnx

    model = onnx.load(exported("replknet")[0] / "model.onnx")
    (graph_input,) = model.graph.input
    assert [side.dim_param or side.dim_value for side in graph_input.type.tensor_type.shape.dim] == SIDES
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["spec"])["classes"] == 7 and json.loads(metadata["mean"]) == [0.5]


def test_a_graph_for_images_that_end_as_one_pixel_takes_their_size_alone(tmp_path: Path) -> None:
    exportable = product_of(tiny(), side=16)
    (result,) = written(exportable, tmp_path / "out", "torch")
    assert exportable.least_side is None and result.error is None
    network = FORMATS["torch"]().load(exportable, tmp_path / "out")
    assert network(noise(exportable.spec, 4, 16)).shape == (4, 7)
    with pytest.raises(AssertionError, match="Guard failed"):
        network(noise(exportable.spec, 4, 32))
    assert "only of this size" in (tmp_path / "out" / CARD).read_text()


@pytest.mark.long
@pytest.mark.parametrize("is_merged", [True, False], ids=["merged", "training"])
@pytest.mark.parametrize("kind", KERNEL_KINDS)
def test_every_kind_of_kernel_is_loaded_in_both_forms(kind: str, is_merged: bool, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"reparam": 3} if KERNEL_KINDS[kind].has_small else {}
    dilation: dict[str, Any] = {"dilation": 2} if kind == "sequential" else {}
    exportable = product_of(tiny(kernel=kind, K=9, **fields, **dilation), is_merged=is_merged)
    results = written(exportable, tmp_path / "out", "timm", "safetensors")
    assert [result.error for result in results] == [None, None]
    weights = read_weights(tmp_path / "out" / "model.safetensors")
    assert weights.is_merged is is_merged and weights.spec.fingerprint() == exportable.spec.fingerprint()
    images = noise(exportable.spec, 2)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    torch.testing.assert_close(theirs(images), exportable.network.model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"kernel": "dilated_reparam", "K": 3},
        {"depthwise": False, "shortcut": False, "dw_ratio": 1.5, "ffn_ratio": 2.0},
        {"K": [31, 29, 27, 13], "reparam": [5, None, 5, 3], "in_channels": 3, "drop_path": 0.2},
    ],
    ids=["known by another name", "dense", "other kernels"],
)
def test_timm_makes_networks_that_are_no_preset(fields: dict[str, Any], tmp_path: Path) -> None:
    exportable = product_of(tiny(**fields))
    (result,) = written(exportable, tmp_path / "out", "timm")
    assert result.error is None and set(result.sizes) == {"config.json", "model.safetensors"}
    tuned = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=3).eval()
    assert tuned(noise(exportable.spec, 2)).shape == (2, 3)
    kept = exportable.trainable.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in tuned.state_dict().items() if "head" not in name)


def test_a_preset_keeps_its_name_and_a_convnext_is_timms_own(tmp_path: Path) -> None:
    written(product_of(PRESETS["replknet_nano"], side=64), tmp_path / "ours", "timm")
    ours = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (ours["architecture"], ours["model_args"]) == ("replknet_nano", {"merged": True})
    spec = tiny("convnext", stem_stride=4, K=[9, 7, 5, 3], reparam=3)
    (result,) = written(product_of(spec), tmp_path / "theirs", "timm")
    assert result.error is None
    assert type(timm.create_model(f"local-dir:{tmp_path / 'theirs'}")).__module__ == "timm.models.convnext"


@pytest.mark.long
def test_a_graph_of_another_form_is_distinguished_from_it(exported: Exported) -> None:
    unmerged = CASES["convnext"]
    kernel_sides = [convolution.sides for convolution in onnx_file._of_network(unmerged.deployable)]
    assert kernel_sides.count((9, 9)) == kernel_sides.count((3, 3)) == 4
    file = exported("convnext")[0] / onnx_file.FILE
    onnx_file.check_convolutions(unmerged, file)
    with pytest.raises(ExportFailure, match="and has"):
        onnx_file.check_convolutions(product_of(unmerged.spec, subject=unmerged.network), file)


@pytest.mark.long
def test_sides_that_are_not_proven_equal_stay_open() -> None:
    exportable = product_of(tiny("convnext", reparam=[3, None, None, None]), is_merged=False)
    assert len(exportable.program.range_constraints) == 3, "batch, height and width"
    assert any("_assert_scalar" in str(node.target) for node in exportable.program.graph.nodes), "left to each call"


def test_a_kernel_of_shared_weights_counts_with_its_full_side() -> None:
    network = build(tiny(kernel="peripheral", K=9))
    assert [convolution.sides for convolution in onnx_file._of_network(network)].count((9, 9)) == 4


def test_everybody_may_read_the_files(tmp_path: Path) -> None:
    written(product_of(tiny()), tmp_path / "out", "safetensors")
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1, "that which the shell gives new files"


# That a faulty file is found


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _with_a_changed_kernel(path: Path) -> None:
    """A tap of a large kernel off by a tenth: what a wrong merge would do."""
    weights = read_weights(path)
    name = next(name for name in weights.entries if "large_kernel" in name)
    weights.entries[name].view(-1)[3] += 0.1
    write_weights(path, weights)


def _garbled(path: Path) -> None:
    path.write_bytes(b"PK\3\4 and nothing else")


def _of_another_network(path: Path) -> None:
    write_weights(path, product_of(tiny(classes=3)).weights)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncated, "cannot be loaded back: WeightsError"),
        (_with_a_changed_kernel, "of what images change"),
        (_of_another_network, "returns (1, 3) for logits (1, 7)"),
    ],
)
def test_a_faulty_file_of_weights_is_found(damage: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    def write(exportable: Exportable, folder: Path) -> None:
        safetensors.write(exportable, folder)
        damage(folder / safetensors.FILE)

    file_format = FORMATS["safetensors"]()._replace(write=write)
    assert words in fault_of(product_of(tiny(reparam=3)), tmp_path / "out", file_format)


def test_a_faulty_configuration_for_timm_is_found(tmp_path: Path) -> None:
    def write(exportable: Exportable, folder: Path) -> None:
        FORMATS["timm"]().write(exportable, folder)
        config = json.loads((folder / "config.json").read_text())
        config["model_args"]["shortcut"] = False
        (folder / "config.json").write_text(json.dumps(config))

    file_format = FORMATS["timm"]()._replace(write=write)
    assert "of what images change" in fault_of(product_of(tiny()), tmp_path / "out", file_format)


def _off(file: Path) -> None:
    """A tap of a large kernel off by a tenth, in all channels."""
    import onnx

    model = onnx.load(file)
    weight = next(initializer for initializer in model.graph.initializer if list(initializer.dims)[1:] == [1, 7, 7])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[:, 0, 3, 3] += 0.1
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, file)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("onnx", _off, "of what images change"),
        ("onnx", _truncated, "cannot be loaded back"),
        ("onnx", _garbled, "cannot be loaded back"),
        ("torch", _truncated, "cannot be loaded back"),
        ("torch", _garbled, "cannot be loaded back"),
    ],
)
def test_a_faulty_graph_is_found(
    name: str,
    damage: Callable[[Path], None],
    words: str,
    exported: Exported,
    tmp_path: Path,
) -> None:
    def write(_: Exportable, folder: Path) -> None:
        file = FORMATS[name]().file
        shutil.copy(exported("replknet")[0] / file, folder)
        damage(folder / file)

    assert words in fault_of(CASES["replknet"], tmp_path / "out", FORMATS[name]()._replace(write=write))


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_the_graph_of_another_network_is_found(name: str, exported: Exported, tmp_path: Path) -> None:
    def write(_: Exportable, folder: Path) -> None:
        shutil.copy(exported("replknet")[0] / FORMATS[name]().file, folder)

    other = product_of(tiny(reparam=3, shortcut=False))
    assert "of what images change" in fault_of(other, tmp_path / "out", FORMATS[name]()._replace(write=write))


def test_what_is_not_a_number_is_a_fault() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    examples = ExampleInputs((torch.zeros(2, 1, 4, 4),), (logits,))
    assert compare(lambda _: logits, examples).is_close
    assert not compare(lambda _: logits * torch.nan, examples).is_close
    assert not compare(lambda _: logits + 0.001, examples).is_close
    with pytest.raises(ExportFailure, match="returns"):
        compare(lambda _: logits[:1], examples)


def test_the_scale_of_a_difference_is_what_images_change() -> None:
    constant = torch.full((4, 2), 100.0)
    assert ExampleInputs((), (constant,)).scale == pytest.approx(1.0), "rounding of a constant is no fault"
    assert ExampleInputs((), (constant + torch.tensor([[10.0], [-10.0], [0.0], [0.0]]),)).scale == pytest.approx(10.0)


# The tables


def test_every_format_has_a_file_of_its_own() -> None:
    files = [load_format().file for load_format in FORMATS.values()]
    assert len(set(files)) == len(files) == len(FORMATS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_an_architecture_or_a_reason(name: str) -> None:
    spec = PRESETS[name]
    with torch.device("meta"):
        network = replace(subject_of(tiny()), spec=spec, model=build(spec))
    exportable = product_of(spec, subject=network)
    assert (FORMATS["timm"]().unsupported_reason(exportable) is None) is (spec.family == "replknet" or name in THEIRS)


def test_an_export_of_random_weights_is_marked(tmp_path: Path) -> None:
    spec = tiny()
    network = replace(subject_of(spec), origin=WeightsOrigin.RANDOM)
    written(product_of(spec, subject=network), tmp_path / "out", "safetensors")
    assert "**random**" in (tmp_path / "out" / CARD).read_text()
