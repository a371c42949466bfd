"""Weights in files: the released checkpoints' layout is read and written bitwise, and each fault has a clear error."""

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_statistics import randomize
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_studies import called
from torch import Tensor

from harness import __version__
from harness.config.network_file import dump_network_spec
from harness.errors import WeightsError
from harness.models.build import build, merge
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.models.weights import export_weights, import_weights, load_weights, read_weights

NANO = PRESETS["replknet_nano"]
FORMS = pytest.mark.parametrize("merged", [False, True], ids=["training", "merged"])


def state_of(spec: NetworkSpec, *, merged: bool = False) -> dict[str, Tensor]:
    """What a trained network's checkpoint holds."""
    network = build(spec, seed=1)
    randomize(network, seed=2)
    return (merge(network) if merged else network).state_dict()


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def assert_equal(entries: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert list(entries) == list(state)
    for name, value in state.items():
        assert entries[name].dtype == value.dtype and torch.equal(entries[name], value), name


# In and out


@FORMS
@pytest.mark.parametrize("classes", [10, 7])
def test_there_and_back_is_bitwise_equal(tmp_path: Path, merged: bool, classes: int) -> None:
    state = state_of(NANO.replace(classes=classes), merged=merged)
    released = saved(tmp_path / "nano.pth", state)
    kept, back = tmp_path / "deep" / "nano.safetensors", tmp_path / "back.pth"
    weights = import_weights(released, kept, NANO)
    assert (weights.is_merged, weights.spec.classes) == (merged, classes)
    export_weights(kept, back)
    assert_equal(torch.load(back, weights_only=True), state)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["back.pth", "nano.pth", "nano.safetensors"]


def test_the_metadata_state_which_network_which_form_and_from_where(tmp_path: Path) -> None:
    released = saved(tmp_path / "nano.pth", state_of(NANO, merged=True))
    import_weights(released, tmp_path / "nano.safetensors", NANO)
    metadata = metadata_of(tmp_path / "nano.safetensors")
    assert NetworkSpec.from_mapping(json.loads(metadata["spec"])) == NANO
    assert (metadata["form"], metadata["source"], metadata["harness"]) == ("merged", "nano.pth", __version__)
    assert len(metadata["source_sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "merged", "entries"),
    [("replknet_31b", False, 1171), ("replknet_31b", True, 931), ("replknet_xl", False, 1027)],
)
def test_the_released_networks_entries_are_all_matched(tmp_path: Path, name: str, merged: bool, entries: int) -> None:
    """In the layout of the released checkpoint, at an eighth of its width or less."""
    spec = PRESETS[name].replace(C=(8, 16, 32, 64), classes=22)
    state = state_of(spec, merged=merged)
    weights = read_weights(saved(tmp_path / "x.pth", state), spec.replace(classes=1000))
    assert len(weights.entries) == entries
    assert (weights.is_merged, weights.spec) == (merged, spec)
    assert_equal(weights.entries, state)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": OrderedDict(state)},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model": {f"module._orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {name: torch.nn.Parameter(v) if v.is_floating_point() else v for name, v in state.items()},
        lambda state: dict(reversed(state.items())),
    ],
    ids=["model", "state_dict", "ddp", "compiled", "parameters", "reversed"],
)
def test_what_training_scripts_put_around_a_state_dict_is_taken_off(
    tmp_path: Path, wrapped: Callable[[dict[str, Tensor]], Any]
) -> None:
    state = state_of(NANO)
    assert_equal(read_weights(saved(tmp_path / "x.pth", wrapped(state)), NANO).entries, state)


def test_entries_that_share_or_skip_memory_are_kept(tmp_path: Path) -> None:
    state = state_of(NANO)
    state["head.bias"] = torch.arange(20.0)[::2]
    state["norm.bias"] = state["norm.weight"]
    import_weights(saved(tmp_path / "x.pth", state), tmp_path / "x.safetensors", NANO)
    assert_equal(read_weights(tmp_path / "x.safetensors").entries, state)


# Networks


@FORMS
def test_a_loaded_network_computes_what_was_saved(tmp_path: Path, merged: bool) -> None:
    network = build(NANO, seed=1).eval()
    randomize(network, seed=2)
    network = merge(network) if merged else network
    import_weights(saved(tmp_path / "x.pth", network.state_dict()), tmp_path / "x.safetensors", NANO)
    spec, loaded = load_weights(tmp_path / "x.safetensors")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))
    assert spec == NANO and not loaded.training
    assert len(merge(loaded).state_dict()) == len(state_of(NANO, merged=True))


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", state_of(NANO))
    state = torch.get_rng_state()
    load_weights(path, NANO)
    assert torch.equal(torch.get_rng_state(), state)


@FORMS
@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("nano")])
def test_every_family_goes_there_and_back(tmp_path: Path, name: str, merged: bool) -> None:
    state = state_of(PRESETS[name], merged=merged)
    import_weights(saved(tmp_path / "x.pth", state), tmp_path / "x.safetensors", PRESETS[name])
    export_weights(tmp_path / "x.safetensors", tmp_path / "y.pt")
    assert_equal(torch.load(tmp_path / "y.pt", weights_only=True), state)
    load_weights(tmp_path / "x.safetensors")


# Mistakes


def error_of(path: Path, spec: NetworkSpec | None = NANO) -> str:
    with pytest.raises(WeightsError) as caught:
        read_weights(path, spec)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_another_network_is_refused_with_its_name(tmp_path: Path) -> None:
    output = error_of(saved(tmp_path / "x.pth", state_of(PRESETS["replknet_tiny"])))
    assert "of another shape" in output and "stem.0.conv.weight is 32x3x3x3 for 16x3x3x3" in output and "..." in output
    assert "They are those of replknet_tiny: `--network replknet_tiny`." in output


def test_entries_that_are_missing_unexpected_or_of_another_shape_are_listed_and_counted(tmp_path: Path) -> None:
    state = state_of(NANO)
    gone = [name for name in state if name.startswith("stages.1.")]
    for name in gone:
        del state[name]
    state["stages.0.norm.weight"] = torch.ones(16)
    state["head.bias"] = torch.ones(3)
    output = error_of(saved(tmp_path / "x.pth", state))
    assert f"{len(gone)} missing ({', '.join(gone[:3])}, ...)" in output
    assert "1 unexpected (stages.0.norm.weight)" in output
    assert "1 of another shape (head.bias is 3 for 10)" in output
    assert "Name the network" in output


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("hello\n")


def _picture(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncated, "damaged: cut short"),
        (_flipped, "damaged: the checksum of"),
        (_emptied, "it is empty"),
        (_text, "a text that begins with 'hello'"),
        (_picture, "a picture (PNG)"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    path = saved(tmp_path / "x.pth", state_of(NANO))
    damage(path)
    assert words in error_of(path)


def test_an_old_style_checkpoint_is_read_and_refused_when_truncated(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(state_of(NANO), path, _use_new_zipfile_serialization=False)
    assert_equal(read_weights(path, NANO).entries, state_of(NANO))
    _truncated(path)
    assert "a pickle that is damaged: cut short, or changed" in error_of(path)


def test_truncated_safetensors_are_one_clear_error(tmp_path: Path) -> None:
    import_weights(saved(tmp_path / "x.pth", state_of(NANO)), tmp_path / "x.safetensors", NANO)
    _truncated(tmp_path / "x.safetensors")
    assert "whole safetensors" in error_of(tmp_path / "x.safetensors", None)


class Evil:
    """Code that a pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = error_of(saved(tmp_path / "x.pth", {"model": state_of(NANO), "x": Evil()}))
    assert "only tensors" in output and "mkdir" in output
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "note": "x"}, "`epoch` (int)"),
        ([torch.ones(2)], "a list"),
        (torch.ones(2), "a Tensor"),
        ({}, "nothing"),
        ({1: torch.ones(2)}, "`1` (Tensor)"),
        ({"x": torch.ones(2, device="meta")}, "`x` (Tensor)"),
    ],
    ids=["numbers", "list", "tensor", "empty", "keys", "no values"],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    output = error_of(saved(tmp_path / "x.pth", content))
    assert "state dict, plain tensors by name" in output and words in output


def test_files_that_do_not_name_their_network_need_it(tmp_path: Path) -> None:
    save_file(state_of(NANO), tmp_path / "foreign.safetensors")
    assert "--network" in error_of(tmp_path / "foreign.safetensors", None)
    assert read_weights(tmp_path / "foreign.safetensors", NANO).spec == NANO
    assert "--network" in error_of(saved(tmp_path / "x.pth", state_of(NANO)), None)


@pytest.mark.parametrize("spec", ["{", "[]", '{"B": 1, "C": 1, "K": 2}', '{"B": 1, "C": 1, "K": 3, "later": 1}'])
def test_a_network_of_another_version_is_refused(tmp_path: Path, spec: str) -> None:
    save_file(state_of(NANO), tmp_path / "x.safetensors", {"spec": spec, "harness": "9.0"})
    assert "made by harness 9.0" in error_of(tmp_path / "x.safetensors", None)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "must exist" in error_of(tmp_path / "nowhere.pth")
    assert "must exist" in error_of(tmp_path)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", state_of(NANO))
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="writable"):
        import_weights(path, tmp_path / "file" / "x.safetensors", NANO)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "x.pth"]


# The verb


def test_the_verb_goes_there_and_back(tmp_path: Path) -> None:
    state = state_of(NANO)
    saved(tmp_path / "x.pth", state)
    (tmp_path / "nano.yaml").write_text(dump_network_spec(NANO))
    for network in ("replknet_nano", "nano.yaml"):
        result = called("weights", "import", "x.pth", "--network", network, "--output", "x.safetensors", cwd=tmp_path)
        output = f"x.safetensors: {len(state)} entries, training form, 10 classes\n"
        assert (result.returncode, result.stdout, result.stderr) == (0, output, "")
    result = called("weights", "export", "x.safetensors", "--output", "y.pth", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert_equal(torch.load(tmp_path / "y.pth", weights_only=True), state)
    result = called("weights", "import", "x.safetensors", "--output", "z.safetensors", cwd=tmp_path)
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "x.pth", "--output", "y.safetensors"), "--network"),
        (("import", "x.pth", "--network", "replknet_nano", "--output", "y.pth"), ".safetensors"),
        (("import", "x.pth", "--network", "replknet_nanoo", "--output", "y.safetensors"), "Did you mean"),
        (("import", "x.pth", "--network", "study.yaml", "--output", "y.safetensors"), "this is a study file"),
        (("import", "x.pth", "--network", "replknet_tiny", "--output", "y.safetensors"), "--network replknet_nano"),
        (("export", "x.pth", "--output", "x.pth"), "a file of its own"),
        (("export", "x.pth", "--output", "y.pth"), "weights import"),
    ],
)
def test_what_the_verb_refuses(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    saved(tmp_path / "x.pth", state_of(NANO))
    (tmp_path / "study.yaml").write_text("study: x\nbase: replknet_nano\naxes: {K: [3]}\n")
    result = called("weights", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and words in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study.yaml", "x.pth"]
