"""The folder as timm loads it: `config.json` beside the weights, for `timm.create_model("local-dir:FOLDER")`.

A RepLKNet of any spec is one of the harness's models, by the preset that is nearest and the fields that differ. A
merged ConvNeXt with plain kernels is one of timm's own. Of timm's networks, none is a MobileNetV2 with large kernels.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from harness.export import safetensors
from harness.export.exportable import Exportable
from harness.models.cost import network_parts
from harness.models.spec.network import FIELDS, NetworkSpec
from harness.models.spec.presets import PRESETS

FILE = "config.json"
GIVEN_OTHERWISE = ("family", "classes", "in_channels", "drop_path", "replica")
"""Fields of a spec that timm has arguments of its own for, or that change nothing of a trained network."""


class Architecture(NamedTuple):
    """A network as timm calls it."""

    name: str
    arguments: dict[str, Any]
    first_conv: str
    classifier: str
    needs_harness: bool


def unsupported_reason(exportable: Exportable) -> str | None:
    """What keeps timm from loading the network; None where nothing does."""
    spec = exportable.spec
    if spec.family == "replknet":
        return None
    if spec.family != "convnext":
        return f"timm has no {spec.family} with kernels of other sizes"
    is_timms = (
        (spec.kernel, spec.depthwise, spec.shortcut, spec.stem_stride, spec.ffn_ratio) == ("plain", True, True, 4, 4.0)
        and set(spec.dilation) == {1}
        and (exportable.is_merged or all(s is None for s in spec.reparam))
    )
    return None if is_timms else "timm's ConvNeXt has plain depth-wise kernels, stem_stride 4 and no small kernels"


def architecture(exportable: Exportable) -> Architecture:
    """The network's name and arguments in timm."""
    spec = exportable.spec
    if spec.family == "convnext":
        arguments = {"depths": list(spec.B), "dims": list(spec.C), "kernel_sizes": list(spec.K)}
        return Architecture("convnext_tiny", arguments, "stem.0", "head.fc", needs_harness=False)
    name = _nearest_preset(spec)
    fields = {field: getattr(spec, field) for field in _differing(spec, PRESETS[name])}
    form = {"merged": True} if exportable.is_merged else {}
    return Architecture(name, {**fields, **form}, "stem.0.conv", "head", needs_harness=True)


def write(exportable: Exportable, folder: Path) -> None:
    """The configuration and, where they are not there yet, the weights."""
    safetensors.write(exportable, folder)
    (folder / FILE).write_text(json.dumps(_config(exportable), indent=2), encoding="utf-8")


def load(exportable: Exportable, folder: Path) -> nn.Module:  # noqa: ARG001 (the table's signature)
    """As the card tells it."""
    import timm

    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model.eval()


def usage(exportable: Exportable) -> str:
    """Code for the card; `images` is given, prepared as `transform` does it."""
    needed = "import harness  # makes RepLKNet known to timm\n" if architecture(exportable).needs_harness else ""
    return f"""\
{needed}import timm

model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(images)
"""


def _config(exportable: Exportable) -> dict[str, Any]:
    spec, found = exportable.spec, architecture(exportable)
    channels, side = spec.in_channels, exportable.resolution
    labels = {} if exportable.classes is None else {"label_names": list(exportable.classes)}
    return {
        "architecture": found.name,
        "num_classes": spec.classes,
        "num_features": spec.C[-1],
        **labels,
        "pretrained_cfg": {
            "tag": "exported",
            "input_size": [channels, side, side],
            "pool_size": list(network_parts(spec, side)[-2].size),
            **exportable.preprocessing.for_timm(),
            "num_classes": spec.classes,
            "first_conv": found.first_conv,
            "classifier": found.classifier,
        },
        "model_args": found.arguments,
    }


def _nearest_preset(spec: NetworkSpec) -> str:
    """The preset of the family from which the fewest fields differ."""
    known = [name for name, each in PRESETS.items() if each.family == spec.family]
    return min(known, key=lambda name: len(_differing(spec, PRESETS[name])))


def _differing(spec: NetworkSpec, base: NetworkSpec) -> list[str]:
    return [name for name in FIELDS if name not in GIVEN_OTHERWISE and getattr(spec, name) != getattr(base, name)]
