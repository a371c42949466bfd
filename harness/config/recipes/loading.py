"""The recipes for training at full scale: those that come with the harness, by name, and files of one's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.config.problems import FileErrors
from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.full_scale import ClassificationRecipe, FullScaleRecipe
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.config.yaml_file import Document, read_document
from harness.errors import StudyError, did_you_mean

RECIPES_FOLDER = Path(__file__).parent / "library"
DOWNSTREAM = "downstream"
"""Folder, in that one, of the recipes that train a network further on another task."""
CLASSIFICATION = "classification"
"""The task of a recipe that names none."""
RECIPE_CLASSES: dict[str, type[FullScaleRecipe]] = {
    CLASSIFICATION: ClassificationRecipe,
    "segmentation": SegmentationRecipe,
    "detection": DetectionRecipe,
}
"""What a recipe's file is read as, by its key `task`."""

R = TypeVar("R", bound=FullScaleRecipe)


def recipe_names(task: str | None = CLASSIFICATION) -> tuple[str, ...]:
    """The recipes for a task that come with the harness; for None those for all tasks."""
    names = sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml")) if task in (None, CLASSIFICATION) else []
    if task != CLASSIFICATION:
        found = {path.stem: task_of(read_document(path)) for path in RECIPES_FOLDER.joinpath(DOWNSTREAM).glob("*.yaml")}
        names += sorted(name for name, own in found.items() if task in (None, own))
    return tuple(names)


def recipe_file(named: str, task: str | None = None) -> Path:
    """Where a recipe stands that is given by its name or the path of its file. Raises `StudyError` for neither.

    The task, if there is one, only decides which names the error lists.
    """
    if Path(named).suffix in (".yaml", ".yml"):
        return Path(named)
    for path in (RECIPES_FOLDER / f"{named}.yaml", RECIPES_FOLDER / DOWNSTREAM / f"{named}.yaml"):
        if named and Path(named).name == named and path.is_file():
            return path
    names = recipe_names(task)
    raise StudyError(
        "the recipe must be one that comes with the harness or the path of a file (.yaml)",
        value=named,
        remedy=did_you_mean(named, names, "Recipes"),
    )


def load_classification_recipe(named: str) -> ClassificationRecipe:
    """The classifier's recipe of that name or in that file. Raises `StudyError` with the lines of what is wrong."""
    return load_task_recipe(named, CLASSIFICATION, ClassificationRecipe)


def load_task_recipe(named: str, task: str, recipe_class: type[R]) -> R:
    """The recipe for a task. Raises `StudyError` with the lines of what is wrong, or where it is for another task."""
    document = read_document(recipe_file(named, task))
    found = task_of(document)
    if found != task and found in RECIPE_CLASSES:
        raise StudyError(
            f"the recipe must be for {task}",
            value=found,
            place=document.place(("task",)),
            remedy=f"Recipes for {task}: {', '.join(recipe_names(task))}.",
        )
    return _validated(document, recipe_class)


def load_any_recipe(named: str) -> FullScaleRecipe:
    """The recipe of that name or in that file, for whatever task. Raises `StudyError` with what is wrong."""
    document = read_document(recipe_file(named))
    return _validated(document, recipe_class(document.data))


def recipe_class(values: Mapping[str, Any]) -> type[FullScaleRecipe]:
    """What a recipe's plain values are read as; for a task that nobody knows, a classifier's."""
    return RECIPE_CLASSES.get(str(values.get("task", CLASSIFICATION)), ClassificationRecipe)


def task_of(document: Document) -> str:
    """What a recipe is for."""
    return str(document.data.get("task", CLASSIFICATION))


def _validated(document: Document, recipe_class: type[R]) -> R:
    problems = FileErrors(document, "a recipe")
    try:
        return recipe_class.model_validate(document.data)
    except ValidationError as error:
        problems.add_invalid(error, recipe_class)
    problems.raise_if_any()
    raise AssertionError("what pydantic refuses leaves a problem")
