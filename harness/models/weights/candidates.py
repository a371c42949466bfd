"""Find a network's entries in the file of a training script: under which keys, and after which prefix of the names.

A checkpoint may hold one network under several keys, such as the trained weights and their moving average, or several
networks, such as a student and a teacher. A candidate is one set of entries that has the network's names.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from harness.errors import WeightsError, first_of
from harness.models.weights.files import Entries, tensors_in
from harness.models.weights.pickles import StandIn

MAX_DEPTH = 5
"""Most levels of nested mappings that are searched."""
MIN_SHARE = 0.25
"""Fraction of the most complete candidate's names that another candidate must have."""
MAX_NAMED = 3
HEADS = ("head.fc.", "head.", "cls_head.fc.", "classifier.", "fc.")
"""Names of a classifier next to a network that is called `backbone`."""
AVERAGE = re.compile(r"(?:^|[._])(?:ema|swa|averaged?|avg|shadow)(?:$|[._])")
"""Matches the label of a moving average."""
SWAPPED = "ema_state_dict"
"""Key of the weights that are not the average in OpenMMLab's EMA hook: it swaps the two when it saves."""
PLAIN = frozenset(
    {
        *("model", "state_dict", "module", "_orig_mod", "net", "network", "params", "weights", "backbone", "encoder"),
        *("raw", "self", "trunk", "base", "body"),
    }
)
"""Words in labels that mark neither an average nor one of several networks."""


class WeightsCandidate(NamedTuple):
    """A set of entries that may be the network's."""

    path: tuple[str, ...]
    """The keys of the nested mappings that contain it."""
    prefix: str
    """The prefix that was removed from every name."""
    entries: Entries
    """The entries by the network's names."""
    left_out: tuple[str, ...] = ()
    """Names of other entries in the same mapping."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Prefixes that were replaced (old, new), such as `head.fc.` by `head.`."""

    @property
    def label(self) -> str:
        """The name to select it by."""
        return ".".join([*self.path, self.prefix.rstrip(".")]).strip(".") or "."

    @property
    def is_average(self) -> bool:
        """Whether its label is that of a moving average."""
        return SWAPPED not in self.path and AVERAGE.search(self.label) is not None

    @property
    def is_plain(self) -> bool:
        """Whether nothing in its label distinguishes it from other networks."""
        return all(word in PLAIN or word == "" for word in self.label.split("."))

    def answers_to(self, name: str) -> bool:
        """Whether `name` is its label or a sequence of words in it."""
        words = name.strip(".").split(".")
        label_words = self.label.split(".")
        return name == self.label or any(label_words[i : i + len(words)] == words for i in range(len(label_words)))


def find_candidates(tree: object, names: frozenset[str], classifier: str, min_entries: int) -> list[WeightsCandidate]:
    """All sets with at least `min_entries` of a network's `names`, and a quarter of those of the most complete one.

    `classifier` is the name of the network's last layer.
    """
    candidates = [
        candidate for path, entries in _mappings(tree) for candidate in _in_mapping(path, entries, names, classifier)
    ]
    most = max((_matches(candidate, names) for candidate in candidates), default=0)
    return [candidate for candidate in candidates if _matches(candidate, names) >= max(min_entries, MIN_SHARE * most)]


def all_entries(tree: object) -> Entries:
    """The largest set of tensors in a checkpoint, by their original names."""
    return max((entries for _, entries in _mappings(tree)), key=len, default={})


def choose_candidate(
    candidates: Sequence[WeightsCandidate], names: frozenset[str], entry: str | None, place: Path
) -> tuple[WeightsCandidate, list[str]]:
    """Choose a candidate, and return it with notes on the choice and the others.

    Without `entry`, the one with the most of the network's `names`; of weights and their moving average, the average,
    as in timm. Raises `WeightsError` if the choice is ambiguous.
    """
    if entry is not None:
        selected = [candidate for candidate in candidates if candidate.label == entry] or [
            candidate for candidate in candidates if candidate.answers_to(entry)
        ]
        if len(selected) != 1:
            rule = "`--entry` must name one of the networks in the file"
            raise WeightsError(rule, value=entry, place=str(place), remedy=f"There are: {_labels(candidates)}.")
        return selected[0], _notes(selected[0], candidates, "selected by `--entry`")
    distinct = _distinct(candidates)
    most = max(_matches(candidate, names) for candidate in distinct)
    best = [candidate for candidate in distinct if _matches(candidate, names) == most]
    if len(best) == 1:
        reason = "a moving average" if best[0].is_average else ""
        return best[0], _notes(best[0], distinct, reason)
    averages, raw = [c for c in best if c.is_average], [c for c in best if not c.is_average]
    if len(averages) == len(raw) == 1 and raw[0].is_plain:
        return averages[0], _notes(averages[0], distinct, "the moving average, which timm takes, too")
    swapped = any(SWAPPED in candidate.path for candidate in best)
    why = (
        f" (OpenMMLab's EMA hook saves the average as `state_dict`, the raw weights as `{SWAPPED}`)" if swapped else ""
    )
    rule = f"The file holds {len(best)} networks, and one must be selected{why}"
    remedy = f"Name one: `harness weights import FILE --entry {best[0].label} ...`."
    raise WeightsError(rule, value=_labels(best), place=str(place), remedy=remedy)


def stand_ins(tree: object) -> Iterator[tuple[str, str]]:
    """(key, class) of the objects in a checkpoint that are neither tensors nor plain values; key "" is the root."""
    if isinstance(tree, StandIn):
        yield "", tree.path
    elif isinstance(tree, Mapping):
        yield from ((str(key), value.path) for key, value in tree.items() if isinstance(value, StandIn))


def _mappings(tree: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Entries]]:
    """All mappings with tensors by name, the outer ones first."""
    if not isinstance(tree, Mapping) or len(path) > MAX_DEPTH or not all(isinstance(key, str) for key in tree):
        return
    entries = tensors_in(tree)
    if entries:
        yield path, entries
    for key, value in tree.items():
        yield from _mappings(value, (*path, key))


def _in_mapping(
    path: tuple[str, ...], entries: Entries, names: frozenset[str], classifier: str
) -> Iterator[WeightsCandidate]:
    counts = Counter(prefix for name in entries for prefix in _prefixes(name, names))
    prefixes = [prefix for prefix, count in counts.items() if count >= MIN_SHARE * max(counts.values())]
    for prefix in prefixes:
        longer = tuple(name for name in prefixes if name != prefix and name.startswith(prefix))
        matching = {
            name.removeprefix(prefix): value
            for name, value in entries.items()
            if name.startswith(prefix) and not (longer and name.startswith(longer))
        }
        left_out = tuple(name for name in entries if not name.startswith(prefix))
        candidate = WeightsCandidate(path, prefix, matching, left_out)
        yield candidate if f"{classifier}.weight" in matching else _with_head(candidate, entries, classifier)


def _with_head(candidate: WeightsCandidate, entries: Entries, classifier: str) -> WeightsCandidate:
    """Add to a backbone the classifier next to it, if there is one with a usual name."""
    outer = re.sub(r"(?:^|(?<=\.))(?:backbone|encoder)\.$", "", candidate.prefix)
    if outer == candidate.prefix:
        return candidate
    for head in HEADS:
        start = outer + head
        taken = {name: name.removeprefix(start) for name in candidate.left_out if name.startswith(start)}
        if set(taken.values()) == {"weight", "bias"}:
            rows = {f"{classifier}.{part}": entries[name] for name, part in taken.items()}
            left_out = tuple(name for name in candidate.left_out if name not in taken)
            return candidate._replace(
                entries=candidate.entries | rows, left_out=left_out, renamed=((start, f"{classifier}."),)
            )
    return candidate


def _prefixes(name: str, names: frozenset[str]) -> Iterator[str]:
    """The prefix whose removal leaves the longest of the network's names, if there is one."""
    start = 0
    while True:
        if name[start:] in names:
            yield name[:start]
            return
        dot = name.find(".", start)
        if dot < 0:
            return
        start = dot + 1


def _matches(candidate: WeightsCandidate, names: frozenset[str]) -> int:
    return sum(name in names for name in candidate.entries)


def _distinct(candidates: Sequence[WeightsCandidate]) -> list[WeightsCandidate]:
    """The candidates without those whose entries are equal to an earlier one's."""

    def are_equal(one: Entries, other: Entries) -> bool:
        return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())

    kept: list[WeightsCandidate] = []
    for candidate in candidates:
        if not any(are_equal(candidate.entries, other.entries) for other in kept):
            kept.append(candidate)
    return kept


def _notes(taken: WeightsCandidate, candidates: Sequence[WeightsCandidate], reason: str) -> list[str]:
    notes = []
    if taken.path or len(candidates) > 1:
        notes.append(f"taken: `{taken.label}`{', ' if reason else ''}{reason}")
    rest = [candidate for candidate in candidates if candidate is not taken]
    if rest:
        notes.append(f"not taken: {_labels(rest)} (`--entry` chooses)")
    if taken.prefix:
        notes.append(f"`{taken.prefix}` was taken off every name")
    notes += [f"`{old}` was read as `{new}`" for old, new in taken.renamed]
    if taken.left_out:
        listed, count = first_of([name[:80] for name in taken.left_out], MAX_NAMED), len(taken.left_out)
        notes.append(f"left out, as not the network's: {count} {'entry' if count == 1 else 'entries'} ({listed})")
    return notes


def _labels(candidates: Sequence[WeightsCandidate]) -> str:
    return ", ".join(f"`{candidate.label}`" for candidate in candidates)
