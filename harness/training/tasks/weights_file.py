"""Weights files: initial weights of a training, and weights of networks with dense-prediction heads.

The latter are safetensors files, with network, recipe, classes, form and origin in the metadata.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from torch import nn

from harness import __version__
from harness.config.recipes.full_scale import FullScaleRecipe
from harness.config.recipes.loading import recipe_class
from harness.errors import SpecError, UserError, WeightsError
from harness.models.finite import count_nonfinite, nonfinite_entries
from harness.models.spec.network import NetworkSpec
from harness.models.weights import Weights, entries_of, read_weights, write_entries
from harness.models.weights.files import Entries, read_file

KEYS = ("spec", "recipe", "classes", "form")


def load_training_weights(path: Path, spec: NetworkSpec | None = None, *, place: str = "--weights") -> Weights:
    """Load the weights of a file, which must be in training form: merged weights cannot be trained well.

    Raises `UserError`; `place` is the command line option that names the file.
    """
    weights = read_weights(path, spec)
    if weights.is_merged:
        rule = "the weights must be in training form, whose batch norms and small kernels can be trained"
        remedy = "Use the un-merged weights that these were merged from; merging comes last."
        raise UserError(rule, value=str(path), place=place, remedy=remedy)
    return weights


class DenseWeights(NamedTuple):
    """Weights of a network with a head, with its spec, recipe, classes and form."""

    spec: NetworkSpec
    recipe: FullScaleRecipe
    names: tuple[str, ...]
    """Names of the classes."""
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
    """Write a model's weights to a file; `source` describes their origin."""
    metadata = {"recipe": recipe.model_dump_json(), "classes": json.dumps(names), "source": source}
    write_entries(output, entries_of(model), spec, "merged" if is_merged else "training", metadata)


def read_dense(path: Path) -> DenseWeights:
    """Read the weights of a file. Raises `WeightsError` if `save_dense` did not write it, or in another version."""
    entries, metadata = read_file(path)
    missing = [key for key in KEYS if key not in metadata]
    if missing:
        raise WeightsError(
            f"The file must be one that `harness downstream` has written; it does not contain {', '.join(missing)}",
            place=str(path),
            remedy="To train a network's weights with a head, name them with `--weights`.",
        )
    counts = nonfinite_entries(entries)
    if counts:
        rule = f"Weights must be finite numbers; {count_nonfinite(counts)}"
        raise WeightsError(rule, place=str(path), remedy="Use those of an earlier epoch, or train again.")
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
        rule = f"This version must be able to read the file's metadata: {error}"
        remedy = f"It was written by harness {made}, and this is {__version__}."
        raise WeightsError(rule, place=str(path), remedy=remedy) from error
