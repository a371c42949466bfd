"""The quick profile of a study file: what its key `quick` changes for a first look.

A value of the file that no longer fits a changed one is fitted to it, where the profile does not give it itself: a
profile that trains for one epoch need not repeat the warm-up, the batch size and the pruner.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.config.recipes.proxy import Recipe, Transfer
from harness.config.yaml_file import Document, KeyPath, dotted, shown
from harness.errors import StudyError

SUFFIX = "_quick"


def quick_profile(document: Document) -> tuple[Document, tuple[str, ...]]:
    """The file as its quick profile reads: mappings are merged, everything else is replaced, and the name is another.

    Also returns a note for each value that was fitted. Raises `StudyError` for a file that has none.
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
    notes = _fit(data, document.data, changes)
    if isinstance(data.get("study"), str):
        data["study"] += SUFFIX
    below: dict[KeyPath, int] = {at[1:]: line for at, line in document.lines.items() if at[:1] == ("quick",) and at[1:]}
    return replace(document, data=data, lines={**document.lines, **below}), notes


def _same_share(warmup: Any, epochs: Any, before: Any) -> Any:
    """The same share of the epochs, where a warm-up would last to the end."""
    return warmup if warmup < epochs or not 0 <= warmup < before or epochs <= 0 else warmup * epochs / before


def _at_most(size: Any, most: Any, _: Any) -> Any:
    return min(size, most) if most > 1 else size


def _none_after_one(pruner: Any, epochs: Any, _: Any) -> Any:
    return "none" if epochs == 1 else pruner


@dataclass(frozen=True, slots=True)
class _Fit:
    """A value that must fit another one."""

    key: KeyPath
    default: Any
    changed: KeyPath
    changed_default: Any
    fitted: Callable[[Any, Any, Any], Any]
    """Given the value, the changed one, and what that was before: the value that fits."""


_RECIPE, _EPOCHS = Recipe(), ("proxy", "epochs")
FITS = (
    _Fit(("proxy", "schedule", "warmup_epochs"), _RECIPE.schedule.warmup_epochs, _EPOCHS, _RECIPE.epochs, _same_share),
    _Fit(("proxy", "batch_size"), _RECIPE.batch_size, ("proxy", "train_size"), None, _at_most),
    _Fit(("proxy", "transfer", "batch_size"), Transfer().batch_size, ("proxy", "train_size"), None, _at_most),
    _Fit(("proxy", "val_size"), None, ("proxy", "final_val_size"), None, _at_most),
    _Fit(("search", "pruner"), "none", _EPOCHS, _RECIPE.epochs, _none_after_one),
)


def _fit(data: dict[str, Any], before: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Fit values of `data` in place to those that the profile changed; gives a note for each."""
    notes = []
    for fit in FITS:
        changed = _value(changes, fit.changed, None)
        if changed is None or _value(changes, fit.key, None) is not None:
            continue
        value = _value(data, fit.key, fit.default)
        try:
            fitted = fit.fitted(value, changed, _value(before, fit.changed, fit.changed_default))
        except TypeError:  # null, or not a number, which is refused where the study is checked
            continue
        if fitted != value and _set(data, fit.key, fitted):
            notes.append(
                f"the quick profile has `{dotted(fit.key)}: {shown(fitted, is_quoted=False)}` in place of "
                f"{shown(value, is_quoted=False)}, to fit `{dotted(fit.changed)}: {shown(changed)}`"
            )
    return tuple(notes)


def _value(values: Any, at: KeyPath, default: Any) -> Any:
    """The value at a path, or the default where there is none."""
    for key in at:
        if not isinstance(values, Mapping) or key not in values:
            return default
        values = values[key]
    return values


def _set(data: dict[str, Any], at: KeyPath, value: Any) -> bool:
    """Set a value, in mappings of its own, for those of the file stay as they are; False where it has no place.

    Of the mappings above it, only `schedule` may be left out: without a `transfer`, none is wanted.
    """
    *above, last = map(str, at)
    for key in above:
        inner = data.get(key, {} if key == "schedule" else None)
        if not isinstance(inner, Mapping):
            return False
        data[key] = dict(inner)
        data = data[key]
    data[last] = value
    return True


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        known = merged.get(key)
        merged[key] = _merged(known, change) if isinstance(known, dict) and isinstance(change, dict) else change
    return merged
