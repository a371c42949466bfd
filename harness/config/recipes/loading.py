"""Loading of the recipes for training at full scale: those that come with the harness, by name, and other files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.config.problems import FileErrors
from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.full_scale import ClassificationRecipe, FullScaleRecipe
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.config.yaml_file import Document, read_document
from harness.errors import StudyError, UserError, did_you_mean

RECIPES_FOLDER = Path(__file__).parent / "library"
DOWNSTREAM = "downstream"
"""Subfolder of the recipes that train a network on another task."""
CLASSIFICATION = "classification"
"""The task of a recipe without a key `task`."""
RECIPE_CLASSES: dict[str, type[FullScaleRecipe]] = {
    CLASSIFICATION: ClassificationRecipe,
    "segmentation": SegmentationRecipe,
    "detection": DetectionRecipe,
}
"""The class of a recipe, by its key `task`."""

R = TypeVar("R", bound=FullScaleRecipe)


def recipe_names(task: str | None = CLASSIFICATION) -> tuple[str, ...]:
    """Names of the recipes for a task that come with the harness; of all tasks for None."""
    names = sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml")) if task in (None, CLASSIFICATION) else []
    if task != CLASSIFICATION:
        tasks = {path.stem: task_of(read_document(path)) for path in RECIPES_FOLDER.joinpath(DOWNSTREAM).glob("*.yaml")}
        names += sorted(name for name, recipe_task in tasks.items() if task in (None, recipe_task))
    return tuple(names)


def recipe_file(named: str, task: str | None = None) -> Path:
    """The file of a recipe, from its name or its path. Raises `StudyError` for an unknown name.

    The task, if given, only selects the names that the error lists.
    """
    if Path(named).suffix in (".yaml", ".yml"):
        return Path(named)
    for path in (RECIPES_FOLDER / f"{named}.yaml", RECIPES_FOLDER / DOWNSTREAM / f"{named}.yaml"):
        if named and Path(named).name == named and path.is_file():
            return path
    names = recipe_names(task)
    rule = "the recipe must be one that comes with the harness or the path of a file (.yaml)"
    raise StudyError(rule, value=named, remedy=did_you_mean(named, names, "Recipes"))


def load_classification_recipe(named: str) -> ClassificationRecipe:
    """The classifier's recipe of that name or in that file. Raises `StudyError` with the line of each fault."""
    return load_task_recipe(named, CLASSIFICATION, ClassificationRecipe)


def load_task_recipe(named: str, task: str, recipe_class: type[R]) -> R:
    """The recipe for a task. Raises `StudyError` with the line of each fault, or if it is for another task."""
    document = read_document(recipe_file(named, task))
    recipe_task = task_of(document)
    if recipe_task != task and recipe_task in RECIPE_CLASSES:
        rule = f"the recipe must be for {task}"
        remedy = f"Recipes for {task}: {', '.join(recipe_names(task))}."
        raise StudyError(rule, value=recipe_task, place=document.place(("task",)), remedy=remedy)
    return _validated(document, recipe_class)


def override_recipe(recipe: R, changes: Mapping[str, Any], place: str, *, kind: str = "recipe") -> R:
    """The recipe with other values of some keys; None keeps the recipe's own.

    Raises `UserError` if that leaves no valid recipe; `kind` names it, and `place` is where the recipe comes from.
    """
    values = recipe.model_dump(mode="json") | {name: value for name, value in changes.items() if value is not None}
    try:
        return type(recipe).model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        fault = first["msg"].removeprefix("Value error, ")
        rule = f"the options must leave a valid {kind}; {fault[:1].lower()}{fault[1:]}"
        raise UserError(rule, place=".".join(map(str, first["loc"])) or place) from error


def load_any_recipe(named: str) -> FullScaleRecipe:
    """The recipe of that name or in that file, for any task. Raises `StudyError` with the line of each fault."""
    document = read_document(recipe_file(named))
    return _validated(document, recipe_class(document.data))


def recipe_class(values: Mapping[str, Any]) -> type[FullScaleRecipe]:
    """The class of a recipe, from its plain values; a classifier's for an unknown task."""
    return RECIPE_CLASSES.get(str(values.get("task", CLASSIFICATION)), ClassificationRecipe)


def task_of(document: Document) -> str:
    """The task of a recipe."""
    return str(document.data.get("task", CLASSIFICATION))


def _validated(document: Document, recipe_class: type[R]) -> R:
    problems = FileErrors(document, "a recipe")
    try:
        return recipe_class.model_validate(document.data)
    except ValidationError as error:
        problems.add_invalid(error, recipe_class)
    problems.raise_if_any()
    raise AssertionError("pydantic's errors are reported as problems")
