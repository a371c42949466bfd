"""Comparison of a state dict with a network: its number of classes, its form, and its mismatches."""

from collections.abc import Mapping
from functools import lru_cache

import torch

from harness.errors import first_of
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.models.weights.files import Entries

MAX_NAMED = 3
"""Most entries of each kind that an error names."""
BACKBONE_PREFIXES = ("stem.", "stages.", "transitions.")
"""Prefixes of the entries that are not the classifier's, in all families."""
COUNTER = "num_batches_tracked"
"""Entry of a batch norm; no result depends on it, and other libraries do not have it."""


def classifier_of(spec: NetworkSpec) -> str:
    """The name of a network's last fully connected layer."""
    *_, weight = (name for name, shape in shapes(spec, False).items() if len(shape) == 2)
    return weight.removesuffix(".weight")


def names_of(spec: NetworkSpec) -> frozenset[str]:
    """The names of all entries of the network in either form."""
    return frozenset(shapes(spec, False)) | frozenset(shapes(spec, True))


def match_shapes(expected: Mapping[str, torch.Size], entries: Entries) -> tuple[Entries, list[str]]:
    """The entries in the shapes of the network, and notes on the changes, which do not affect any result.

    Dimensions of size 1 are added or removed (MegEngine's shapes), and missing batch counters are set to 0.
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
        notes.append(f"{len(reshaped)} entries have other dimensions of 1, and were reshaped ({_first(reshaped)})")
    counters = [name for name in expected if name.endswith(COUNTER) and name not in entries]
    if counters and len(counters) == sum(name.endswith(COUNTER) for name in expected):
        entries |= {name: torch.zeros((), dtype=torch.int64) for name in counters}
        notes.append(f"{len(counters)} counters of batches ({COUNTER}) are missing; no result depends on them")
    return entries, notes


def _sides_above_1(shape: torch.Size) -> list[int]:
    return [side for side in shape if side != 1]


def classes_of(spec: NetworkSpec, entries: Entries) -> int:
    """The number of rows of the classifier, the last fully connected layer; `spec.classes` if there is none."""
    weight = entries.get(f"{classifier_of(spec)}.weight")
    return weight.shape[0] if weight is not None and weight.dim() == 2 and weight.shape[0] else spec.classes


def is_merged_form(spec: NetworkSpec, entries: Entries) -> bool:
    """Whether more of the entries that only one form has belong to the merged form."""
    training, merged = (set(shapes(spec, is_merged)) for is_merged in (False, True))
    return len((merged - training) & set(entries)) > len((training - merged) & set(entries))


@lru_cache(maxsize=64)
def shapes(spec: NetworkSpec, is_merged: bool) -> Mapping[str, torch.Size]:
    """The shape of every entry of a form of the network, in order."""
    with torch.device("meta"):
        state = build(spec, merged=is_merged).state_dict()
    return {name: value.shape for name, value in state.items()}


def mismatches(expected: Mapping[str, torch.Size], entries: Entries) -> list[str]:
    """The faults of the entries, one phrase for each kind; empty if they fit."""
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
    faults = ((missing, "missing"), (unexpected, "unexpected"), (other, "of another shape"), (whole, "no real numbers"))
    return [f"{len(names)} {fault} ({_first(names)})" for names, fault in faults if names]


def _first(names: list[str]) -> str:
    return first_of([name[:80] for name in names], MAX_NAMED)


def _sides(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "one number"


def mismatch_remedy(entries: Entries, expected: Mapping[str, torch.Size]) -> str:
    """A remedy: the preset that the entries fit, if any, or a hint that the `expected` classifier is missing."""
    missing = [name for name in expected if name not in entries]
    if missing and not any(name.startswith(BACKBONE_PREFIXES) for name in missing):
        return "It is a backbone without its classifier: use the checkpoint with the classifier."
    for name, preset in PRESETS.items():
        for is_merged in (False, True):
            if shapes(preset, is_merged).keys() == entries.keys():
                spec = preset.replace(classes=classes_of(preset, entries))
                if not mismatches(shapes(spec, is_merged), entries):
                    return f"They are those of {name}: `--network {name}`."
    return "Name the network that it was trained as."
