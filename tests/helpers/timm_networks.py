"""Networks from `timm.create_model`, and images for them."""

from typing import Any

import timm
import torch
from random_statistics import randomize
from torch import Tensor

NANO = "replknet_nano"
SMALL: dict[str, Any] = {"B": (1, 2, 1, 1), "C": (4, 6, 8, 8), "K": (9, 7, 5, 13), "reparam": (5, 3, None, 5)}
"""Fields that make a small network of any preset."""


def create(name: str = NANO, **arguments: Any) -> Any:
    return timm.create_model(name, **arguments)


def trained(name: str = NANO, **arguments: Any) -> Any:
    model = create(name, **arguments)
    randomize(model, seed=1)
    return model.eval()


def images(n: int = 2, side: int = 64, channels: int = 3, **options: Any) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0), **options)
