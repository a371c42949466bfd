"""Loading of a study file: reading, complete checks, and its quick profile (`quick_profile`)."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.config.axes import BASE, Range
from harness.config.calibrate import RecipeChange, listed_changes
from harness.config.claim_arms import check_claims
from harness.config.effects import check_effects
from harness.config.enqueue import check_enqueue
from harness.config.network_file import resolve, resolve_bases
from harness.config.problems import FileErrors
from harness.config.quick_profile import apply_quick_profile
from harness.config.recipe_axes import is_recipe_axis
from harness.config.recipes.loading import recipe_names
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.sampler_checks import check_sampler, require_dense
from harness.config.sampler_plugin import SamplerPlugin, find_plugin
from harness.config.space import Space, plain_fields
from harness.config.space_checks import adapted_notes, read_space, require_feasible, try_values
from harness.config.study import Study
from harness.config.study_checks import check_metrics
from harness.config.yaml_file import Document, KeyPath, quoted, read_document, write_yaml
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
    plugin: SamplerPlugin | None = None
    """The study's sampler, if it is a plug-in."""
    notes: tuple[str, ...] = ()
    """The values that were adapted to the changes of the quick profile, and to choices on axes of the recipe."""

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
        file = check_document(profile)
        return replace(file, notes=(*notes, *file.notes))
    file = check_document(written)
    if file.study.quick is not None:
        _check_quick(written)
    if file.study.calibrate is not None:
        check_changes(written, listed_changes(file.study.calibrate))
    return file


def check_changes(document: Document, changes: Iterable[RecipeChange]) -> None:
    """Raise `StudyError` for changes of the proxy with which the study would be refused."""
    for change in changes:
        try:
            check_document(change.apply(document))
        except StudyError as error:
            values = ", ".join(f"{key}: {quoted(value)!r}" for key, value in change.values.items())
            for problem in error.problems:
                problem.rule = f"In `calibrate`, with {values}: {problem.rule}"
            raise


def _check_quick(written: Document) -> None:
    """Raise `StudyError` for a quick profile that `--quick` would refuse."""
    try:
        check_document(apply_quick_profile(written)[0])
    except StudyError as error:
        for problem in error.problems:
            problem.rule = f"In the profile `quick`: {problem.rule}"
        raise


def check_document(document: Document) -> StudyFile:
    """Check a document; returns the study that it describes. Raises `StudyError` with every problem and its line."""
    problems = FileErrors(document)
    study = _study(document.data, problems)
    study = _with_root(study, document.path) if study else None
    study, plugin = _with_plugin(study, problems) if study else (None, None)
    is_whole = not problems.errors
    base, bases = resolve_bases(study, problems) if study else (None, {})
    large = resolve(study.full_scale.base, ("full_scale", "base"), problems) if study and study.full_scale else None
    if study and study.full_scale:
        _check_full_recipe(study.full_scale.recipe, problems)
    space = read_space(study, base, bases, problems) if study and base else None
    if study and space:
        check_claims(study, space, problems)
        check_effects(study.effects, space, problems)
        check_enqueue(study, space, problems)
    if study and is_whole:  # without the invalid keys, others might seem to request metrics that no run yields
        check_metrics(study, problems)
    if study and is_whole and space:
        check_sampler(study, space, problems)
    problems.raise_if_any()
    assert study and base and space, "a study file without problems has all of its parts"
    return StudyFile(study, base, large, document, space, plugin=plugin, notes=tuple(adapted_notes(space)))


def build_space(
    file: StudyFile, *, classes: int, channels: int, data: str | None = None, train_images: int | None = None
) -> Space:
    """The search space for a data set with these numbers of classes and channels, and this digest of its content.

    `train_images` is the number of its training images. Raises `StudyError` for an axis of the recipe that needs more
    of them, and if no configuration is within rules and budgets.
    """
    base, *others = (
        spec.replace(classes=classes, in_channels=channels) for spec in (file.base, *file._space.bases.values())
    )
    bases = dict(zip(file._space.bases, others, strict=True))
    space = replace(file._space, base=base, bases=bases, data=data, train_images=train_images)
    if space.has_recipe_axes:
        problems = FileErrors(file.document)
        try_values(space, file.study, problems, only_recipe=True)
        problems.raise_if_any()
    require_feasible(space, file.document)
    require_dense(file.study, space, file.document)
    return space


def recipe_of_most_images(file: StudyFile) -> ProxyRecipe:
    """The proxy with the largest number of training images of any configuration, to check the data set with."""
    axis = file._space.axes.get("recipe.train_size")
    if axis is None:
        return file.study.proxy
    sizes = [axis.high] if isinstance(axis, Range) else axis.values
    largest = None if None in sizes else max(int(size) for size in sizes if isinstance(size, int | float))
    return file.study.proxy.model_copy(update={"train_size": largest})


def full_scale_network(file: StudyFile, choices: Mapping[str, Any]) -> NetworkSpec | None:
    """The network of a study's `full_scale.base` with these choices; None if the study has no `full_scale`.

    Choices on axes of the recipe are the proxy's, and do not enter the recipe at full scale.
    Raises `SpecError`, with the file's line, if the choices do not fit the base.
    """
    large = file.full_scale_base
    if large is None:
        return None
    kept = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in choices.items()
        if name != BASE and not is_recipe_axis(name)
    }
    if not kept and not file._space.derived:
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


def _with_plugin(study: Study, problems: FileErrors) -> tuple[Study, SamplerPlugin | None]:
    """The study with the digest of its plug-in sampler, and the plug-in; problems of it are reported."""
    search, at = study.search, ("search", "sampler_digest")
    if ":" not in search.sampler:
        if search.sampler_digest is not None:
            rule = f"`search.sampler_digest` must be left out for the sampler {search.sampler}"
            problems.add(at, rule, value=quoted(search.sampler_digest), remedy="Only a sampler of your own has one.")
        return study, None
    try:
        plugin = find_plugin(search.sampler, problems.document.path.parent)
    except StudyError as error:
        problems.add_error(("search", "sampler"), error)
        return study, None
    if search.sampler_digest not in (None, plugin.digest):
        rule = f"`search.sampler_digest` must be that of the code of `{plugin.text}`, which is {plugin.digest}"
        remedy = "Bring the code back that the digest is of, or leave the digest out."
        problems.add(at, rule, value=quoted(search.sampler_digest), remedy=remedy)
    search = search.model_copy(update={"sampler_digest": plugin.digest})
    return study.model_copy(update={"search": search}), plugin


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
