"""A network to be exported, in one form, with the facts that its users need.

Shapes: N images, C channels, H W height and width, R side of the images that the network is made for.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError as UnprovedError
from torch.export import Dim, ExportedProgram

from harness import __version__
from harness.data.preprocessing import Preprocessing
from harness.errors import DataError, UserError
from harness.export.model_card_facts import TrainingFacts, training_facts
from harness.models.build import fold, merge
from harness.models.cost import network_cost
from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec
from harness.models.spec.published import resolutions
from harness.models.weights import Weights
from harness.storage.load_network import LoadedNetwork, WeightsOrigin, class_names
from harness.system.device_slot import computing

INPUT, OUTPUT = "images", "logits"
"""Names of the tensors in exported graphs."""


@dataclass(frozen=True, eq=False)
class Exportable:
    """A network to be exported. Raises `UserError` for the training form of weights that are already merged."""

    network: LoadedNetwork
    preprocessing: Preprocessing
    facts: TrainingFacts
    classes: tuple[str, ...] | None = None
    """Names of the classes in the order of the logits; None if they are unknown."""
    is_merged: bool = True

    def __post_init__(self) -> None:
        if self.network.is_merged and not self.is_merged:
            rule = "`--unmerged` needs weights in training form, and these are merged already"
            remedy = "Leave it out, or use the weights that they were merged from."
            raise UserError(rule, value=self.network.name, remedy=remedy)

    @property
    def resolution(self) -> int:
        """The side of the images that the network is made for."""
        return self.preprocessing.resolution

    @property
    def spec(self) -> NetworkSpec:
        """The network's spec, in the form that the names of its weights follow."""
        return self.network.spec.identity()

    @property
    def form(self) -> str:
        """Name of the form: `merged` or `training`."""
        return "merged" if self.is_merged else "training"

    @cached_property
    def trainable(self) -> nn.Module:
        """The network whose weights are written and can be trained further: merged if `is_merged`, with batch norms."""
        return merge(self.network.model) if self.is_merged else self.network.model

    @cached_property
    def deployable(self) -> nn.Module:
        """The network whose graph is written, for inference: merged and its batch norms folded if `is_merged`."""
        return fold(self.network.model) if self.is_merged else self.network.model

    @cached_property
    def weights(self) -> Weights:
        """The state dict of `trainable`, with its spec, form, source and classes."""
        entries = {name: value.detach().cpu().contiguous() for name, value in self.trainable.state_dict().items()}
        return Weights(self.spec, self.is_merged, entries, self.source, self.classes)

    @property
    def source(self) -> Mapping[str, str]:
        """The origin of the weights, as in the metadata of weight files."""
        network = self.network
        if network.origin == WeightsOrigin.RANDOM:
            return {"source": "random weights"}
        if network.recipe is not None:
            return {"source": f"{network.name}, {network.about}"}
        return network.source or {"source": str(network.file and network.file.name)}

    @property
    def least_side(self) -> int | None:
        """The smallest height and width that exported graphs accept; None if they accept only R x R.

        A graph for all sizes is valid if the last map has at least two pixels a side: size 1 is traced separately.
        """
        family = FAMILIES[self.spec.family]
        stride = self.spec.stem_stride * math.prod(family.strides)
        least = stride + 1 if family.is_padded else 2 * stride
        return least if self.resolution >= least else None

    @property
    def dynamic_shapes(self) -> dict[int, Dim]:
        """The dynamic dimensions of the input (N, C, H, W), by index."""
        batch = Dim("batch", min=1)
        if self.least_side is None:
            return {0: batch}
        return {0: batch, 2: Dim("height", min=self.least_side), 3: Dim("width", min=self.least_side)}

    @cached_property
    def program(self) -> ExportedProgram:
        """The graph of `deployable`, from `torch.export`."""
        try:
            return self._traced()
        except UnprovedError:  # such as strided bands, where a side is halved in two ways: checked at run time instead
            return self._traced(prefer_deferred_runtime_asserts_over_guards=True)

    @torch.no_grad()
    def _traced(self, **options: Any) -> ExportedProgram:
        example = torch.zeros(2, self.spec.in_channels, self.resolution, self.resolution)
        network, shapes = _Named(self.deployable), (self.dynamic_shapes,)
        return torch.export.export(network, (example,), dynamic_shapes=shapes, **options)

    @property
    def training_facts(self) -> dict[str, Any]:
        """The network, its preprocessing, its source, and the names of its classes, as plain values."""
        values = {
            "harness": __version__,
            "spec": self.spec.canonical(),
            "form": self.form,
            "resolution": self.resolution,
            **self.preprocessing.for_timm(),
            **self.source,
        }
        return values if self.classes is None else values | {"classes": list(self.classes)}

    @property
    def metadata(self) -> dict[str, str]:
        """`training_facts` as strings, for the metadata of graphs; values that are not strings are JSON."""
        return {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in self.training_facts.items()
        }


def resolution_of(network: LoadedNetwork) -> int:
    """The side of the images that a network was trained on; else the published one, or the one its stem is made for."""
    recipe = network.full_recipe or network.recipe
    return resolutions(network.spec)[0] if recipe is None else recipe.resolution


def preprocessing_of(network: LoadedNetwork, resolution: int) -> Preprocessing:
    """The preprocessing of its training; else that published for the preset; else ImageNet's, marked as assumed."""
    if network.full_recipe is not None:
        return replace(Preprocessing.of(network.full_recipe), resolution=resolution)
    if network.recipe is not None and (preprocessing := _preparation_of_run(network)) is not None:
        return replace(preprocessing, resolution=resolution)
    return Preprocessing.of_preset(network.spec, resolution) or Preprocessing.assumed(network.spec, resolution)


def _preparation_of_run(network: LoadedNetwork) -> Preprocessing | None:
    """The preprocessing of a run; None if its images are no longer there."""
    try:
        dataset = network.load_images()
    except DataError:
        return None
    return None if dataset is None or network.recipe is None else Preprocessing.of_run(network.recipe, dataset)


class _Named(nn.Module):
    """Wrapper that names the network's input `images`, for the exported graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes)."""
        logits: Tensor = self.network(images)
        return logits


@computing()
def exportable(network: LoadedNetwork, storage: str | None, resolution: int | None, *, is_merged: bool) -> Exportable:
    """The network with its preprocessing and its facts. Raises `UserError` for a resolution that it cannot process."""
    side = resolution or resolution_of(network)
    network_cost(network.spec, side)  # raises for images so small that the last map would be empty
    return Exportable(
        network,
        preprocessing_of(network, side),
        training_facts(network, storage),
        class_names(network),
        is_merged=is_merged,
    )
