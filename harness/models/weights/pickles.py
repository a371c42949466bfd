"""Safe reading of pickles: tensors, arrays and plain values, and placeholders for all other objects.

A pickle names functions and classes to be called by its reader. Here only those that create tensors, arrays, numbers
and plain containers are called. An object of any other class becomes a `StandIn`, which has the name of its class and
does nothing; names in `DANGEROUS` modules, whose only use in a pickle is to run code, raise an error. A file that is no
checkpoint is recognized by its first bytes, for the error message.
"""

import argparse
import collections
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.errors import WeightsError

MAX_NAMES = 200
"""Most unknown classes in a checkpoint."""
DANGEROUS = frozenset(
    {
        *("builtins", "__builtin__", "os", "posix", "nt", "sys", "subprocess", "shutil", "importlib", "runpy", "pty"),
        *("socket", "ctypes", "code", "codeop", "pickle", "_pickle", "marshal", "multiprocessing", "asyncio", "site"),
        *("webbrowser", "http", "urllib", "requests", "pip", "platform", "commands", "signal", "operator", "timeit"),
        *("pdb", "bdb", "cProfile", "profile", "atexit", "zipimport", "distutils", "setuptools"),
    }
)
"""Top-level modules that have no place in a file of weights."""
HEAD = 4096
"""Number of bytes that are read."""
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of files by `torch.save` before PyTorch 1.6: a pickled number."""

DOWNLOAD_AGAIN = "Fetch the file again."
CONVERT_FIRST = "Load it with the library that wrote it, and save its weights by `torch.save` or as safetensors."

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer and not the file that it refers to", "Run `git lfs pull` there."),
    (b"version https://hawser", "a Git LFS pointer and not the file that it refers to", "Run `git lfs pull` there."),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write it", CONVERT_FIRST),
    (b"\x93NUMPY", "a NumPy array (.npy)", CONVERT_FIRST),
    (b"GGUF", "a GGUF file, as llama.cpp reads it", CONVERT_FIRST),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it, and give the file of weights in it."),
    (b"BZh", "compressed with bzip2", "Unpack it, and give the file of weights in it."),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it, and give the file of weights in it."),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it, and give the file of weights in it."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it, and give the file of weights in it."),
    (b"Rar!", "a RAR archive", "Unpack it, and give the file of weights in it."),
    (b"\x89PNG", "a picture (PNG)", "Check the path."),
    (b"\xff\xd8\xff", "a picture (JPEG)", "Check the path."),
    (b"%PDF", "a PDF document", "Check the path."),
)
"""First bytes, a description of such a file, and a remedy."""


class StandIn:
    """Placeholder for an object of a class that is not loaded: it stores nothing and does nothing."""

    __slots__ = ("__dict__",)
    path = ""
    """The dotted name of the class in the file."""

    def __new__(cls, *_: Any, **__: Any) -> "StandIn":
        """An empty object, whatever the arguments."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Ignored; unpickling calls it on subclasses of list."""

    def extend(self, _: Any) -> None:
        """Ignored, as `append`."""

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


def stand_in(path: str) -> type[StandIn]:
    """Create a `StandIn` class for the class or function with this dotted name; its `repr` shows the name."""
    module, _, name = path.rpartition(".")
    return type(name, (StandIn,), {"path": path, "__slots__": (), "__module__": module, "__qualname__": name})


def _new_mapping(*_: Any, **__: Any) -> Any:
    return collections.OrderedDict()


def _new_list(*_: Any, **__: Any) -> Any:
    return []


def _plain_subclass(path: str, make: Any) -> type[StandIn]:
    """Create a class that replaces a subclass of a mapping or list; its instances are plain mappings or lists."""
    members = {"path": path, "__slots__": (), "__new__": lambda _, *args, **named: make(*args, **named)}
    return type("Plain", (StandIn,), members)


def _harmless() -> dict[str, Any]:
    """Callables that create arrays, numbers and plain containers, by dotted name, for NumPy 1 and 2."""
    reconstruct: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    buffered: Any = np.empty(1).__reduce_ex__(5)[0]
    plain = (bool, int, float, str, bytes, list, tuple, dict, frozenset, range, slice)
    names: dict[str, Any] = {
        **{f"builtins.{builtin.__name__}": builtin for builtin in plain},
        "argparse.Namespace": argparse.Namespace,
        "collections.defaultdict": _new_mapping,
        "numpy.ndarray": np.ndarray,
        "numpy.dtype": np.dtype,
    }
    for core in ("numpy.core", "numpy._core"):
        names |= {f"{core}.multiarray._reconstruct": reconstruct, f"{core}.multiarray.scalar": scalar}
        names |= {f"{core}.numeric._frombuffer": buffered}
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDGSUVO"}
    return names | {f"numpy.dtypes.{kind.__name__}": kind for kind in kinds}


HARMLESS = _harmless()
_PLAIN_ONLY: dict[str, Any] = {
    "builtins.set": set,
    "builtins.bytearray": bytearray,
    "builtins.complex": complex,
    "collections.OrderedDict": collections.OrderedDict,
    "collections.Counter": collections.Counter,
    "_codecs.encode": lambda text, encoding: text.encode("latin1") if encoding == "latin1" else _refuse_codec(encoding),
}


def read_pickle(path: Path) -> object:
    """Read a file by `torch.save` or `pickle.dump`: tensors, NumPy arrays, plain values, placeholders. No code is run.

    Raises `WeightsError` with a description of the file.
    """
    _check_archive(path)
    with path.open("rb") as file:
        head = file.read(len(TORCH_LEGACY))
    is_plain = head[:1] == b"\x80" and head != TORCH_LEGACY
    try:
        if not is_plain:
            return _read_torch(path)
        with path.open("rb") as file:
            return _PlainUnpickler(file, path).load()
    except WeightsError:
        raise
    except Exception as error:  # a parser can raise anything for untrusted bytes
        raise _unreadable(path) from error


def _check_archive(path: Path) -> None:
    """Verify the checksums of a zip archive, which `torch.load` ignores."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    # what zipfile raises for damaged directories, methods it does not have, encrypted entries and cut files
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise _unreadable(path) from error
    if damaged is not None:
        raise WeightsError(
            f"The file must be a whole checkpoint (.pth) or safetensors; it is damaged: the checksum of {damaged} is "
            "wrong",
            place=str(path),
            remedy="Fetch the file again.",
        )


def _unreadable(path: Path) -> WeightsError:
    description, remedy = describe_file(path)
    rule = f"The file must be a whole checkpoint (.pth) or safetensors; it is {description}"
    return WeightsError(rule, place=str(path), remedy=remedy)


def _read_torch(path: Path) -> object:
    """Read with `torch.load(weights_only=True)`, with a placeholder for every class that it rejects."""
    allowed, message = dict(HARMLESS), ""
    for _ in range(MAX_NAMES):
        with _safe(allowed):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                added, message = _additions(str(error), path, allowed), str(error)
        if not added:
            break
        allowed |= added
    raise _unsupported(message, path)


def _unsupported(message: str, path: Path) -> WeightsError:
    """The error for an intact archive that PyTorch's reader rejects; a file without checksums may be damaged."""
    match = re.search(r"WeightsUnpickler error:\s*(.+)", message)
    if match is None or not zipfile.is_zipfile(path):
        return _unreadable(path)
    return WeightsError(
        f"The file must be a checkpoint as `torch.save` writes it by default; reading failed: {match[1].strip():.200}",
        place=str(path),
        remedy="If you trust it, load it with PyTorch, and save only its weights by `torch.save`.",
    )


@contextmanager
def _safe(allowed: Mapping[str, Any]) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.serialization.safe_globals([(value, name) for name, value in allowed.items()]):
            yield


def _additions(message: str, path: Path, allowed: Mapping[str, Any]) -> dict[str, Any]:
    """The classes to allow in PyTorch's reader to resolve its error; empty if it is a different error."""
    if match := re.search(r"Can only (\w+).* but got <class '([^']+)'>", message):
        make = _new_mapping if match[1].startswith("SETITEM") else _new_list
        return {match[2]: _plain_subclass(match[2], make)} if issubclass(allowed.get(match[2], str), StandIn) else {}
    match = re.search(r"GLOBAL (\S+)", message)
    if match is None or match[1] in allowed:
        return {}
    _require_harmless(match[1], path)
    return {match[1]: stand_in(match[1])}


def _require_harmless(name: str, path: Path) -> None:
    if "." not in name or name.split(".")[0] in DANGEROUS:  # PyTorch names builtins without their module
        rule = f"The file must hold only tensors, because anything else could run code; it holds {name}"
        remedy = "Do not load it unless you trust who made it; then save its state dict alone."
        raise WeightsError(rule, place=str(path), remedy=remedy)


class _PlainUnpickler(pickle.Unpickler):
    """Reads arrays and plain values of a pickle that was not written by `torch.save`."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        harmless = HARMLESS.get(full) or _PLAIN_ONLY.get(full)
        if harmless is not None:
            return harmless
        _require_harmless(full, self._path)
        return stand_in(full)

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"a reference to {pid!r}")


def _refuse_codec(encoding: str) -> bytes:
    raise pickle.UnpicklingError(f"bytes in the encoding {encoding}")


def describe_file(path: Path) -> tuple[str, str]:
    """A description of a file, to follow the words "it is", and a remedy; an unknown file is called damaged."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return "empty", DOWNLOAD_AGAIN
    for start, description, remedy in SIGNATURES:
        if head.startswith(start):
            return description, remedy
    if re.match(rb"\s*(<!doctype html|<html|<\?xml|<head)", head, re.IGNORECASE):
        return "a web page (HTML) and not the file that was to be downloaded", "Fetch the file itself."
    if head.startswith(b"PK"):
        return _describe_zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive", "Unpack it, and give the file of weights in it."
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", CONVERT_FIRST
    if path.suffix == ".onnx" or (
        head[0] == 0x08 and head[2:3] in (b"\x12", b"\x1a", b":", b"B") and b"pytorch" in head
    ):
        return "an ONNX graph", "Take the checkpoint that it was exported from."
    if path.suffix in (".pb", ".tflite", ".h5", ".keras", ".msgpack") or ".data-00000-of-" in path.name:
        return f"a file of another library ({path.suffix or path.name})", CONVERT_FIRST
    if head[0] == 0x80:
        return "a pickle that is damaged: cut short, or changed", DOWNLOAD_AGAIN
    if head[8:9] == b"{":
        return "a safetensors file that is damaged", DOWNLOAD_AGAIN
    return _describe_text(head)


def _describe_text(head: bytes) -> tuple[str, str]:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "damaged, or something else", DOWNLOAD_AGAIN
        text = head[: error.start].decode("utf-8")
    if any(ord(letter) < 9 for letter in text):
        return "damaged, or something else", DOWNLOAD_AGAIN
    first = " ".join(text.split())[:40]
    kind = "JSON" if first.startswith(("{", "[")) else "a text"
    return f"{kind} that begins with {first!r}", "Check the path."


def _describe_zip(path: Path) -> tuple[str, str]:
    if not zipfile.is_zipfile(path):
        return "a checkpoint or another zip archive that is damaged: cut short", DOWNLOAD_AGAIN
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript archive (torch.jit.save), which holds code",
            "Load it with `torch.jit.load` if you trust it, and save its state dict.",
        )
    if any(name.endswith("data.pkl") for name in names):
        return "a checkpoint that is damaged", DOWNLOAD_AGAIN
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)", CONVERT_FIRST
    if "model.weights.h5" in names:
        return "a Keras model (.keras)", CONVERT_FIRST
    first = ", ".join(name[:60] for name in names[:3]) or "none"
    return f"a zip archive of other files ({first})", "Unpack it, and give the file of weights in it."
