"""Pickles read without running what they name: tensors, arrays and plain values, and stand-ins for everything else.

A pickle names functions and classes that its reader is to call. Here only those are called that make tensors, arrays,
numbers and plain containers. An object of any other class becomes a `StandIn`, which has the name of its class and does
nothing; names in `DANGEROUS` modules, whose only use in a pickle is to run something, are refused.
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
"""Unknown classes that a checkpoint may have."""
DANGEROUS = frozenset(
    {
        *("builtins", "__builtin__", "os", "posix", "nt", "sys", "subprocess", "shutil", "importlib", "runpy", "pty"),
        *("socket", "ctypes", "code", "codeop", "pickle", "_pickle", "marshal", "multiprocessing", "asyncio", "site"),
        *("webbrowser", "http", "urllib", "requests", "pip", "platform", "commands", "signal", "operator", "timeit"),
        *("pdb", "bdb", "cProfile", "profile", "atexit", "zipimport", "distutils", "setuptools"),
    }
)
"""Top-level modules of which nothing belongs beside weights."""


class StandIn:
    """An object of a class that is not loaded: it keeps nothing and does nothing."""

    __slots__ = ("__dict__",)
    path = ""
    """The dotted name of the class that the file names."""

    def __new__(cls, *_: Any, **__: Any) -> "StandIn":
        """An object that is empty, whatever it is to be made of."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """As a subclass of list is filled."""

    def extend(self, _: Any) -> None:
        """As `append`."""

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


def stand_in(path: str) -> type[StandIn]:
    """A class of stand-ins for the class or function of that dotted name, which its `repr` shows."""
    module, _, name = path.rpartition(".")
    return type(name, (StandIn,), {"path": path, "__slots__": (), "__module__": module, "__qualname__": name})


def _new_mapping(*_: Any, **__: Any) -> Any:
    return collections.OrderedDict()


def _new_list(*_: Any, **__: Any) -> Any:
    return []


def _plain_subclass(path: str, make: Any) -> type[StandIn]:
    """A class in place of one that is filled as a mapping or a list is: its objects are plain ones."""
    members = {"path": path, "__slots__": (), "__new__": lambda _, *args, **named: make(*args, **named)}
    return type("Plain", (StandIn,), members)


def _harmless() -> dict[str, Any]:
    """By dotted name, what makes arrays, numbers and plain containers, in the spellings of NumPy 1 and 2."""
    reconstruct: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    buffered: Any = np.empty(1).__reduce_ex__(5)[0]
    plain = (bool, int, float, str, bytes, list, tuple, dict, frozenset, range, slice)
    names: dict[str, Any] = {
        **{f"builtins.{each.__name__}": each for each in plain},
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
    """What `torch.save` or `pickle.dump` wrote: tensors, NumPy arrays, plain values and stand-ins. No code is run.

    Raises `WeightsError`, which says what the file is.
    """
    _check_archive(path)
    with path.open("rb") as file:
        head = file.read(len(TORCH_LEGACY))
    is_plain = head[:1] == b"\x80" and head != TORCH_LEGACY
    try:
        return _read_plain(path) if is_plain else _read_torch(path)
    except WeightsError:
        raise
    except Exception as error:  # whatever a parser meets in bytes that anybody may have written
        raise _unreadable(path) from error


def _check_archive(path: Path) -> None:
    """Hold the checksums of a zip archive against its content, which `torch.load` does not look at."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
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
    what, remedy = describe_file(path)
    rule = f"The file must be a whole checkpoint (.pth) or safetensors; it is {what}"
    return WeightsError(rule, place=str(path), remedy=remedy)


def _read_torch(path: Path) -> object:
    """By PyTorch's own reader of tensors, which is given a stand-in for every class that it does not know."""
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
    """The error for a whole archive that PyTorch's reader does not take; a file without checksums may be damaged."""
    match = re.search(r"WeightsUnpickler error:\s*(.+)", message)
    if match is None or not zipfile.is_zipfile(path):
        return _unreadable(path)
    return WeightsError(
        f"The file must be a checkpoint as `torch.save` writes it by default; its reader says: {match[1].strip():.200}",
        place=str(path),
        remedy="Where you trust it, load it with PyTorch, and save its weights alone by `torch.save`.",
    )


@contextmanager
def _safe(allowed: Mapping[str, Any]) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.serialization.safe_globals([(value, name) for name, value in allowed.items()]):
            yield


def _additions(message: str, path: Path, allowed: Mapping[str, Any]) -> dict[str, Any]:
    """What PyTorch's reader has to be given to get past its error; nothing where that is another one."""
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
        raise WeightsError(
            f"The file must hold tensors alone, for anything else could run code; it holds {name}",
            place=str(path),
            remedy="Do not load it unless you trust who made it; then save its state dict alone.",
        )


class _PlainUnpickler(pickle.Unpickler):
    """Arrays and plain values of a pickle that `torch.save` did not write."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        known = HARMLESS.get(full) or _PLAIN_ONLY.get(full)
        if known is not None:
            return known
        _require_harmless(full, self._path)
        return stand_in(full)

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"a reference to {pid!r}")


def _read_plain(path: Path) -> object:
    with path.open("rb") as file:
        return _PlainUnpickler(file, path).load()


def _refuse_codec(encoding: str) -> bytes:
    raise pickle.UnpicklingError(f"bytes in the encoding {encoding}")
