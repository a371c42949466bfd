"""The study file as a whole: read, checked to the last value, and kept with its lines."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.config.claim_arms import check_claims
from harness.config.network_file import resolve, resolve_bases
from harness.config.problems import Problems
from harness.config.quick import quick_profile
from harness.config.recipes.loading import recipe_names
from harness.config.space import Space, plain_fields
from harness.config.space_checks import read_space, require_feasible
from harness.config.study import Study
from harness.config.study_checks import check_requests
from harness.config.yaml_file import Document, KeyPath, read_document, shown, write_yaml
from harness.errors import StudyError, did_you_mean
from harness.models.spec.network import NetworkSpec


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A sound study file."""

    study: Study
    base: NetworkSpec
    """The network that `base` means, or the first on the axis of that name; with its own classes and channels."""
    full_scale_base: NetworkSpec | None
    document: Document
    _space: Space = field(repr=False)
    notes: tuple[str, ...] = ()
    """What a quick profile changes besides what it says, to fit that."""

    @property
    def path(self) -> Path:
        """The path as it was given."""
        return self.document.path

    @property
    def text(self) -> str:
        """The file as it was read, comments included."""
        return self.document.text

    def place(self, at: KeyPath = ()) -> str:
        """Where a key stands, as `search_spaces/smoke.yaml:14`: `place(("proxy", "dataset"))`."""
        return self.document.place(at)


def load_study(path: Path, *, is_quick: bool = False) -> StudyFile:
    """Read and check a study file and its quick profile; gives the one that is asked for.

    Raises `StudyError` with every problem and its line.
    """
    written = read_document(path)
    if is_quick:
        profile, notes = quick_profile(written)
        return replace(_checked(profile), notes=notes)
    file = _checked(written)
    if file.study.quick is not None:
        _check_quick(written)
    return file


def _check_quick(written: Document) -> None:
    """Raise `StudyError` for a quick profile that `--quick` would refuse."""
    try:
        _checked(quick_profile(written)[0])
    except StudyError as error:
        for problem in error.problems:
            problem.rule = f"In the profile `quick`: {problem.rule}"
        raise


def _checked(document: Document) -> StudyFile:
    """The study that a document describes. Raises `StudyError` with every problem and its line."""
    problems = Problems(document)
    study = _study(document.data, problems)
    study = _with_root(study, document.path) if study else None
    is_whole = not problems.found
    base, bases = resolve_bases(study, problems) if study else (None, {})
    large = resolve(study.full_scale.base, ("full_scale", "base"), problems) if study and study.full_scale else None
    if study and study.full_scale:
        _check_full_recipe(study.full_scale.recipe, problems)
    space = read_space(study, base, bases, problems) if study and base else None
    if study and space:
        check_claims(study, space, problems)
    if study and is_whole:  # without the keys at fault, others might seem to ask for what is not there
        check_requests(study, problems)
    problems.raise_if_any()
    assert study and base and space, "a study file without problems has all of its parts"
    return StudyFile(study, base, large, document, space)


def build_space(file: StudyFile, *, classes: int, channels: int, data: str | None = None) -> Space:
    """The search space on a data set with these classes and image channels, and with that digest of its content.

    Raises `StudyError` where no configuration is within rules and budgets.
    """
    base, *others = (
        each.replace(classes=classes, in_channels=channels) for each in (file.base, *file._space.bases.values())
    )
    space = replace(file._space, base=base, bases=dict(zip(file._space.bases, others, strict=True)), data=data)
    require_feasible(space, file.document)
    return space


def resolved_yaml(file: StudyFile) -> str:
    """The study with every default written out and its networks in place of their names; itself a study file."""
    values = file.study.model_dump(mode="json")
    values["bases"] = {name: plain_fields(base) for name, base in file._space.bases.items()}
    if not values["bases"]:
        values["base"] = plain_fields(file.base)
    if file.full_scale_base is not None:
        values["full_scale"]["base"] = plain_fields(file.full_scale_base)
    return write_yaml(values, f"Resolved from {file.path.name}: every key, those at their default included.")


def _with_root(study: Study, path: Path) -> Study:
    """The study with an absolute `proxy.root`, which is relative to the study's file as all paths in it are."""
    if study.proxy.root is None:
        return study
    root = path.absolute().parent / Path(study.proxy.root).expanduser()
    return study.model_copy(update={"proxy": study.proxy.model_copy(update={"root": os.path.normpath(root)})})


def _check_full_recipe(named: str | None, problems: Problems) -> None:
    if named is not None and named not in recipe_names():
        rule = "`full_scale.recipe` must be a recipe that comes with the harness"
        remedy = did_you_mean(named, recipe_names(), "Recipes")
        problems.add(("full_scale", "recipe"), rule, value=shown(named), remedy=remedy)


def _study(data: Mapping[str, Any], problems: Problems) -> Study | None:
    """The study, or what is left of it without the keys at fault, so that the other keys are checked all the same."""
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        faulty = problems.add_invalid(error, Study)
    try:
        return Study.model_validate({"study": "unnamed"} | _sound_part(data, faulty))
    except ValidationError:
        return None


def _sound_part(data: Mapping[str, Any], faulty: set[KeyPath]) -> dict[str, Any]:
    """The file without the keys at fault; of the axes and their conditions only those at fault are left out."""
    dropped = {at[1] for at in faulty if at[0:1] in (("axes",), ("when",)) and len(at) > 1}
    whole = {at[0] for at in faulty if at and not (at[0] in ("axes", "when") and len(at) > 1)}
    rest = {key: value for key, value in data.items() if key not in whole}
    for key in {"axes", "when"} & rest.keys():
        rest[key] = {name: value for name, value in rest[key].items() if name not in dropped}
    if "search" in whole:
        rest["search"] = {"sampler": "random", "trials": 1}  # without a claim about the size of the space
    return rest
