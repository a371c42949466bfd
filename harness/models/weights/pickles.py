"""Safe reading of pickles: tensors, arrays and plain values, and placeholders for all other objects.

A pickle names functions and classes to be called by its reader. Here only those that create tensors, arrays, numbers
and plain containers are called. An object of any other class becomes a `StandIn`, which has the name of its class and
does nothing; names in `DANGEROUS` modules, whose only use in a pickle is to run code, raise an error.
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
from harness.models.weights.kinds import TORCH_LEGACY, describe_file

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
