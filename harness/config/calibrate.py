"""The key `calibrate` of a study file: changes of the proxy that `harness calibrate` compares.

A change sets keys of the proxy by their dotted names (`optimizer.lr`), and may scale the networks' channels by `width`:
the network is a part of the proxy, since the question is about kernels, and not about one width.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from harness.config.quick_profile import fit_dependent_values, merged, nested
from harness.config.recipes.proxy import ProxyRecipe, StrictModel
from harness.config.yaml_file import Document, KeyPath
from harness.errors import SpecError
from harness.models.spec.network import NetworkSpec

WIDTH = "width"
"""Key of a change that is not one of the proxy: a factor on the channels `C` of every network."""
CHANNELS_MULTIPLE = 4
"""Scaled channels are rounded to a multiple of this."""
AT: KeyPath = ("calibrate",)


class Calibrate(StrictModel):
    """What `harness calibrate` varies around the file's own proxy, which is always among the candidates.

    Keys are those of the proxy, dotted (`batch_size`, `optimizer.lr`), or `width`, a factor on the channels of all
    networks. Without `vary` and `together`, a default set of changes is compared.
    """

    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    """Values by key, one change at a time: `{epochs: [2, 5], difficulty: [0.25]}`."""
    together: list[Annotated[dict[str, Any], Field(min_length=1)]] = Field(default=[])
    """Changes of several keys at once: `[{batch_size: 32, optimizer.lr: 0.3}]`."""
    seeds: Annotated[int, Field(ge=2, le=1000)] = 3
    """Pairs of seeds of each candidate in the first stage; later stages double them for the better half."""
    max_seeds: Annotated[int, Field(ge=2, le=1000)] = 8
    """Pairs of seeds of the candidates that are left in the last stage."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Budget in core-hours of training, earlier calls included; null for none."""

    @field_validator("vary", "together")
    @classmethod
    def _check_width(cls, changes: Any) -> Any:
        values = (
            changes.get(WIDTH, []) if isinstance(changes, dict) else [each[WIDTH] for each in changes if WIDTH in each]
        )
        for factor in values:
            is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
            if not is_number or not 0 < factor <= 16 or not math.isfinite(factor):
                raise ValueError(f"must have a `{WIDTH}` above 0 and at most 16, but got {factor!r:.40}")
        return changes

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_seeds < self.seeds:
            raise ValueError(f"`max_seeds` must be at least `seeds` ({self.seeds}), but got {self.max_seeds}")
        return self


@dataclass(frozen=True, slots=True)
class RecipeChange:
    """A change of the proxy; without values, the file's own proxy."""

    values: Mapping[str, Any]
    """By dotted key of the proxy, or `width`."""
    lines: Mapping[str, KeyPath]
    """The place of each key in the study file."""

    @property
    def width(self) -> float:
        """The factor on the networks' channels."""
        return float(self.values.get(WIDTH, 1.0))

    @property
    def proxy(self) -> dict[str, Any]:
        """The change as a nested mapping of keys of the proxy."""
        return nested({key: value for key, value in self.values.items() if key != WIDTH})

    def apply(self, document: Document) -> Document:
        """The study file with the changed proxy, and what depends on it adapted; without the key `calibrate`.

        Budgets are left out: they limit what the study trains, and not the networks of claims at another resolution.
        """
        changes = {"proxy": self.proxy}
        data = {key: value for key, value in document.data.items() if key not in ("calibrate", "budgets")}
        data = merged(data, changes)
        fit_dependent_values(data, document.data, changes)
        lines = dict(document.lines)
        for key, at in self.lines.items():
            path: KeyPath = ("proxy",)
            for part in key.split("."):
                path = (*path, part)
                lines[path] = document.line(at)
        return replace(document, data=data, lines=lines)


def own_recipe() -> RecipeChange:
    """The file's own proxy."""
    return RecipeChange({}, {})


def listed_changes(calibrate: Calibrate) -> Iterator[RecipeChange]:
    """The changes that a file lists."""
    for key, values in calibrate.vary.items():
        for i, value in enumerate(values):
            yield RecipeChange({key: value}, {key: (*AT, "vary", key, i)})
    for i, changes in enumerate(calibrate.together):
        yield RecipeChange(changes, {key: (*AT, "together", i, key) for key in changes})


def default_changes(recipe: ProxyRecipe) -> Iterator[RecipeChange]:
    """The changes that are compared if a file lists none; some may be impossible for its data."""
    batch, lr, epochs, size = recipe.batch_size, recipe.optimizer.lr, recipe.epochs, recipe.train_size
    options: list[dict[str, Any]] = [
        {"batch_size": 2 * batch, "optimizer.lr": _short(1.5 * lr)},
        {"batch_size": max(2, batch // 2), "optimizer.lr": _short(lr / 1.5)},
        *({"optimizer.lr": _short(lr * factor)} for factor in (0.5, 2)),
        *({"epochs": count} for count in sorted({max(1, epochs // 2), 2 * epochs})),
        *({"resolution": max(16, round(recipe.resolution * factor / 8) * 8)} for factor in (2 / 3, 4 / 3)),
        {WIDTH: 0.5},
    ]
    if recipe.dataset == "shapes":
        size = size or 2000
        options += [{"difficulty": _short(min(1.0, max(0.0, recipe.difficulty + step)))} for step in (-0.25, 0.25)]
    if size is not None:
        options += [{"train_size": max(1, int(size * factor))} for factor in (0.5, 2)]
    if recipe.final_val_size is not None:
        options.append({"final_val_size": 2 * recipe.final_val_size})
    elif recipe.dataset == "shapes":
        options.append({"final_val_size": 16 * (recipe.val_size or 1000)})
    yield from (RecipeChange(values, {}) for values in options)


def scaled(network: NetworkSpec, width: float) -> NetworkSpec:
    """The network with its channels times a factor, rounded. Raises `SpecError` if the result is no valid network."""
    if width == 1:
        return network
    channels = tuple(max(1, round(c * width / CHANNELS_MULTIPLE)) * CHANNELS_MULTIPLE for c in network.C)
    if channels == network.C:
        raise SpecError(f"`{WIDTH}` must change the channels", value=width, field="C")
    return network.replace(C=channels)


def _short(number: float) -> float:
    """A number with three digits."""
    return float(f"{number:.3g}")
