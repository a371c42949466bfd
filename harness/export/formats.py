"""Table of the export formats; each imports only what it needs, so that the command line lists them without torch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from harness.export.comparison import Network
    from harness.export.exportable import Exportable


class Format(NamedTuple):
    """An export format: how to write a network, and how to load it back."""

    file: str
    """Name of the file that it adds to the folder."""
    about: str
    write: Callable[["Exportable", Path], None]
    """Writes the network into the folder."""
    load: Callable[["Exportable", Path], "Network"]
    """Loads the network from the folder, as its users would; raises an error for a faulty file."""
    usage: Callable[["Exportable"], str]
    """The code that loads the network, run in the folder, and computes `logits` from `images`."""
    unsupported_reason: Callable[["Exportable"], str | None] = lambda _: None
    """Why a network cannot be written in this format; None if it can."""
    require: Callable[[], None] = lambda: None
    """Raises `UserError` if a package that the format needs is not installed."""


def _safetensors() -> Format:
    from harness.export import safetensors

    about = "the weights, and which network they are of"
    return Format(safetensors.FILE, about, safetensors.write, safetensors.load, safetensors.usage)


def _onnx() -> Format:
    from harness.export import onnx

    about = "the graph for onnxruntime and other runtimes"
    return Format(onnx.FILE, about, onnx.write, onnx.load, onnx.usage, require=onnx.require_packages)


def _torch() -> Format:
    from harness.export import torch_export

    about = "the graph for PyTorch, without the harness"
    return Format(torch_export.FILE, about, torch_export.write, torch_export.load, torch_export.usage)


def _timm() -> Format:
    from harness.export import timm

    about = "what timm needs to load the weights from this folder"
    return Format(timm.FILE, about, timm.write, timm.load, timm.usage, unsupported_reason=timm.unsupported_reason)


FORMATS: dict[str, Callable[[], Format]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "torch": _torch,
    "timm": _timm,
}
"""Functions that import a format, by the name on the command line."""


def chosen_formats(exportable: "Exportable", names: Sequence[str] | None) -> tuple[dict[str, Format], list[str]]:
    """The formats of these names, in table order, or all that the network supports; and notes on those left out.

    Raises `UserError` for an unknown name, and for a format that this network, or this installation, does not support.
    """
    for name in names or ():
        if name not in FORMATS:
            raise UserError("a format must be a known one", value=name, remedy=did_you_mean(name, FORMATS, "Formats"))
    chosen = {name: load_format() for name, load_format in FORMATS.items() if names is None or name in names}
    faults = {
        name: fault
        for name, file_format in chosen.items()
        if (fault := file_format.unsupported_reason(exportable)) is not None
    }
    if faults and names is not None:
        name, fault = next(iter(faults.items()))
        raise UserError(
            f"the format {name} must be one that the network supports: {fault}", value=exportable.network.name
        )
    chosen = {name: file_format for name, file_format in chosen.items() if name not in faults}
    for file_format in chosen.values():
        file_format.require()
    return chosen, [f"{name} left out: {fault}" for name, fault in faults.items()]
