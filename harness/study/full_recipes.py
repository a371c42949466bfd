"""The recipes for training at full scale: those that come with the harness, by name, and files of one's own."""

from pathlib import Path

from pydantic import ValidationError

import harness
from harness.errors import StudyError, did_you_mean
from harness.full_recipe import FullRecipe
from harness.study.problems import Problems
from harness.study.source import read_document

FOLDER = Path(harness.__file__).parent / "recipes"


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with the harness."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def recipe_file(named: str) -> Path:
    """Where a recipe stands that is given by its name or the path of its file. Raises `StudyError` for neither."""
    if Path(named).suffix in (".yaml", ".yml"):
        return Path(named)
    if named not in recipe_names():
        raise StudyError(
            "the recipe must be one that comes with the harness or the path of a file (.yaml)",
            value=named,
            remedy=did_you_mean(named, recipe_names(), "Recipes"),
        )
    return FOLDER / f"{named}.yaml"


def load_full_recipe(named: str) -> FullRecipe:
    """The recipe of that name or in that file. Raises `StudyError` with the lines of what is wrong."""
    document = read_document(recipe_file(named))
    problems = Problems(document, "a recipe")
    try:
        return FullRecipe.model_validate(document.data)
    except ValidationError as error:
        problems.add_invalid(error, FullRecipe)
    problems.raise_if_any()
    raise AssertionError("what pydantic refuses leaves a problem")
