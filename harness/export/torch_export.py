"""PyTorch format: the graph as a file of `torch.export`, which is loaded without the harness."""

import json
from pathlib import Path

import torch

from harness.export.comparison import Network
from harness.export.exportable import Exportable

FILE = "model.pt2"
NETWORK_FILE = "network.json"
"""Entry of the file that describes the network."""


def write(exportable: Exportable, folder: Path) -> None:
    """Write the graph of `Exportable.program`, dynamic in the batch size and, if possible, in the image size."""
    extra = {NETWORK_FILE: json.dumps(exportable.training_facts, indent=1)}
    torch.export.save(exportable.program, folder / FILE, extra_files=extra)


def load(exportable: Exportable, folder: Path) -> Network:  # noqa: ARG001 (the table's signature)
    """Load as in the model card."""
    return torch.export.load(folder / FILE).module()


def usage(exportable: Exportable) -> str:  # noqa: ARG001
    """Code for the model card; `images` is already defined."""
    return f"""\
import torch

model = torch.export.load("{FILE}").module()
logits = model(images)
"""
