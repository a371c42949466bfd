"""The formats, in one table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.errors import UserError
from harness.exporting import onnx_file, safetensors_file, timm_folder, torch_file
from harness.exporting.probes import Network
from harness.exporting.product import Product


class Format(NamedTuple):
    """A way to write a network, and to load it back."""

    file: str
    """What it adds to the folder."""
    about: str
    write: Callable[[Product, Path], None]
    """Into the folder."""
    load: Callable[[Product, Path], Network]
    """From the folder, as others would; raises what it finds wrong."""
    usage: Callable[[Product], str]
    """The code that loads it, run in the folder, and gives `logits` of `images`."""
    why_not: Callable[[Product], str | None] = lambda _: None
    """What keeps a network from being written so."""
    require: Callable[[], None] = lambda: None
    """Raises `UserError` where this installation lacks what it needs."""


FORMATS: dict[str, Format] = {
    "safetensors": Format(
        safetensors_file.FILE,
        "the weights, and which network they are of",
        safetensors_file.write,
        safetensors_file.load,
        safetensors_file.usage,
    ),
    "onnx": Format(
        onnx_file.FILE,
        "the graph for onnxruntime and other runtimes",
        onnx_file.write,
        onnx_file.load,
        onnx_file.usage,
        require=onnx_file.require_packages,
    ),
    "torch": Format(
        torch_file.FILE, "the graph for PyTorch alone", torch_file.write, torch_file.load, torch_file.usage
    ),
    "timm": Format(
        timm_folder.FILE,
        "what timm needs to load the weights from this folder",
        timm_folder.write,
        timm_folder.load,
        timm_folder.usage,
        why_not=timm_folder.why_not,
    ),
}


def chosen_formats(product: Product, names: Sequence[str] | None) -> tuple[dict[str, Format], list[str]]:
    """The formats of these names, in the order of the table; or all that the network can have, with what is left out.

    Raises `UserError` for what this network, or this installation, cannot have.
    """
    chosen = {name: each for name, each in FORMATS.items() if names is None or name in names}
    faults = {name: fault for name, each in chosen.items() if (fault := each.why_not(product)) is not None}
    if faults and names is not None:
        name, fault = next(iter(faults.items()))
        raise UserError(f"the format {name} must be one that the network can have: {fault}", value=product.subject.name)
    chosen = {name: each for name, each in chosen.items() if name not in faults}
    for each in chosen.values():
        each.require()
    return chosen, [f"{name} left out: {fault}" for name, fault in faults.items()]
