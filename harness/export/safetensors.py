"""Safetensors format: weights with the network's spec in the metadata; the harness can load and train them further."""

from pathlib import Path

from torch import nn

from harness.export.exportable import Exportable
from harness.models.weights import load_weights, write_weights

FILE = "model.safetensors"


def write(exportable: Exportable, folder: Path) -> None:
    """Write the state dict of `Exportable.trainable`, unless the file exists."""
    if not (folder / FILE).exists():
        write_weights(folder / FILE, exportable.weights)


def load(exportable: Exportable, folder: Path) -> nn.Module:  # noqa: ARG001 (the table's signature)
    """Load as in the model card."""
    return load_weights(folder / FILE)[1]


def usage(exportable: Exportable) -> str:  # noqa: ARG001
    """Code for the model card; `images` is already defined."""
    return f"""\
import harness

spec, model = harness.load_weights("{FILE}")
logits = model(images)
"""
