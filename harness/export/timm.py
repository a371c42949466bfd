"""timm format: `config.json` and the weights, for `timm.create_model("local-dir:FOLDER")`.

A RepLKNet of any spec is built as one of the harness's timm models, from the nearest preset and the fields that differ.
A merged ConvNeXt with plain kernels is one of timm's own models. timm has no MobileNetV2 with large kernels.
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
"""Fields of a spec for which timm has its own arguments, or which do not affect a trained network."""


class Architecture(NamedTuple):
    """A network's model name, arguments and layer names in timm."""

    name: str
    arguments: dict[str, Any]
    first_conv: str
    classifier: str
    needs_harness: bool


def unsupported_reason(exportable: Exportable) -> str | None:
    """Why timm cannot load the network; None if it can."""
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
    names = [name for name, preset in PRESETS.items() if preset.family == spec.family]
    name = min(names, key=lambda name: len(_differing(spec, PRESETS[name])))
    fields = {field: getattr(spec, field) for field in _differing(spec, PRESETS[name])}
    form = {"merged": True} if exportable.is_merged else {}
    return Architecture(name, {**fields, **form}, "stem.0.conv", "head", needs_harness=True)


def write(exportable: Exportable, folder: Path) -> None:
    """Write the configuration and, unless they exist, the weights."""
    safetensors.write(exportable, folder)
    (folder / FILE).write_text(json.dumps(_config(exportable), indent=2), encoding="utf-8")


def load(exportable: Exportable, folder: Path) -> nn.Module:  # noqa: ARG001 (the table's signature)
    """Load as in the model card."""
    import timm

    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model.eval()


def usage(exportable: Exportable) -> str:
    """Code for the model card; `images` is already defined, preprocessed like the output of `transform`."""
    needed = "import harness  # registers RepLKNet with timm\n" if architecture(exportable).needs_harness else ""
    return f"""\
{needed}import timm

model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(images)
"""


def _config(exportable: Exportable) -> dict[str, Any]:
    spec, model = exportable.spec, architecture(exportable)
    channels, side = spec.in_channels, exportable.resolution
    labels = {} if exportable.classes is None else {"label_names": list(exportable.classes)}
    return {
        "architecture": model.name,
        "num_classes": spec.classes,
        "num_features": spec.C[-1],
        **labels,
        "pretrained_cfg": {
            "tag": "exported",
            "input_size": [channels, side, side],
            "pool_size": list(network_parts(spec, side)[-2].size),
            **exportable.preprocessing.for_timm(),
            "num_classes": spec.classes,
            "first_conv": model.first_conv,
            "classifier": model.classifier,
        },
        "model_args": model.arguments,
    }


def _differing(spec: NetworkSpec, base: NetworkSpec) -> list[str]:
    return [name for name in FIELDS if name not in GIVEN_OTHERWISE and getattr(spec, name) != getattr(base, name)]
