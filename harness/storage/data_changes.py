"""Compares the data that a study was trained on with the data in the folder now.

The store has the digest of every run's data. A file in the study's folder describes the data, so that an error message
can name what changed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import DataInfo
from harness.errors import StudyError, first_of
from harness.storage import Store

DATA_FILE = "data.json"
UNKNOWN_DIGEST = "unknown (trained by a version that did not record it)"
MAX_NAMED = 3
"""Maximum number of classes that a message names."""


def write_description(folder: Path, info: DataInfo) -> None:
    """Write a description of the data set into the study's folder; writes nothing for generated data."""
    if info.digest is not None:
        text = json.dumps(_description(info), indent=1, ensure_ascii=False)
        (folder / DATA_FILE).write_text(f"{text}\n", encoding="utf-8")


def recorded_classes(folder: Path, digest: str) -> tuple[str, ...] | None:
    """The names of the classes in the order of the labels, from the description in a study's folder.

    None if there is no description, or it describes data with another digest.
    """
    try:
        description = json.loads((folder / DATA_FILE).read_text(encoding="utf-8"))
        return tuple(map(str, description["classes"])) if description["digest"] == digest else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def data_of_runs(store: Store, study: str) -> set[str | None]:
    """The data digests of all runs that belong to the study's trials."""
    ids = {run_id for ids in store.trial_runs(study).values() for run_id in ids}
    return {row.run.data for row in store.runs(ids).values()}


def require_same_data(store: Store, study: str, info: DataInfo, recipe: ProxyRecipe, folder: Path) -> None:
    """Raise `StudyError` if runs of the study were trained on other data than the folder holds now."""
    before = data_of_runs(store, study)
    if before <= {info.digest}:
        return
    raise StudyError(
        f"the study `{study}` must stay on the data that it was started with ({_digests(before)})",
        value=f"content {info.digest}",
        place=recipe.root,
        remedy=f"{_difference(folder, info)}Restore the files; or start again with `--fresh`; or give the study "
        "another name, which trains new runs on the data as they are now.",
    )


def data_notes(store: Store, study: str, info: DataInfo) -> list[str]:
    """Notes about runs of the study that were trained on other data than the folder holds now."""
    before = data_of_runs(store, study)
    if before <= {info.digest}:
        return []
    return [
        f"The runs were trained on other data ({_digests(before)}) than the folder holds now (content {info.digest}); "
        "`harness run` refuses to mix them."
    ]


def _digests(digests: set[str | None]) -> str:
    return ", ".join(sorted(f"content {digest or UNKNOWN_DIGEST}" for digest in digests))


def _description(info: DataInfo) -> dict[str, Any]:
    return {"digest": info.digest, "classes": list(info.names), "images": info.images and list(info.images)}


def _difference(folder: Path, info: DataInfo) -> str:
    """The known changes of the data, as sentences; empty if none are known."""
    try:
        before = json.loads((folder / DATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    now, parts = _description(info), []
    if classes := _changes(before.get("classes") or [], now["classes"]):
        parts.append(f"classes: {classes}")
    if before.get("images") != now["images"]:
        parts.append(f"training and validation images: {_counts(before.get('images'))}, now {_counts(now['images'])}")
    if not parts:
        parts.append("as many images of the same classes, but other content, names or labels")
    return f"Changed: {'; '.join(parts)}. "


def _counts(images: Sequence[int] | None) -> str:
    return "unknown" if images is None else " and ".join(f"{count:,}" for count in images)


def _changes(before: Sequence[str], now: Sequence[str]) -> str:
    kinds = {
        "added": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
    }
    return ", ".join(f"{first_of(names, MAX_NAMED)} {kind}" for kind, names in kinds.items() if names)
