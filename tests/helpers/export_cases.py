"""Networks to export that take a second: tiny, with batch norms as training leaves them."""

from pathlib import Path
from typing import Any

import torch
from random_statistics import randomize
from torch import Tensor, nn

from harness.export.comparison import FormatResult
from harness.export.export import write_formats
from harness.export.exportable import Exportable, preprocessing_of
from harness.export.formats import chosen_formats
from harness.export.model_card_facts import training_facts
from harness.models.build import build, merge
from harness.models.convnext import ConvNeXtBlock
from harness.models.spec.family import FAMILIES
from harness.models.spec.network import NetworkSpec
from harness.storage.load_network import LoadedNetwork, WeightsOrigin, class_names

SIDE = 32


def tiny(family: str = "replknet", **fields: Any) -> NetworkSpec:
    """Odd numbers of classes and of channels of the images; kernels beyond the smaller maps."""
    stages = FAMILIES[family].stages
    defaults = {"family": family, "B": 1, "C": [8, 8, 12, 12][:stages] + [12] * (stages - 4), "K": 7}
    stride = {"stem_stride": FAMILIES[family].stem_strides[0], "in_channels": 1, "classes": 7}
    return NetworkSpec.from_mapping(defaults | stride | fields)


def subject_of(spec: NetworkSpec, *, is_merged: bool = False) -> LoadedNetwork:
    model = build(spec, seed=0)
    randomize(model, seed=1)
    generator = torch.Generator().manual_seed(2)
    for layer in model.modules():  # so that the images, and not the biases, decide the logits
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5, generator=generator)
        elif isinstance(layer, ConvNeXtBlock):
            nn.init.constant_(layer.gamma, 0.5)
    model = merge(model) if is_merged else model
    return LoadedNetwork(
        "tiny", spec, model.eval(), WeightsOrigin.FILE, is_merged=is_merged, file=Path("tiny.safetensors")
    )


def product_of(spec: NetworkSpec, *, side: int = SIDE, is_merged: bool = True, **facts: Any) -> Exportable:
    subject = facts.pop("subject", None) or subject_of(spec)
    return Exportable(
        subject,
        preprocessing_of(subject, side),
        training_facts(subject),
        class_names(subject),
        is_merged=is_merged,
        **facts,
    )


def noise(spec: NetworkSpec, n: int, side: int = SIDE) -> Tensor:
    return torch.randn(n, spec.in_channels, side, side, generator=torch.Generator().manual_seed(5))


def written(exportable: Exportable, folder: Path, *names: str) -> list[FormatResult]:
    formats, _ = chosen_formats(exportable, names or None)
    return write_formats(exportable, formats, folder)
