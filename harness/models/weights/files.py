"""Files of weights: reads tensors by name from checkpoints, safetensors and shards, and writes files atomically.

Unpickling creates only tensors, arrays and plain containers of them. Weights in several files (shards) have an index as
written by Hugging Face's libraries: JSON, whose `weight_map` maps each entry to the name of its file in the same
folder. A digest of the content is stored with a state or with weights, and checked when they are read.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.errors import WeightsError, first_of
from harness.models.weights.pickles import read_pickle
from harness.system.atomic_write import atomic_write

DIGEST = "digest"
"""Key of the digest in a file; it is computed over everything else."""
INDEX_SUFFIX = ".index.json"
MAX_INDEX_BYTES = 256 << 20
"""Upper bound of an index's size; no real index is as large."""
MAX_NAMED = 3
"""Maximum number of missing files that an error lists."""

Entries = dict[str, Tensor]


class WeightsContent(NamedTuple):
    """The content of a file of weights."""

    tree: object
    """A mapping of tensors by name, or the structure in which a training script saved one."""
    metadata: Mapping[str, str]
    """Metadata of safetensors; empty for other files."""


def read_content(path: Path) -> WeightsContent:
    """Read a file of weights, or all files of an index. Raises `WeightsError`."""
    if path.is_dir():
        raise _folder(path)
    if not path.is_file():
        raise WeightsError("The file of weights must exist", place=str(path), remedy="Check the path.")
    try:
        if is_index(path):
            return _read_shards(path)
        return _read_one(path)
    except OSError as error:
        raise WeightsError(f"The file must be readable and whole: {error}", place=str(path)) from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a safetensors file; empty if the file is missing or of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def read_file(path: Path) -> tuple[Entries, Mapping[str, str]]:
    """Tensors by name of a file with a flat mapping, and its metadata; no tensors for any other file."""
    content = read_content(path)
    return tensors_in(content.tree), content.metadata


def contiguous_copies(entries: Entries) -> Entries:
    """Contiguous copies of the tensors, each with its own memory, as safetensors requires."""
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in entries.items()}


def files_of(path: Path) -> list[Path]:
    """The files that `read_content` reads: the file itself, or an index and its shards."""
    return [path, *shard_paths(path)] if is_index(path) else [path]


def tensors_in(tree: object) -> Entries:
    """The tensors and arrays of a mapping by name, without those in nested mappings."""
    if not isinstance(tree, Mapping):
        return {}
    pairs = ((name, as_tensor(value)) for name, value in tree.items() if isinstance(name, str))
    return {name: value for name, value in pairs if value is not None}


def as_tensor(value: object) -> Tensor | None:
    """The value as a dense tensor if it is one or a NumPy array; None for everything else."""
    if isinstance(value, Tensor):
        is_dense = value.layout is torch.strided and not value.is_meta and not value.is_quantized
        return value.detach() if is_dense else None
    if type(value).__module__ == "numpy" and hasattr(value, "dtype") and hasattr(value, "__array__"):
        try:
            return torch.tensor(value)
        except (TypeError, ValueError, RuntimeError):  # texts, objects
            return None
    return None


def _read_one(path: Path) -> WeightsContent:
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if is_safetensors:
        return _read_safetensors(path)
    tree: Any = read_pickle(path)
    is_state_of_ours = isinstance(tree, dict) and "run" in tree and isinstance(tree.get(DIGEST), str)
    if is_state_of_ours and tree.pop(DIGEST) != content_digest(tree):
        raise _changed(path)
    return WeightsContent(tree, {})


def _read_shards(index: Path) -> WeightsContent:
    """The entries of all files of an index. Raises `WeightsError` for an entry that its file does not hold."""
    entries: Entries = {}
    metadata: dict[str, str] = {}
    where, shards = read_index(index), {}
    for path in shard_paths(index):
        content = _read_one(path)
        shards[path.name] = tensors_in(content.tree)
        metadata |= content.metadata
    for name, file in where.items():
        if name not in shards[file]:
            rule = f"Every file must hold the entries that its index lists for it; `{name:.80}` is missing"
            remedy = "Fetch the files again, all of one version."
            raise WeightsError(rule, value=file, place=str(index), remedy=remedy)
        entries[name] = shards[file][name]
    return WeightsContent(entries, metadata)


def _read_safetensors(path: Path) -> WeightsContent:
    try:
        with safe_open(path, framework="pt") as file:
            entries, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        size = path.stat().st_size
        rule = f"The file must be whole safetensors: {error} (the file has {size:,} bytes)"
        raise WeightsError(rule, place=str(path), remedy="Fetch or import it again.") from error
    if DIGEST in metadata and metadata[DIGEST] != content_digest(entries):
        raise _changed(path)
    return WeightsContent(entries, metadata)


def _changed(path: Path) -> WeightsError:
    rule = "The weights in the file must be those that were written: the digest stored in it differs"
    remedy = "Take a copy from before it was changed, or make it again."
    return WeightsError(rule, place=str(path), remedy=remedy)


def _folder(path: Path) -> WeightsError:
    """The error for a folder, which suggests a file in it."""
    endings = (INDEX_SUFFIX, ".safetensors", ".pth", ".pt", ".bin", ".ckpt")
    names = sorted(path.name for path in path.iterdir() if path.name.endswith(endings))
    names.sort(key=lambda name: not name.endswith(INDEX_SUFFIX))
    remedy = f"In it there is {names[0]}." if names else "Give the file of weights in it."
    return WeightsError("The file of weights must exist, and this is a folder", place=str(path), remedy=remedy)


def shard_remedy(path: Path) -> str | None:
    """The remedy for a file that is one of several shards; None for other files."""
    index = index_of(path)
    return None if index is None else f"It is one of the {len(shard_paths(index))} files of {index.name}: give that."


def write_file(output: Path, save: Callable[[Path], Any]) -> None:
    """Write a file atomically: a reader sees either the old or the new file."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as partial:
            partial.touch()
            mode = partial.stat().st_mode
            save(partial)
            partial.chmod(mode)  # some writers remove the read permission of other users
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"The file must be writable: {error}", place=str(output)) from error


def is_index(path: Path) -> bool:
    """Whether a file's name is that of an index."""
    return path.name.endswith(INDEX_SUFFIX)


def read_index(path: Path) -> dict[str, str]:
    """The file of each entry, by the entry's name. Raises `WeightsError` for an invalid index or missing files."""
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise ValueError("too large")
        index = json.loads(path.read_text(encoding="utf-8"))
        files = index["weight_map"]
        is_sound = bool(files) and all(isinstance(file, str) and isinstance(name, str) for name, file in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unsound(path) from error
    if not is_sound or any(Path(file).name != file for file in files.values()):
        raise _unsound(path)
    missing = sorted({file for file in files.values() if not (path.parent / file).is_file()})
    if missing:
        raise WeightsError(
            f"All {len(set(files.values()))} files of the index must be in its folder; {len(missing)} missing "
            f"({first_of(missing, MAX_NAMED)})",
            place=str(path),
            remedy="Fetch them, too.",
        )
    return dict(files)


def shard_paths(path: Path) -> list[Path]:
    """The files of an index, sorted by name."""
    return [path.parent / file for file in sorted(set(read_index(path).values()))]


def index_of(shard: Path) -> Path | None:
    """The index in the same folder that lists this file, if there is one."""
    for index in sorted(shard.parent.glob(f"*{INDEX_SUFFIX}")):
        try:
            if shard.name in read_index(index).values():
                return index
        except WeightsError:
            continue
    return None


def _unsound(path: Path) -> WeightsError:
    rule = "The index must be JSON whose `weight_map` maps each entry to its file, by names without folders"
    return WeightsError(rule, place=str(path), remedy="Fetch it again, or give the file of weights itself.")


def content_digest(state: Mapping[str, Any]) -> str:
    """A digest of nested mappings, sequences, plain values and tensors (their dtype, shape and bytes)."""
    digest = blake2b(digest_size=16)
    for part in _parts(state):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    """The bytes that a digest is computed over; every value is preceded by its type and, if it has one, its length."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"tensor {tensor.dtype} {tuple(tensor.shape)}\0".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)}\0".encode()
        for key, element in sorted(value.items(), key=lambda item: repr(item[0])):
            yield from _parts(key)
            yield from _parts(element)
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)}\0".encode()
        for element in value:
            yield from _parts(element)
    else:
        yield f"{type(value).__name__} {value!r}\0".encode()
