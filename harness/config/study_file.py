"""Loading of a study file: reading, complete checks, and its quick profile.

The quick profile is the study with the changes of the key `quick`, for a short first run. A value of the file that does
not fit a changed one is adapted to it, unless the profile sets it itself: a profile that trains for one epoch need not
repeat the warm-up, the batch size and the pruner.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from harness.config.axes import BASE
from harness.config.claim_arms import check_claims
from harness.config.network_file import resolve, resolve_bases
from harness.config.problems import FileErrors
from harness.config.recipes.loading import recipe_names
from harness.config.recipes.proxy import ProxyRecipe, Transfer
from harness.config.space import Space, plain_fields
from harness.config.space_checks import read_space, require_feasible
from harness.config.study import Study
from harness.config.study_checks import check_metrics
from harness.config.yaml_file import Document, KeyPath, dotted, quoted, read_document, write_yaml
from harness.errors import SpecError, StudyError, did_you_mean
from harness.models.spec.network import NetworkSpec


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A valid study file."""

    study: Study
    base: NetworkSpec
    """The network of the key `base`, or the first of the axis `base`; with its own classes and channels."""
    full_scale_base: NetworkSpec | None
    document: Document
    _space: Space = field(repr=False)
    notes: tuple[str, ...] = ()
    """The values that were adapted to the changes of the quick profile."""

    @property
    def path(self) -> Path:
        """The path as passed to `load_study`."""
        return self.document.path

    @property
    def text(self) -> str:
        """The file as it was read, comments included."""
        return self.document.text

    def place(self, at: KeyPath = ()) -> str:
        """File and line of a key, as `search_spaces/smoke.yaml:14`, for `place(("proxy", "dataset"))`."""
        return self.document.place(at)


def load_study(path: str | Path, *, is_quick: bool = False) -> StudyFile:
    """Read and check a study file; returns it, or its quick profile with `is_quick`.

    The quick profile is checked in either case. Raises `StudyError` with every problem and its line.
    """
    written = read_document(Path(path))
    if is_quick:
        profile, notes = apply_quick_profile(written)
        return replace(_checked(profile), notes=notes)
    file = _checked(written)
    if file.study.quick is not None:
        _check_quick(written)
    return file


def _check_quick(written: Document) -> None:
    """Raise `StudyError` for a quick profile that `--quick` would refuse."""
    try:
        _checked(apply_quick_profile(written)[0])
    except StudyError as error:
        for problem in error.problems:
            problem.rule = f"In the profile `quick`: {problem.rule}"
        raise


def _checked(document: Document) -> StudyFile:
    """The study that a document describes. Raises `StudyError` with every problem and its line."""
    problems = FileErrors(document)
    study = _study(document.data, problems)
    study = _with_root(study, document.path) if study else None
    is_whole = not problems.errors
    base, bases = resolve_bases(study, problems) if study else (None, {})
    large = resolve(study.full_scale.base, ("full_scale", "base"), problems) if study and study.full_scale else None
    if study and study.full_scale:
        _check_full_recipe(study.full_scale.recipe, problems)
    space = read_space(study, base, bases, problems) if study and base else None
    if study and space:
        check_claims(study, space, problems)
    if study and is_whole:  # without the invalid keys, others might seem to request metrics that no run yields
        check_metrics(study, problems)
    problems.raise_if_any()
    assert study and base and space, "a study file without problems has all of its parts"
    return StudyFile(study, base, large, document, space)


def build_space(file: StudyFile, *, classes: int, channels: int, data: str | None = None) -> Space:
    """The search space for a data set with these numbers of classes and channels, and this digest of its content.

    Raises `StudyError` if no configuration is within rules and budgets.
    """
    base, *others = (
        spec.replace(classes=classes, in_channels=channels) for spec in (file.base, *file._space.bases.values())
    )
    space = replace(file._space, base=base, bases=dict(zip(file._space.bases, others, strict=True)), data=data)
    require_feasible(space, file.document)
    return space


def full_scale_network(file: StudyFile, choices: Mapping[str, Any]) -> NetworkSpec | None:
    """The network of a study's `full_scale.base` with these choices; None if the study has no `full_scale`.

    Raises `SpecError`, with the file's line, if the choices do not fit the base.
    """
    large = file.full_scale_base
    if large is None:
        return None
    kept = {name: tuple(value) if isinstance(value, list) else value for name, value in choices.items() if name != BASE}
    if not kept:
        return large
    space = build_space(file, classes=file.base.classes, channels=file.base.in_channels)
    try:
        return space.with_base(large).network(kept)
    except SpecError as error:
        error.place = error.place or file.place(("full_scale", "base"))
        raise


def resolved_yaml(file: StudyFile) -> str:
    """The study as a study file with all defaults, and with networks as mappings instead of names."""
    values = file.study.model_dump(mode="json")
    values["bases"] = {name: plain_fields(base) for name, base in file._space.bases.items()}
    if not values["bases"]:
        values["base"] = plain_fields(file.base)
    if file.full_scale_base is not None:
        values["full_scale"]["base"] = plain_fields(file.full_scale_base)
    return write_yaml(values, f"Resolved from {file.path.name}: every key, those at their default included.")


def _with_root(study: Study, path: Path) -> Study:
    """The study with an absolute `proxy.root`; in the file, paths are relative to the file's folder."""
    if study.proxy.root is None:
        return study
    root = path.absolute().parent / Path(study.proxy.root).expanduser()
    return study.model_copy(update={"proxy": study.proxy.model_copy(update={"root": os.path.normpath(root)})})


def _check_full_recipe(named: str | None, problems: FileErrors) -> None:
    if named is not None and named not in recipe_names():
        rule = "`full_scale.recipe` must be a recipe that comes with the harness"
        remedy = did_you_mean(named, recipe_names(), "Recipes")
        problems.add(("full_scale", "recipe"), rule, value=quoted(named), remedy=remedy)


def _study(data: Mapping[str, Any], problems: FileErrors) -> Study | None:
    """The study, or the part of it without invalid keys, so that the other keys are checked as well."""
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        faulty = problems.add_invalid(error, Study)
    try:
        return Study.model_validate({"study": "unnamed"} | _sound_part(data, faulty))
    except ValidationError:
        return None


def _sound_part(data: Mapping[str, Any], faulty: set[KeyPath]) -> dict[str, Any]:
    """The file without the invalid keys; of the axes and conditions, only the invalid ones are left out."""
    dropped = {at[1] for at in faulty if at[0:1] in (("axes",), ("when",)) and len(at) > 1}
    whole = {at[0] for at in faulty if at and not (at[0] in ("axes", "when") and len(at) > 1)}
    rest = {key: value for key, value in data.items() if key not in whole}
    for key in {"axes", "when"} & rest.keys():
        rest[key] = {name: value for name, value in rest[key].items() if name not in dropped}
    if "search" in whole:
        rest["search"] = {"sampler": "random", "trials": 1}  # a valid value for any size of the space
    return rest


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
    data = _merged(data, changes)
    notes = _fit(data, document.data, changes)
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
    return "none" if epochs == 1 else pruner


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
)


def _fit(data: dict[str, Any], before: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Adapt values of `data`, in place, to those that the profile changed; returns a note for each."""
    notes = []
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
            notes.append(
                f"the quick profile has `{dotted(fit.key)}: {quoted(fitted, is_quoted=False)}` in place of "
                f"{quoted(value, is_quoted=False)}, to fit `{dotted(fit.changed)}: {quoted(changed)}`"
            )
    return tuple(notes)


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


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        before = merged.get(key)
        merged[key] = _merged(before, change) if isinstance(before, dict) and isinstance(change, dict) else change
    return merged
