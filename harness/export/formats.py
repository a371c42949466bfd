"""The formats, in one table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.errors import UserError
from harness.export import onnx, safetensors, timm, torch_export
from harness.export.comparison import Network
from harness.export.exportable import Exportable


class Format(NamedTuple):
    """A way to write a network, and to load it back."""

    file: str
    """What it adds to the folder."""
    about: str
    write: Callable[[Exportable, Path], None]
    """Into the folder."""
    load: Callable[[Exportable, Path], Network]
    """From the folder, as others would; raises what it finds wrong."""
    usage: Callable[[Exportable], str]
    """The code that loads it, run in the folder, and gives `logits` of `images`."""
    unsupported_reason: Callable[[Exportable], str | None] = lambda _: None
    """What keeps a network from being written so."""
    require: Callable[[], None] = lambda: None
    """Raises `UserError` where this installation lacks what it needs."""


FORMATS: dict[str, Format] = {
    "safetensors": Format(
        safetensors.FILE,
        "the weights, and which network they are of",
        safetensors.write,
        safetensors.load,
        safetensors.usage,
    ),
    "onnx": Format(
        onnx.FILE,
        "the graph for onnxruntime and other runtimes",
        onnx.write,
        onnx.load,
        onnx.usage,
        require=onnx.require_packages,
    ),
    "torch": Format(
        torch_export.FILE, "the graph for PyTorch alone", torch_export.write, torch_export.load, torch_export.usage
    ),
    "timm": Format(
        timm.FILE,
        "what timm needs to load the weights from this folder",
        timm.write,
        timm.load,
        timm.usage,
        unsupported_reason=timm.unsupported_reason,
    ),
}


def chosen_formats(exportable: Exportable, names: Sequence[str] | None) -> tuple[dict[str, Format], list[str]]:
    """The formats of these names, in the order of the table; or all that the network can have, with what is left out.

    Raises `UserError` for what this network, or this installation, cannot have.
    """
    chosen = {name: file_format for name, file_format in FORMATS.items() if names is None or name in names}
    faults = {
        name: fault
        for name, file_format in chosen.items()
        if (fault := file_format.unsupported_reason(exportable)) is not None
    }
    if faults and names is not None:
        name, fault = next(iter(faults.items()))
        raise UserError(
            f"the format {name} must be one that the network can have: {fault}", value=exportable.network.name
        )
    chosen = {name: file_format for name, file_format in chosen.items() if name not in faults}
    for file_format in chosen.values():
        file_format.require()
    return chosen, [f"{name} left out: {fault}" for name, fault in faults.items()]
