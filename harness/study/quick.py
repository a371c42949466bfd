"""The quick profile of a study file: what its key `quick` changes for a first look."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.errors import StudyError
from harness.study.source import Document, KeyPath

SUFFIX = "_quick"


def quick_profile(document: Document) -> Document:
    """The file as its quick profile reads: mappings are merged, everything else is replaced, and the name is another.

    Raises `StudyError` for a file that has none.
    """
    changes = document.data.get("quick")
    if not isinstance(changes, dict) or not changes:
        raise StudyError(
            "The file must have a key `quick` to be run with `--quick`",
            place=str(document.path),
            remedy="Add what a first look changes, as `quick: {search: {seeds: 1}, proxy: {epochs: 2}}`.",
        )
    data = {key: value for key, value in document.data.items() if key != "quick"}
    data = _merged(data, changes)
    if isinstance(data.get("study"), str):
        data["study"] += SUFFIX
    below: dict[KeyPath, int] = {at[1:]: line for at, line in document.lines.items() if at[:1] == ("quick",) and at[1:]}
    return replace(document, data=data, lines={**document.lines, **below})


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        known = merged.get(key)
        merged[key] = _merged(known, change) if isinstance(known, dict) and isinstance(change, dict) else change
    return merged
