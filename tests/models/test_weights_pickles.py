"""Files of weights with other objects in them, which are never executed, and files that hold no weights."""

import argparse
import builtins
import collections
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from weights_files import SPEC, A, assert_equal, error_of, saved

from harness.models.weights import read_weights

# What a file contains besides weights


class Config:
    """A class of somebody else's, whose code must not be needed."""

    def __init__(self) -> None:
        self.values = {"lr": 0.1}

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("this must not run")


class Evil:
    """Code that a pickle would run."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Mapped(dict[str, Any]):
    """As Lightning keeps hyperparameters."""


class Listed(list[Any]):
    """As OmegaConf's lists."""


BESIDE = {
    "a mapping": Mapped(a=1, b=Mapped(c=2)),
    "a list": Listed([1, 2]),
    "namespace": argparse.Namespace(model="x", lr=1e-3, nested=argparse.Namespace(a=[1])),
    "numpy scalars": {"best": np.float64(83.5), "n": np.int32(4), "ok": np.bool_(True)},
    "arrays": [np.arange(3), np.array(["a", "b"])],
    "default": collections.defaultdict(list, a=[1]),
    "a class": Config(),
    "a device": torch.device("cpu"),
    "a path": Path("x"),
    "a set": {1, 2},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("what", list(BESIDE))
def test_other_objects_in_the_file_do_no_harm(tmp_path: Path, what: str, zipped: bool) -> None:
    content = {"model": A, "beside": BESIDE[what], "epoch": 3}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert_equal(read_weights(tmp_path / "x.pth", SPEC).entries, A)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_of_arrays_is_read(tmp_path: Path, protocol: int) -> None:
    arrays = {name: value.numpy() for name, value in A.items()}
    content = {"state_dict": arrays, "epoch": 299, "best": np.float32(1), "args": BESIDE["namespace"], "x": Config()}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    assert_equal(read_weights(tmp_path / "x.pkl", SPEC).entries, A)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [(os.mkdir, ("evil",)), (builtins.exec, ("import os; os.mkdir('evil')",)), (builtins.getattr, ("", "join"))],
)
def test_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, arguments: Any, plain: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"model": {name: value.numpy() for name, value in A.items()}, "x": Evil(function, *arguments)}
    if plain:
        (tmp_path / "x.pth").write_bytes(pickle.dumps(content, 4))
    else:
        saved(tmp_path, content)
    output = error_of(tmp_path / "x.pth")
    assert "could run code" in output and function.__name__ in output
    assert not (tmp_path / "evil").exists()


def touch(_: int) -> int:
    raise AssertionError("this must not run")


def test_a_function_of_another_package_is_not_called(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": A, "x": Evil(touch, 1)})
    assert_equal(read_weights(path, SPEC).entries, A)


# What is no weights


def test_a_whole_pickled_model_is_named(tmp_path: Path) -> None:
    output = error_of(saved(tmp_path, nn.Linear(2, 2)))
    assert "a pickled object of the class torch.nn.modules.linear.Linear" in output and "state_dict()" in output
    output = error_of(saved(tmp_path, {"epoch": 3, "model": nn.Linear(2, 2)}))
    assert "under `model` a pickled object" in output


def _zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")


def _bytes(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"), "a Git LFS pointer"),
        (_bytes(b"<!DOCTYPE html>\n<html><body>Sign in</body></html>"), "a web page (HTML)"),
        (_bytes(b"\n<HTML>404"), "a web page (HTML)"),
        (_bytes(b""), "it is empty"),
        (_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "an HDF5 file, as Keras"),
        (_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.0.0" + bytes(40)), "an ONNX graph"),
        (_bytes(b"\x1f\x8b\x08" + bytes(40)), "compressed with gzip"),
        (_bytes(b"\x00" * 257 + b"ustar" + bytes(300)), "a tar archive"),
        (_bytes(b'{"error": "not found"}'), "JSON that begins with"),
        (_bytes(b"\x93NUMPY\x01\x00" + bytes(60)), "a NumPy array"),
        (_bytes(os.urandom(8) + b"\xff\xfe" * 40), "damaged, or something else"),
        (lambda path: _zip(path, "a.txt", "b/c.jpg"), "a zip archive of other files (a.txt, b/c.jpg)"),
        (lambda path: _zip(path, "a.npy"), "a NumPy archive"),
        (lambda path: _zip(path, "config.json", "model.weights.h5"), "a Keras model"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, write: Callable[[Path], Any], words: str) -> None:
    write(tmp_path / "x.pth")
    assert words in error_of(tmp_path / "x.pth")


def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    _zip(tmp_path / "x.pth", "m/data.pkl", "m/code/__torch__.py", "m/constants.pkl")
    assert "TorchScript" in error_of(tmp_path / "x.pth")


def test_safetensors_that_are_cut_short_are_reported(tmp_path: Path) -> None:
    save_file(A, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(data[:-1000])
    assert f"the file has {len(data) - 1000:,} bytes" in error_of(tmp_path / "x.safetensors")


def test_a_whole_file_that_the_reader_does_not_take_is_not_called_damaged(tmp_path: Path) -> None:
    torch.save({"model": A}, tmp_path / "x.pth", pickle_protocol=4)
    output = error_of(tmp_path / "x.pth")
    assert "reading failed: Unsupported operand" in output and "damaged" not in output
