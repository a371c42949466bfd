"""Runs that take a second: a network of a few thousand parameters on a few images of `shapes`."""

from typing import Any

from harness.config.recipes.proxy import ProxyRecipe
from harness.models.spec.network import NetworkSpec
from harness.training.run import Run

RECIPE = ProxyRecipe(train_size=64, val_size=32, resolution=16, epochs=3, batch_size=16)


def tiny_spec(**fields: Any) -> NetworkSpec:
    return NetworkSpec.from_mapping(
        {"B": 1, "C": [4, 4, 8, 8], "K": 3, "stem_stride": 2, "in_channels": 1, "classes": 8} | fields
    )


def tiny_run(*, seed: int = 0, recipe: ProxyRecipe = RECIPE, **fields: Any) -> Run:
    return Run(tiny_spec(**fields), recipe, seed)


def with_(recipe: ProxyRecipe = RECIPE, **changes: Any) -> ProxyRecipe:
    """The recipe with some keys changed, nested ones as mappings; checked like a new one."""
    return ProxyRecipe.model_validate(recipe.model_dump(mode="json") | changes)
