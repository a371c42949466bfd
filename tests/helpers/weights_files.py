"""Files of a tiny network's weights as training scripts write them, and what is read from them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_spec
from torch import Tensor

from harness.errors import WeightsError
from harness.models.build import build
from harness.models.weights import Weights, read_weights

SPEC = tiny_spec(in_channels=3)
State = dict[str, Tensor]


def state_of(seed: int = 1) -> State:
    return build(SPEC, seed=seed).state_dict()


A, B = state_of(1), state_of(2)


def renamed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def without_head(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "x.pth")
    return folder / "x.pth"


def read(folder: Path, content: Any, entry: str | None = None) -> Weights:
    return read_weights(saved(folder, content), SPEC, entry=entry)


def assert_equal(entries: State, state: State) -> None:
    assert list(entries) == list(state)
    assert all(torch.equal(entries[name], value) for name, value in state.items())


def error_of(path: Path, entry: str | None = None) -> str:
    with pytest.raises(WeightsError) as caught:
        read_weights(path, SPEC, entry=entry)
    assert str(path) in str(caught.value)
    return str(caught.value)
