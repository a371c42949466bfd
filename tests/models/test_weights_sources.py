"""Weights as training scripts keep them: under keys, after prefixes, in shards, with values that are not finite."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_studies import called
from weights_files import SPEC, A, B, State, assert_equal, error_of, read, renamed, saved, state_of, without_head

from harness.errors import WeightsError
from harness.models.build import build
from harness.models.spec.presets import PRESETS
from harness.models.weights import import_weights, read_weights, save_weights, sha256

NANO = PRESETS["replknet_nano"]


# Several networks in a file


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        ({"model": A, "model_ema": B, "epoch": 299}, "model_ema"),
        ({"state_dict": A, "state_dict_ema": B, "arch": "x"}, "state_dict_ema"),
        ({"state_dict": renamed(A, "module."), "state_dict_ema": renamed(B, "module.")}, "state_dict_ema.module"),
        ({"params": A, "params_ema": B}, "params_ema"),
        ({"state_dict": renamed(A, "model.") | renamed(B, "ema_model.module.")}, "state_dict.ema_model.module"),
        ({"model": A, "ema": {"module": B, "decay": 0.9}}, "ema.module"),
    ],
)
def test_the_moving_average_is_taken_as_timm_does_and_the_choice_is_stated(
    tmp_path: Path, content: Any, taken: str
) -> None:
    weights = read(tmp_path, content)
    assert_equal(weights.entries, B)
    assert weights.notes[0] == f"taken: `{taken}`, the moving average, which timm takes, too"
    assert "not taken: " in weights.notes[1] and "--entry" in weights.notes[1]
    assert weights.about["source_entry"] == taken


def test_timm_s_own_reader_takes_the_same(tmp_path: Path) -> None:
    from timm.models import load_state_dict

    path = saved(tmp_path, {"state_dict": A, "state_dict_ema": B})
    assert_equal(load_state_dict(str(path)), read_weights(path, SPEC).entries)


@pytest.mark.parametrize("entry", ["model", "model_ema"])
def test_an_entry_can_be_named(tmp_path: Path, entry: str) -> None:
    content = {"model": A, "model_ema": B}
    weights = read(tmp_path, content, entry)
    assert_equal(weights.entries, content[entry])
    assert weights.notes[0] == f"taken: `{entry}`, selected by `--entry`"


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": renamed(A, "student.") | renamed(B, "teacher.")},
        {"student": A, "teacher": B},
        renamed(A, "encoder_q.") | renamed(B, "encoder_k."),
        {"generator": A, "discriminator": B},
        {"model": A, "ema": B, "swa": state_of(3)},
        {"state_dict": A, "ema_state_dict": B},
    ],
)
def test_of_two_equal_candidates_the_user_has_to_choose(tmp_path: Path, content: Any) -> None:
    output = error_of(saved(tmp_path, content))
    assert "networks, and one must be selected" in output and "--entry" in output


def test_a_part_of_the_label_names_an_entry(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": renamed(A, "student.backbone.") | renamed(B, "teacher.backbone.")})
    assert_equal(read_weights(path, SPEC, entry="teacher").entries, B)
    assert "`state_dict.student.backbone`" in error_of(path, "tutor")
    assert "OpenMMLab" in error_of(saved(tmp_path, {"state_dict": A, "ema_state_dict": B}))


def test_the_same_weights_twice_are_no_choice(tmp_path: Path) -> None:
    assert_equal(read(tmp_path, {"model": A, "student": dict(A)}).entries, A)


def test_an_incomplete_average_is_not_taken_and_is_named(tmp_path: Path) -> None:
    shadow = {name: value for name, value in B.items() if "running" not in name and "tracked" not in name}
    weights = read(tmp_path, {"model": A, "model_ema": shadow})
    assert_equal(weights.entries, A)
    assert weights.notes == ("taken: `model`", "not taken: `model_ema` (`--entry` chooses)")


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "averaged_model", "network", "anything"])
def test_a_single_candidate_is_taken(tmp_path: Path, key: str) -> None:
    assert_equal(read(tmp_path, {"epoch": 3, key: renamed(B, "module.")}).entries, B)


# Names


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "backbone.", "module.model.", "_orig_mod.module.", "model.backbone.", "net.0.", "a.b.c."],
)
def test_prefixes_are_removed_and_named(tmp_path: Path, prefix: str) -> None:
    weights = read(tmp_path, {"state_dict": renamed(A, prefix)})
    assert_equal(weights.entries, A)
    assert f"`{prefix}` was taken off every name" in weights.notes


def test_a_swa_model_and_openmmlab_s_classifier(tmp_path: Path) -> None:
    weights = read(tmp_path, {"n_averaged": torch.tensor(5), **renamed(A, "module.")})
    assert_equal(weights.entries, A)
    assert "left out, as not the network's: 1 entry (n_averaged)" in weights.notes
    head = {"head.fc.weight": A["head.weight"], "head.fc.bias": A["head.bias"]}
    weights = read(tmp_path, {"state_dict": renamed(without_head(A), "backbone.") | head})
    assert_equal(weights.entries, A)
    assert "`head.fc.` was read as `head.`" in weights.notes


def test_a_backbone_of_a_segmentation_is_refused_as_what_it_is(tmp_path: Path) -> None:
    decoder = {"decode_head.conv_seg.weight": torch.zeros(19, 8, 1, 1)}
    output = error_of(saved(tmp_path, {"state_dict": renamed(without_head(A), "backbone.") | decoder}))
    assert "2 missing (head.weight, head.bias)" in output and "decode_head.conv_seg.weight" in output
    assert "a backbone without its classifier" in output


def test_sides_of_1_and_missing_counters_of_batches_change_nothing(tmp_path: Path) -> None:
    state = {name: value for name, value in A.items() if not name.endswith("num_batches_tracked")}
    state = {n: v.reshape(1, -1, 1, 1) if v.ndim == 1 and "head" not in n else v for n, v in state.items()}
    weights = read(tmp_path, {name: value.numpy() for name, value in state.items()})
    assert all(torch.equal(weights.entries[name], value) for name, value in A.items())
    assert any("reshaped" in note for note in weights.notes) and any("counters" in note for note in weights.notes)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    output = error_of(saved(tmp_path, A | {"head.weight": A["head.weight"].to(torch.int8)}))
    assert "1 no real numbers (head.weight is int8)" in output


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_stated(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in A.items()}
    (note,) = read(tmp_path, state).notes
    assert note == f"entries are {str(dtype).removeprefix('torch.')}, and the network computes in float32"


def test_another_number_of_classes_is_stated(tmp_path: Path) -> None:
    weights = read_weights(saved(tmp_path, A), SPEC.replace(classes=1000))
    assert weights.spec.classes == SPEC.classes and "and the network as named for 1,000" in weights.notes[0]


# Shards


def shards(folder: Path, state: State = A) -> Path:
    names, index = list(state), dict[str, str]()
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{i:05d}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return path


def test_an_index_is_read_with_all_its_files(tmp_path: Path) -> None:
    index = shards(tmp_path)
    assert_equal(read_weights(index, SPEC).entries, A)
    halves = [dict(list(A.items())[::2]), dict(list(A.items())[1::2])]
    weight_map: dict[str, str] = {}
    for i, part in enumerate(halves):
        torch.save(part, tmp_path / f"pytorch_model-{i}.bin")
        weight_map |= dict.fromkeys(part, f"pytorch_model-{i}.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_equal(read_weights(tmp_path / "pytorch_model.bin.index.json", SPEC).entries, A)


def test_the_digest_of_an_index_is_of_all_its_files(tmp_path: Path) -> None:
    index = shards(tmp_path)
    before = sha256(index)
    shards(tmp_path, B)
    assert sha256(index) != before


def test_what_is_wrong_with_shards_is_named(tmp_path: Path) -> None:
    index = shards(tmp_path)
    second = tmp_path / "model-00002-of-00002.safetensors"
    output = error_of(second)
    assert "one of the 2 files of model.safetensors.index.json: give that" in output
    assert "In it there is model.safetensors.index.json" in error_of(tmp_path)
    save_file({"other": torch.ones(1)}, second)
    assert "is missing, but got 'model-00002-of-00002.safetensors'" in error_of(index)
    second.unlink()
    assert "1 missing (model-00002-of-00002.safetensors)" in error_of(index)
    index.write_text('{"weight_map": {"a": "../x.pth"}}')
    assert "names without folders" in error_of(index)
    index.write_text("{")
    assert "`weight_map`" in error_of(index)


# Values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_with_their_names(tmp_path: Path, value: float) -> None:
    state = {name: entry.clone() for name, entry in A.items()}
    state["head.weight"][0, :3] = value
    output = error_of(saved(tmp_path, state))
    assert "1 entry holds values that are NaN or infinite (`head.weight`: 3)" in output
    state["head.bias"][:] = value
    assert "2 entries hold values" in error_of(saved(tmp_path, state))
    with pytest.raises(WeightsError, match="finite"):
        import_weights(tmp_path / "x.pth", tmp_path / "y.safetensors", SPEC)
    assert not (tmp_path / "y.safetensors").exists()


def test_an_average_that_is_nan_is_refused_with_what_else_there_is(tmp_path: Path) -> None:
    broken = A | {"head.bias": torch.full_like(A["head.bias"], float("nan"))}
    path = saved(tmp_path, {"model": A, "model_ema": broken})
    output = error_of(path)
    assert "`head.bias`" in output and "Not taken: `model` (`--entry` chooses)." in output
    assert_equal(read_weights(path, SPEC, entry="model").entries, A)


def test_a_file_of_ours_keeps_the_names_of_its_classes(tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(SPEC.classes))
    save_weights(tmp_path / "x.safetensors", SPEC, build(SPEC, seed=1), "a test", classes=names)
    assert read_weights(tmp_path / "x.safetensors").classes == names
    import_weights(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert read_weights(tmp_path / "y.safetensors").classes == names


def test_the_command_states_what_it_took(tmp_path: Path) -> None:
    state = build(NANO, seed=1).state_dict()
    saved(tmp_path, {"model": state, "model_ema": {name: value + 1 for name, value in state.items()}})
    command = ("weights", "import", "x.pth", "--network", "replknet_nano", "--output", "y.safetensors")
    result = called(*command, cwd=tmp_path)
    assert result.returncode == 0 and "taken: `model_ema`, the moving average" in result.stdout, result.stderr
    result = called(*command, "--entry", "model", cwd=tmp_path)
    assert result.returncode == 0 and "not taken: `model_ema`" in result.stdout, result.stderr
