"""The graph as PyTorch's own file: `torch.export` writes it, and it is loaded without the harness."""

import json
from pathlib import Path

import torch

from harness.export.comparison import Network
from harness.export.exportable import Exportable

FILE = "model.pt2"
NETWORK_FILE = "network.json"
"""What the file carries along about the network."""


def write(exportable: Exportable, folder: Path) -> None:
    """The merged network without batch norms; open in the number of images and, where it can be, in their size."""
    extra = {NETWORK_FILE: json.dumps(exportable.training_facts, indent=1)}
    torch.export.save(exportable.program, folder / FILE, extra_files=extra)


def load(exportable: Exportable, folder: Path) -> Network:  # noqa: ARG001 (the table's signature)
    """As the card tells it."""
    return torch.export.load(folder / FILE).module()


def usage(exportable: Exportable) -> str:  # noqa: ARG001
    """Code for the card; `images` is given."""
    return f"""\
import torch

model = torch.export.load("{FILE}").module()
logits = model(images)
"""
