"""The quick profile of a study file, and values that are adapted to changed ones.

The quick profile is the study with the changes of the key `quick`, for a short first run. A value of the file that does
not fit a changed one is adapted to it, unless the profile sets it itself: a profile that trains for one epoch need not
repeat the warm-up, the batch size and the pruner, and one with a few trials need not repeat the sampler.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from harness.config.recipes.proxy import ProxyRecipe, Transfer
from harness.config.search_methods import PLATEAU_TRIALS, SAMPLERS, WILCOXON_SEEDS
from harness.config.yaml_file import Document, KeyPath, dotted, quoted
from harness.errors import StudyError

QUICK_SUFFIX = "_quick"


def apply_quick_profile(document: Document) -> tuple[Document, tuple[str, ...]]:
    """The file with its quick profile applied: mappings are merged, other values replaced, and the name has a suffix.

    Also returns a note for each value that was adapted. Raises `StudyError` for a file without a quick profile.
    """
    changes = document.data.get("quick")
    if not isinstance(changes, dict) or not changes:
        rule = "The file must have a key `quick` to be run with `--quick`"
        remedy = "Add the changes for a short first run, as `quick: {search: {seeds: 1}, proxy: {epochs: 2}}`."
        raise StudyError(rule, place=str(document.path), remedy=remedy)
    data = {key: value for key, value in document.data.items() if key != "quick"}
    data = merged(data, changes)
    notes = tuple(
        f"the quick profile has `{dotted(at)}: {'null' if fitted is None else quoted(fitted, is_quoted=False)}` in "
        f"place of {quoted(value, is_quoted=False)}, to fit `{dotted(changed_at)}: {quoted(changed)}`"
        for at, value, fitted, changed_at, changed in fit_dependent_values(data, document.data, changes)
    )
    if isinstance(data.get("study"), str):
        data["study"] += QUICK_SUFFIX
    below: dict[KeyPath, int] = {at[1:]: line for at, line in document.lines.items() if at[:1] == ("quick",) and at[1:]}
    return replace(document, data=data, lines={**document.lines, **below}), notes


def _same_share(warmup: Any, epochs: Any, before: Any) -> Any:
    """The warm-up, or the same share of the epochs as before if it would last to the end."""
    return warmup if warmup < epochs or not 0 <= warmup < before or epochs <= 0 else warmup * epochs / before


def _at_most(size: Any, most: Any, _: Any) -> Any:
    return min(size, most) if most > 1 else size


def _none_after_one(pruner: Any, epochs: Any, _: Any) -> Any:
    return "none" if epochs == 1 and pruner != "wilcoxon" else pruner


def _none_with_few_seeds(pruner: Any, seeds: Any, _: Any) -> Any:
    return "none" if pruner == "wilcoxon" and seeds <= WILCOXON_SEEDS else pruner


def _random_if_few(sampler: Any, trials: Any, _: Any) -> Any:
    return "random" if sampler in SAMPLERS and trials < SAMPLERS[sampler].least_trials else sampler


def _none_below(least: int) -> Callable[[Any, Any, Any], Any]:
    """No plateau rule with fewer seeds or trials than it needs."""
    return lambda plateau, number, _: None if number < least else plateau


class _DependentValue(NamedTuple):
    """A value that must be consistent with another one; `fitted` is (value, changed, changed before) -> value."""

    key: KeyPath
    default: Any
    changed: KeyPath
    changed_default: Any
    fitted: Callable[[Any, Any, Any], Any]


_RECIPE, _EPOCHS, _TRAIN_SIZE = ProxyRecipe(), ("proxy", "epochs"), ("proxy", "train_size")
_WARMUP = _RECIPE.schedule.warmup_epochs
DEPENDENT_VALUES = (
    _DependentValue(("proxy", "schedule", "warmup_epochs"), _WARMUP, _EPOCHS, _RECIPE.epochs, _same_share),
    _DependentValue(("proxy", "batch_size"), _RECIPE.batch_size, _TRAIN_SIZE, None, _at_most),
    _DependentValue(("proxy", "transfer", "batch_size"), Transfer().batch_size, _TRAIN_SIZE, None, _at_most),
    _DependentValue(("proxy", "val_size"), None, ("proxy", "final_val_size"), None, _at_most),
    _DependentValue(("search", "pruner"), "none", _EPOCHS, _RECIPE.epochs, _none_after_one),
    _DependentValue(("search", "pruner"), "none", ("search", "seeds"), None, _none_with_few_seeds),
    _DependentValue(("search", "sampler"), "grid", ("search", "trials"), None, _random_if_few),
    _DependentValue(("search", "plateau"), None, ("search", "seeds"), None, _none_below(2)),
    _DependentValue(("search", "plateau"), None, ("search", "trials"), None, _none_below(PLATEAU_TRIALS + 1)),
)


class FittedValue(NamedTuple):
    """A value that was adapted to a changed one."""

    key: KeyPath
    value: Any
    fitted: Any
    changed_key: KeyPath
    changed: Any


def fit_dependent_values(
    data: dict[str, Any], before: Mapping[str, Any], changes: Mapping[str, Any]
) -> list[FittedValue]:
    """Adapt values of `data`, in place, to those that `changes` sets; returns what was adapted."""
    adapted = []
    for fit in DEPENDENT_VALUES:
        changed = _value_at(changes, fit.changed, None)
        if changed is None or _value_at(changes, fit.key, None) is not None:
            continue
        value = _value_at(data, fit.key, fit.default)
        try:
            fitted = fit.fitted(value, changed, _value_at(before, fit.changed, fit.changed_default))
        except TypeError:  # null, or not a number, which is refused where the study is checked
            continue
        if fitted != value and _set_at(data, fit.key, fitted):
            adapted.append(FittedValue(fit.key, value, fitted, fit.changed, changed))
    return adapted


def _value_at(values: Any, at: KeyPath, default: Any) -> Any:
    """The value at a path, or the default if there is none."""
    for key in at:
        if not isinstance(values, Mapping) or key not in values:
            return default
        values = values[key]
    return values


def _set_at(data: dict[str, Any], at: KeyPath, value: Any) -> bool:
    """Set a value in copies of the mappings above it, so that the file's are not changed; False if one is missing.

    Only a missing `schedule` is created: without a `transfer`, the study has no transfer.
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


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key as nested mappings: `{optimizer.lr: 0.3}` as `{optimizer: {lr: 0.3}}`."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        inner = value
        for part in reversed(key.split(".")):
            inner = {part: inner}
        result = merged(result, inner)
    return result


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values with changes: mappings are merged, other values replaced."""
    result = dict(values)
    for key, change in changes.items():
        before = result.get(key)
        result[key] = merged(before, change) if isinstance(before, dict) and isinstance(change, dict) else change
    return result
