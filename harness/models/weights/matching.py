"""Entries of a state dict held against a network: how many classes they have, which form, and what does not fit."""

from collections.abc import Mapping
from functools import lru_cache

import torch

from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.models.weights.files import Entries

MAX_NAMED = 3
"""Entries that an error names of each sort."""
BACKBONE_PREFIXES = ("stem.", "stages.", "transitions.")
"""How the names begin of what is not a classifier, in all families."""
COUNTER = "num_batches_tracked"
"""Of a batch norm; no result depends on it, and other libraries have none."""


def classifier_of(spec: NetworkSpec) -> str:
    """The name of a network's last fully connected layer."""
    *_, weight = (name for name, shape in shapes(spec, False).items() if len(shape) == 2)
    return weight.removesuffix(".weight")


def names_of(spec: NetworkSpec) -> frozenset[str]:
    """The names of all entries that a form of the network has."""
    return frozenset(shapes(spec, False)) | frozenset(shapes(spec, True))


def match_shapes(expected: Mapping[str, torch.Size], entries: Entries) -> tuple[Entries, list[str]]:
    """The entries in the shapes of the network, and notes on what was changed: nothing that changes a result.

    Sides of 1 are added or taken away, as MegEngine has them, and counters of batches that are missing are 0.
    """
    entries, notes = dict(entries), []
    reshaped = [
        name
        for name, shape in expected.items()
        if name in entries
        and entries[name].shape != shape
        and _sides_above_1(entries[name].shape) == _sides_above_1(shape)
    ]
    for name in reshaped:
        entries[name] = entries[name].reshape(expected[name])
    if reshaped:
        notes.append(f"{len(reshaped)} entries have other sides of 1, and were reshaped ({_first(reshaped)})")
    counters = [name for name in expected if name.endswith(COUNTER) and name not in entries]
    if counters and len(counters) == sum(name.endswith(COUNTER) for name in expected):
        entries |= {name: torch.zeros((), dtype=torch.int64) for name in counters}
        notes.append(f"{len(counters)} counters of batches ({COUNTER}) are not there; no result depends on them")
    return entries, notes


def _sides_above_1(shape: torch.Size) -> list[int]:
    return [side for side in shape if side != 1]


def classes_of(spec: NetworkSpec, entries: Entries) -> int:
    """The rows of the classifier, which is a network's last fully connected layer; those of the spec without one."""
    found = entries.get(f"{classifier_of(spec)}.weight")
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


def mismatches(expected: Mapping[str, torch.Size], entries: Entries) -> list[str]:
    """What is wrong with the entries, one phrase for each sort of fault; nothing where they fit."""
    missing = [name for name in expected if name not in entries]
    unexpected = [name for name in entries if name not in expected]
    other = [
        f"{name} is {_sides(entries[name].shape)} for {_sides(shape)}"
        for name, shape in expected.items()
        if name in entries and entries[name].shape != shape
    ]
    whole = [
        f"{name} is {str(entries[name].dtype).removeprefix('torch.')}"
        for name in expected
        if name in entries and not name.endswith(COUNTER) and not entries[name].is_floating_point()
    ]
    sorts = ((missing, "missing"), (unexpected, "unexpected"), (other, "of another shape"), (whole, "no real numbers"))
    return [f"{len(names)} {sort} ({_first(names)})" for names, sort in sorts if names]


def _first(names: list[str]) -> str:
    return ", ".join([*(name[:80] for name in names[:MAX_NAMED]), *["..."] * (len(names) > MAX_NAMED)])


def _sides(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "one number"


def mismatch_remedy(entries: Entries, expected: Mapping[str, torch.Size]) -> str:
    """The preset that the entries fit, if there is one; or that the network's `expected` classifier is missing."""
    missing = [name for name in expected if name not in entries]
    if missing and not any(name.startswith(BACKBONE_PREFIXES) for name in missing):
        return "It is a backbone without its classifier: take the checkpoint of the classification."
    for name, known in PRESETS.items():
        for is_merged in (False, True):
            if shapes(known, is_merged).keys() == entries.keys():
                spec = known.replace(classes=classes_of(known, entries))
                if not mismatches(shapes(spec, is_merged), entries):
                    return f"They are those of {name}: `--network {name}`."
    return "Name the network that it was trained as."
