"""Axes that set a key of the proxy: `recipe.optimizer.lr`, `recipe.epochs`, `recipe.augmentation.mixup`.

The recipe of a configuration is the study's proxy with its choices. A value of the proxy that does not fit a chosen one
is adapted to it, as in a quick profile: a warm-up that would last to the end, a batch that is larger than an epoch.
What all configurations must have in common to be compared is no axis: their validation images, metrics and environment.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.config.problems import invalid_value, models_in
from harness.config.quick_profile import DEPENDENT_VALUES, FittedValue, fit_dependent_values, merged, nested
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.yaml_file import KeyPath, dotted, quoted
from harness.errors import StudyError, did_you_mean

PREFIX = "recipe."
"""First part of the names of these axes, and of the proxy's keys in conditions and rules."""
CURVE_KEYS = ("recipe.epochs", "recipe.train_size")
"""Axes with which equal epochs of two learning curves are of unequal computing."""
UNTRAINED_KEYS = ("recipe.channels_last", "recipe.resolution")
"""Axes that change something in a network that is not trained."""

_SAME_IMAGES = "configurations are compared on the same validation images"
_SAME_METRICS = "all runs of a study must yield the same metrics"
_SAME_ENVIRONMENT = "it is part of the environment of a run, and times of two environments are not compared"
FIXED_KEYS: dict[str, str] = {
    **dict.fromkeys(("dataset", "root", "rendering", "difficulty", "data_seed", "resample"), _SAME_IMAGES),
    **dict.fromkeys(("val_size", "final_val_size"), _SAME_IMAGES),
    **dict.fromkeys(("measures", "transfer", "transfer.head"), _SAME_METRICS),
    "precision": _SAME_ENVIRONMENT,
}
"""Keys of the proxy that cannot be axes, with the reason."""


def _leaves(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The dotted keys of a model that hold values, each with the model that defines it."""
    for name, field in model.model_fields.items():
        section = next(models_in(field.annotation), None)
        if section is None:
            yield f"{above}{name}", model
        else:
            yield from _leaves(section, f"{above}{name}.")


KEY_MODELS = dict(_leaves(ProxyRecipe))
"""The model that defines each key of the proxy, by dotted key."""
RECIPE_NAMES = tuple(f"{PREFIX}{key}" for key in KEY_MODELS)
"""The keys of the proxy under their names in conditions and rules."""
RECIPE_AXES = tuple(f"{PREFIX}{key}" for key in KEY_MODELS if key not in FIXED_KEYS)
"""The names of all axes that set a key of the proxy."""


def is_recipe_axis(name: str) -> bool:
    """Whether an axis sets a key of the proxy, and not a field of the network."""
    return name.startswith(PREFIX)


def require_recipe_axis(name: str) -> None:
    """Raise `StudyError` for a key of the proxy that cannot be an axis, or that does not exist."""
    if name in RECIPE_AXES:
        return
    key = name.removeprefix(PREFIX)
    if key in FIXED_KEYS:
        remedy = "Write a study for each value." if key != "transfer" else "Take a key of it, as `recipe.transfer.lr`."
        raise StudyError(f"`{name}` cannot be an axis: {FIXED_KEYS[key]}", remedy=remedy)
    if section := [axis for axis in RECIPE_AXES if axis.startswith(f"{name}.")]:
        rule = f"`{name}` must be one key of the proxy, and not a section"
        raise StudyError(rule, remedy=f"Keys: {', '.join(section)}.")
    raise StudyError(f"`{name:.60}` must be a key of the proxy", remedy=did_you_mean(name, RECIPE_AXES, "Keys"))


def flat_recipe(values: Mapping[str, Any], above: str = PREFIX) -> dict[str, Any]:
    """The values of a recipe, as `model_dump` returns them, by their names in conditions and rules."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flat_recipe(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def chosen_recipe(recipe: ProxyRecipe, params: Mapping[str, Any]) -> tuple[dict[str, Any], list[FittedValue]]:
    """The values of the proxy with the choices on its axes, unchecked; and those that were adapted to them."""
    before = {"proxy": recipe.model_dump(mode="json")}
    choices = {name.removeprefix(PREFIX): value for name, value in params.items() if is_recipe_axis(name)}
    changes = {"proxy": nested(choices)}
    data = merged(before, changes)
    adapted = fit_dependent_values(data, before, changes)
    return data["proxy"], adapted


def checked_recipe(values: Mapping[str, Any], proxy: ProxyRecipe, train_images: int | None) -> ProxyRecipe:
    """The recipe with these values, which follow from a study's proxy.

    `train_images` is the number of training images of the data set, if it is known. Raises `StudyError` for values with
    which no run can be trained.
    """
    try:
        recipe = ProxyRecipe.model_validate(values)
    except ValidationError as error:
        raise invalid_value(error, PREFIX) from error
    if proxy.epochs and not recipe.epochs:
        rule = "`recipe.epochs` must be at least 1, since untrained networks have other metrics"
        raise StudyError(rule, value=0, remedy="Measure untrained networks in a study of their own.")
    _require_images(recipe, train_images)
    return recipe


def _require_images(recipe: ProxyRecipe, train_images: int | None) -> None:
    """Raise `StudyError` if the recipe needs more training images than there are."""
    size = recipe.train_size or train_images
    if size is None:
        return
    if train_images is not None and recipe.dataset != "shapes" and size > train_images:
        rule = f"`recipe.train_size` must be at most the {train_images:,} training images of the data set"
        raise StudyError(rule, value=size)
    batches = [("batch_size", recipe.batch_size)] if recipe.epochs else []
    batches += [("transfer.batch_size", recipe.transfer.batch_size)] if recipe.transfer else []
    for key, batch in batches:
        if batch > size:
            raise StudyError(f"`{PREFIX}{key}` must be at most the {size:,} training images", value=batch)


def recipe_changes(recipe: ProxyRecipe, proxy: ProxyRecipe) -> dict[str, Any]:
    """The values of a configuration's recipe that are not those of the study's proxy, by name."""
    before, now = (flat_recipe(each.model_dump(mode="json")) for each in (proxy, recipe))
    return {name: value for name, value in now.items() if before.get(name) != value}


def with_changes(proxy: ProxyRecipe, changes: Mapping[str, Any]) -> ProxyRecipe:
    """The inverse of `recipe_changes`: nothing is adapted."""
    values = nested({name.removeprefix(PREFIX): value for name, value in changes.items()})
    return ProxyRecipe.model_validate(merged(proxy.model_dump(mode="json"), values))


def adapted_text(name: str, value: Any, adapted: FittedValue) -> str:
    """A note on a value that was adapted to a choice."""
    key = dotted(adapted.key)
    now, before = (quoted(number, is_quoted=False) for number in (adapted.fitted, adapted.value))
    return f"where `{name}` is {quoted(value, is_quoted=False)}, `{key}` is {now} in place of {before}, to fit it"


def names_behind(name: str) -> set[str]:
    """The axes of the proxy whose choices may change this value of it, other than its own: those it is adapted to."""
    paths = ((fit.key, fit.changed) for fit in DEPENDENT_VALUES if fit.key[0] == fit.changed[0] == "proxy")
    return {recipe_name(changed) for key, changed in paths if recipe_name(key) == name}


def recipe_name(path: KeyPath) -> str:
    """The name of a key of the proxy in conditions, from its path in the file."""
    return PREFIX + ".".join(map(str, path[1:]))
