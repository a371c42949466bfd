"""Weights in a file that knows its network: the harness loads it, and goes on training it."""

from pathlib import Path

from torch import nn

from harness.export.exportable import Exportable
from harness.models.weights import load_weights, write_weights

FILE = "model.safetensors"


def write(exportable: Exportable, folder: Path) -> None:
    """The state dict of the network that keeps its batch norms; nothing where it is there already."""
    if not (folder / FILE).exists():
        write_weights(folder / FILE, exportable.weights)


def load(exportable: Exportable, folder: Path) -> nn.Module:  # noqa: ARG001 (the table's signature)
    """As the card tells it."""
    return load_weights(folder / FILE)[1]


def usage(exportable: Exportable) -> str:  # noqa: ARG001
    """Code for the card; `images` is given."""
    return f"""\
from pathlib import Path

from harness.models.weights import load_weights

spec, model = load_weights(Path("{FILE}"))
logits = model(images)
"""
