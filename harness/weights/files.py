"""Files of weights: names and tensors out of checkpoints and safetensors, and into them in one piece.

No file is ever unpickled into anything but tensors and plain containers of them.
"""

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.errors import WeightsError
from harness.weights.digest import DIGEST, content_digest

WRAPPERS = ("model", "state_dict")
"""Keys under which training scripts put the state dict, beside what else they keep."""
PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel and compiled modules put before every name."""

Entries = dict[str, Tensor]


def read_file(path: Path) -> tuple[Entries, Mapping[str, str]]:
    """Names and tensors of a file of either sort, and its metadata."""
    if not path.is_file():
        raise WeightsError("The file of weights must exist", place=str(path), remedy="Check the path.")
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        return _read_safetensors(path) if is_safetensors else (_state_dict(_read_pickled(path), path), {})
    except OSError as error:
        raise WeightsError(f"The file must be readable and whole: {error}", place=str(path)) from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """What a safetensors file says of itself; empty where the file is missing or is another kind of file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _read_safetensors(path: Path) -> tuple[Entries, Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            entries, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        rule = f"The file must be whole safetensors: {error}"
        raise WeightsError(rule, place=str(path), remedy="Fetch or import it again.") from error
    if DIGEST in metadata and metadata[DIGEST] != content_digest(entries):
        raise _changed(path)
    return entries, metadata


def _changed(path: Path) -> WeightsError:
    return WeightsError(
        "The weights in the file must be those that were written: the digest that it carries differs",
        place=str(path),
        remedy="Take a copy from before it was changed, or make it again.",
    )


def _read_pickled(path: Path) -> object:
    """What `torch.save` wrote, if it is tensors and plain containers of them."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch.load does not look at the checksums
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a parser meets in bytes that anybody may have written
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found:
            raise WeightsError(
                f"The file must hold tensors alone, for anything else could run code; it holds {found[1]}",
                place=str(path),
                remedy="Where you trust it, load it with PyTorch and save its state dict alone.",
            ) from error
        raise WeightsError(
            "The file must be a whole checkpoint (.pth) or safetensors; it is damaged, or something else",
            place=str(path),
            remedy="Fetch it again.",
        ) from error
    is_ours = isinstance(content, dict) and "run" in content and isinstance(content.get(DIGEST), str)
    if is_ours and content.pop(DIGEST) != content_digest(content):
        raise _changed(path)
    return content


def _state_dict(content: object, path: Path) -> Entries:
    """The state dict in a checkpoint, from inside what training scripts put around it."""
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        what = "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise WeightsError(f"The file must hold a state dict, plain tensors by name; it holds {what}", place=str(path))
    for name, value in content.items():
        if not isinstance(name, str) or not _is_plain(value):
            kind = type(value).__name__
            raise WeightsError(
                f"The file must hold a state dict, plain tensors by name; `{name!s:.60}` ({kind}) is none",
                place=str(path),
                remedy=f"The state dict may stand alone, or under {' or '.join(f'`{key}`' for key in WRAPPERS)}.",
            )
    entries = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in content.items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in entries):
            entries = {name.removeprefix(prefix): value for name, value in entries.items()}
    return entries


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta


def write_file(output: Path, save: Callable[[Path], Any]) -> None:
    """Write a file in one piece: whoever reads it finds the old one or the new one."""
    partial = output.with_name(f"{output.name}.partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        save(partial)
        partial.chmod(mode)  # some writers keep everybody else from reading
        partial.replace(output)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"The file must be writable: {error}", place=str(output)) from error
    finally:
        if partial.exists():
            partial.unlink()
