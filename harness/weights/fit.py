"""Entries of a state dict held against a network: how many classes they have, which form, and what does not fit."""

from collections.abc import Mapping
from functools import lru_cache

import torch

from harness.network import build
from harness.presets import PRESETS
from harness.spec import NetworkSpec
from harness.weights.files import Entries

MOST_NAMED = 3
"""Entries that an error names of each sort."""


def classes_of(spec: NetworkSpec, entries: Entries) -> int:
    """The rows of the classifier, which is a network's last fully connected layer; those of the spec without one."""
    *_, weight = (name for name, shape in shapes(spec, False).items() if len(shape) == 2)
    found = entries.get(weight)
    return found.shape[0] if found is not None and found.dim() == 2 and found.shape[0] else spec.classes


def is_merged_form(spec: NetworkSpec, entries: Entries) -> bool:
    """Whether the entries that one form alone has are rather those of the merged form."""
    training, merged = (set(shapes(spec, is_merged)) for is_merged in (False, True))
    return len((merged - training) & set(entries)) > len((training - merged) & set(entries))


@lru_cache(maxsize=64)
def shapes(spec: NetworkSpec, is_merged: bool) -> Mapping[str, torch.Size]:
    """Every entry of a form of the network, in order, and its shape."""
    with torch.device("meta"):
        state = build(spec, merged=is_merged).state_dict()
    return {name: value.shape for name, value in state.items()}


def faults(expected: Mapping[str, torch.Size], entries: Entries) -> list[str]:
    """What is wrong with the entries, one phrase for each sort of fault; nothing where they fit."""
    missing = [name for name in expected if name not in entries]
    unexpected = [name for name in entries if name not in expected]
    other = [
        f"{name} is {_sides(entries[name].shape)} for {_sides(shape)}"
        for name, shape in expected.items()
        if name in entries and entries[name].shape != shape
    ]
    sorts = ((missing, "missing"), (unexpected, "unexpected"), (other, "of another shape"))
    return [f"{len(names)} {sort} ({_first(names)})" for names, sort in sorts if names]


def _first(names: list[str]) -> str:
    return ", ".join([*(name[:80] for name in names[:MOST_NAMED]), *["..."] * (len(names) > MOST_NAMED)])


def _sides(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "one number"


def remedy(entries: Entries) -> str:
    """The preset that the entries fit, if there is one."""
    for name, known in PRESETS.items():
        for is_merged in (False, True):
            if shapes(known, is_merged).keys() == entries.keys():
                spec = known.replace(classes=classes_of(known, entries))
                if not faults(shapes(spec, is_merged), entries):
                    return f"They are those of {name}: `--network {name}`."
    return "Name the network that it was trained as."
