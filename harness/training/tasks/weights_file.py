"""Files of networks with what says something of every part of an image: weights that know what they are of.

Safetensors; in the metadata the network, the recipe, the classes, the form and the origin.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from harness import __version__
from harness.config.recipes.full_scale import FullScaleRecipe
from harness.config.recipes.loading import recipe_class
from harness.errors import SpecError, WeightsError
from harness.models.finite import count_nonfinite, nonfinite_entries
from harness.models.spec.network import NetworkSpec
from harness.models.weights.digest import DIGEST, content_digest
from harness.models.weights.files import Entries, read_file, write_file

KEYS = ("spec", "recipe", "classes", "form")


class DenseWeights(NamedTuple):
    """The weights of a network with a head, and what they are of."""

    spec: NetworkSpec
    recipe: FullScaleRecipe
    names: tuple[str, ...]
    """Of the classes."""
    is_merged: bool
    entries: Entries


def save_dense(
    output: Path,
    model: nn.Module,
    *,
    spec: NetworkSpec,
    recipe: FullScaleRecipe,
    names: tuple[str, ...],
    source: str,
    is_merged: bool = False,
) -> None:
    """Keep a model's weights; `source` says what they come from."""
    entries = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {
        "format": "pt",
        "harness": __version__,
        "spec": json.dumps(spec.canonical()),
        "recipe": recipe.model_dump_json(),
        "classes": json.dumps(names),
        "form": "merged" if is_merged else "training",
        "source": source,
        DIGEST: content_digest(entries),
    }
    write_file(output, lambda partial: save_file(entries, partial, metadata))


def is_dense(path: Path) -> bool:
    """Whether a file holds what `save_dense` writes, and not a network alone."""
    return set(KEYS) <= set(read_file(path)[1])


def read_dense(path: Path) -> DenseWeights:
    """The weights in a file. Raises `WeightsError` for a file that is something else, or of another version."""
    entries, metadata = read_file(path)
    missing = [key for key in KEYS if key not in metadata]
    if missing:
        raise WeightsError(
            f"The file must be one that `harness downstream` has written; it does not tell {', '.join(missing)}",
            place=str(path),
            remedy="A network's weights alone are given by `--weights`, to be trained.",
        )
    counts = nonfinite_entries(entries)
    if counts:
        rule = f"Weights must be finite numbers; {count_nonfinite(counts)}"
        raise WeightsError(rule, place=str(path), remedy="Take those of an earlier epoch, or train again.")
    try:
        recipe: dict[str, Any] = json.loads(metadata["recipe"])
        return DenseWeights(
            NetworkSpec.from_mapping(json.loads(metadata["spec"])),
            recipe_class(recipe).model_validate(recipe),
            tuple(json.loads(metadata["classes"])),
            metadata["form"] == "merged",
            entries,
        )
    except (ValueError, TypeError, AttributeError, SpecError, ValidationError) as error:
        made = metadata.get("harness", "another version")
        raise WeightsError(
            f"What the file says of itself must be readable to this version: {error}",
            place=str(path),
            remedy=f"It was made by harness {made}, and this is {__version__}.",
        ) from error
