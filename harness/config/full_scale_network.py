"""Which network is trained: what a study has found, put on the network that its `full_scale.base` names."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.config.axes import BASE
from harness.config.recipes.full_scale import ClassificationRecipe
from harness.config.space import Space
from harness.config.study_file import StudyFile, build_space
from harness.errors import SpecError
from harness.models.spec.network import NetworkSpec

RGB_CHANNELS = 3
"""Of the images at full scale, which are all in colour."""


def with_base(space: Space, large: NetworkSpec) -> Space:
    """The axes of a space on another base. Conditions, rules and budgets are the proxy's, and fall away.

    So does the axis `base`: it chooses among networks of the proxy's size.
    """
    axes = {name: axis for name, axis in space.axes.items() if name != BASE}
    return replace(space, base=large, bases={}, axes=axes, when={}, rules=(), budgets={})


def full_scale_network(file: StudyFile, choices: Mapping[str, Any]) -> NetworkSpec | None:
    """The network of a study's `full_scale.base` with these choices; None where the study names no base.

    Raises `SpecError`, naming the file's line, where the choices do not fit it.
    """
    large = file.full_scale_base
    if large is None:
        return None
    kept = {name: tuple(value) if isinstance(value, list) else value for name, value in choices.items() if name != BASE}
    if not kept:
        return large
    space = build_space(file, classes=file.base.classes, channels=file.base.in_channels)
    try:
        return with_base(space, large).network(kept)
    except SpecError as error:
        error.place = error.place or file.place(("full_scale", "base"))
        raise


def adapt_to_data(spec: NetworkSpec, recipe: ClassificationRecipe, classes: int) -> NetworkSpec:
    """The network as it is trained: with the classes of the images, in colour, and the recipe's stochastic depth."""
    drop_path = spec.drop_path if recipe.drop_path is None else recipe.drop_path
    return spec.replace(classes=classes, in_channels=RGB_CHANNELS, drop_path=drop_path)
