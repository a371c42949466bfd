"""The recipes for training at full scale: those that come with the harness, by name, and files of one's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from harness.config.problems import Problems
from harness.config.recipes.detection import DetectionRecipe
from harness.config.recipes.full_scale import FullRecipe, FullTraining
from harness.config.recipes.segmentation import SegmentationRecipe
from harness.config.yaml_file import Document, read_document
from harness.errors import StudyError, did_you_mean

FOLDER = Path(__file__).parent / "library"
DOWNSTREAM = "downstream"
"""Folder, in that one, of the recipes that train a network further on another task."""
CLASSIFICATION = "classification"
"""The task of a recipe that names none."""
KINDS: dict[str, type[FullTraining]] = {
    CLASSIFICATION: FullRecipe,
    "segmentation": SegmentationRecipe,
    "detection": DetectionRecipe,
}
"""What a recipe's file is read as, by its key `task`."""

R = TypeVar("R", bound=FullTraining)


def recipe_names(task: str | None = CLASSIFICATION) -> tuple[str, ...]:
    """The recipes for a task that come with the harness; for None those for all tasks."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml")) if task in (None, CLASSIFICATION) else []
    if task != CLASSIFICATION:
        found = {path.stem: task_of(read_document(path)) for path in FOLDER.joinpath(DOWNSTREAM).glob("*.yaml")}
        names += sorted(name for name, own in found.items() if task in (None, own))
    return tuple(names)


def recipe_file(named: str, task: str | None = None) -> Path:
    """Where a recipe stands that is given by its name or the path of its file. Raises `StudyError` for neither.

    The task, if there is one, only decides which names the error lists.
    """
    if Path(named).suffix in (".yaml", ".yml"):
        return Path(named)
    for path in (FOLDER / f"{named}.yaml", FOLDER / DOWNSTREAM / f"{named}.yaml"):
        if named and Path(named).name == named and path.is_file():
            return path
    names = recipe_names(task)
    raise StudyError(
        "the recipe must be one that comes with the harness or the path of a file (.yaml)",
        value=named,
        remedy=did_you_mean(named, names, "Recipes"),
    )


def load_full_recipe(named: str) -> FullRecipe:
    """The classifier's recipe of that name or in that file. Raises `StudyError` with the lines of what is wrong."""
    return load_recipe_of(named, CLASSIFICATION, FullRecipe)


def load_recipe_of(named: str, task: str, kind: type[R]) -> R:
    """The recipe for a task. Raises `StudyError` with the lines of what is wrong, or where it is for another task."""
    document = read_document(recipe_file(named, task))
    found = task_of(document)
    if found != task and found in KINDS:
        raise StudyError(
            f"the recipe must be for {task}",
            value=found,
            place=document.place(("task",)),
            remedy=f"Recipes for {task}: {', '.join(recipe_names(task))}.",
        )
    return _validated(document, kind)


def load_any_recipe(named: str) -> FullTraining:
    """The recipe of that name or in that file, for whatever task. Raises `StudyError` with what is wrong."""
    document = read_document(recipe_file(named))
    return _validated(document, recipe_kind(document.data))


def recipe_kind(values: Mapping[str, Any]) -> type[FullTraining]:
    """What a recipe's plain values are read as; for a task that nobody knows, a classifier's."""
    return KINDS.get(str(values.get("task", CLASSIFICATION)), FullRecipe)


def task_of(document: Document) -> str:
    """What a recipe is for."""
    return str(document.data.get("task", CLASSIFICATION))


def _validated(document: Document, kind: type[R]) -> R:
    problems = Problems(document, "a recipe")
    try:
        return kind.model_validate(document.data)
    except ValidationError as error:
        problems.add_invalid(error, kind)
    problems.raise_if_any()
    raise AssertionError("what pydantic refuses leaves a problem")
