"""Weights in several files (shards), with an index as written by Hugging Face's libraries.

The index is JSON: `weight_map` maps each entry to the name of its file, in the folder of the index.
"""

import json
from pathlib import Path

from harness.errors import WeightsError

ENDING = ".index.json"
MAX_NAMED = 3
MANY_BYTES = 256 << 20
"""Upper bound of an index's size; no real index is as large."""


def is_index(path: Path) -> bool:
    """Whether a file's name is that of an index."""
    return path.name.endswith(ENDING)


def read_index(path: Path) -> dict[str, str]:
    """The file of each entry, by the entry's name. Raises `WeightsError` for an invalid index or missing files."""
    try:
        if path.stat().st_size > MANY_BYTES:
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
        more = ", ..." if len(missing) > MAX_NAMED else ""
        raise WeightsError(
            f"All {len(set(files.values()))} files of the index must be in its folder; {len(missing)} missing "
            f"({', '.join(missing[:MAX_NAMED])}{more})",
            place=str(path),
            remedy="Fetch them, too.",
        )
    return dict(files)


def shard_paths(path: Path) -> list[Path]:
    """The files of an index, sorted by name."""
    return [path.parent / file for file in sorted(set(read_index(path).values()))]


def index_of(shard: Path) -> Path | None:
    """The index in the same folder that lists this file, if there is one."""
    for index in sorted(shard.parent.glob(f"*{ENDING}")):
        try:
            if shard.name in read_index(index).values():
                return index
        except WeightsError:
            continue
    return None


def _unsound(path: Path) -> WeightsError:
    return WeightsError(
        "The index must be JSON whose `weight_map` maps each entry to its file, by names without folders",
        place=str(path),
        remedy="Fetch it again, or give the file of weights itself.",
    )
