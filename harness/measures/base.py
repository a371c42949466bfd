"""What every measure is given, and the one method that it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from harness.data import Dataset
from harness.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Trained:
    """A network at the end of its run, with what it was trained on."""

    model: nn.Module
    """In training form, as the run left it; a measure that wants the merged form makes a merged copy."""
    dataset: Dataset
    recipe: Recipe
    device: torch.device


Measure = Callable[[Trained], Iterator[tuple[str, float]]]
"""Yields (name, value); the name carries the unit, as `latency_ms_p50`."""
