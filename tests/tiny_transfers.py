"""Segmentations small enough for tests."""

from typing import Any

import torch
from tiny_runs import tiny_spec

from harness.downstream import Segmenter
from harness.network import build
from harness.recipe import Transfer
from harness.spec import NetworkSpec

CLASSES = 9
"""Of `shapes`, the ground among them."""
TRANSFER: dict[str, Any] = {"epochs": 1, "channels": 8}


def segmenter(spec: NetworkSpec | None = None, *, side: int = 16, **changes: Any) -> Segmenter:
    spec = spec or tiny_spec()
    torch.manual_seed(0)
    return Segmenter(build(spec), spec, Transfer(**(TRANSFER | changes)), classes=CLASSES, side=side)
