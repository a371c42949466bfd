"""The network of a full-scale training: the choices of a study, applied to the network of its `full_scale.base`."""

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
"""Channels of the images at full scale, which are all in color."""


def with_base(space: Space, large: NetworkSpec) -> Space:
    """The axes of a space on another base, without its conditions, rules and budgets, which are the proxy's.

    The axis `base` is left out, too: it chooses among networks of the proxy's size.
    """
    axes = {name: axis for name, axis in space.axes.items() if name != BASE}
    return replace(space, base=large, bases={}, axes=axes, when={}, rules=(), budgets={})


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
        return with_base(space, large).network(kept)
    except SpecError as error:
        error.place = error.place or file.place(("full_scale", "base"))
        raise


def adapt_to_data(spec: NetworkSpec, recipe: ClassificationRecipe, classes: int) -> NetworkSpec:
    """The network as it is trained: with the data set's classes, color images, and the recipe's stochastic depth."""
    drop_path = spec.drop_path if recipe.drop_path is None else recipe.drop_path
    return spec.replace(classes=classes, in_channels=RGB_CHANNELS, drop_path=drop_path)
