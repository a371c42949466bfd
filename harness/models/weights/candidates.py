"""Find a network's entries in what a training script has saved: under which keys, behind which prefix of the names.

A checkpoint may hold one network under several keys, as the trained weights and their moving average, or several
networks, as a student and a teacher. A candidate is one set of entries that has the network's names.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from harness.errors import WeightsError
from harness.models.weights.files import Entries, tensors_in
from harness.models.weights.pickles import StandIn

MAX_DEPTH = 5
"""Of mappings in mappings that are looked into."""
MIN_SHARE = 0.25
"""Of the names of the fullest candidate that another one must have."""
MAX_NAMED = 3
HEADS = ("head.fc.", "head.", "cls_head.fc.", "classifier.", "fc.")
"""What a classifier is called beside a network that is a `backbone`."""
AVERAGE = re.compile(r"(?:^|[._])(?:ema|swa|averaged?|avg|shadow)(?:$|[._])")
"""In the label of a moving average."""
SWAPPED = "ema_state_dict"
"""Where OpenMMLab's EMA hook keeps the weights that are not the average: it swaps the two when it saves."""
PLAIN = frozenset(
    {
        *("model", "state_dict", "module", "_orig_mod", "net", "network", "params", "weights", "backbone", "encoder"),
        *("raw", "self", "trunk", "base", "body"),
    }
)
"""Words that the label of a network consists of that is neither an average nor one among several."""


class WeightsCandidate(NamedTuple):
    """One set of entries that may be the network's."""

    path: tuple[str, ...]
    """The keys of the mappings that it is in."""
    prefix: str
    """What stood before every name."""
    entries: Entries
    """Named as the network has them."""
    left_out: tuple[str, ...] = ()
    """Other entries beside them."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Prefixes that were read as others, as `head.fc.` as `head.`."""

    @property
    def label(self) -> str:
        """The name by which it is chosen."""
        return ".".join([*self.path, self.prefix.rstrip(".")]).strip(".") or "."

    @property
    def is_average(self) -> bool:
        """Whether it is named as a moving average."""
        return SWAPPED not in self.path and AVERAGE.search(self.label) is not None

    @property
    def is_plain(self) -> bool:
        """Whether nothing in its label tells it from other networks."""
        return all(word in PLAIN or word == "" for word in self.label.split("."))

    def answers_to(self, name: str) -> bool:
        """Whether a person who writes `name` means it."""
        words = name.strip(".").split(".")
        own = self.label.split(".")
        return name == self.label or any(own[i : i + len(words)] == words for i in range(len(own)))


def find_candidates(tree: object, names: frozenset[str], classifier: str, min_entries: int) -> list[WeightsCandidate]:
    """All sets of entries with at least `min_entries` of a network's `names`, or a quarter of those of the fullest one.

    `classifier` is the name of the network's last layer.
    """
    found = [
        candidate for path, entries in _mappings(tree) for candidate in _in_mapping(path, entries, names, classifier)
    ]
    most = max((_matches(candidate, names) for candidate in found), default=0)
    return [candidate for candidate in found if _matches(candidate, names) >= max(min_entries, MIN_SHARE * most)]


def all_entries(tree: object) -> Entries:
    """The largest set of tensors in a checkpoint, by the names that they have there."""
    return max((entries for _, entries in _mappings(tree)), key=len, default={})


def choose_candidate(
    candidates: Sequence[WeightsCandidate], names: frozenset[str], entry: str | None, place: Path
) -> tuple[WeightsCandidate, list[str]]:
    """The candidate that is meant, and notes on what was taken and what else there is.

    Without `entry`, the one with the most of the network's `names`; of weights and their moving average, the average,
    as timm does. Raises `WeightsError` where that does not decide.
    """
    if entry is not None:
        meant = [candidate for candidate in candidates if candidate.label == entry] or [
            candidate for candidate in candidates if candidate.answers_to(entry)
        ]
        if len(meant) != 1:
            rule = "`--entry` must name one of the networks in the file"
            raise WeightsError(rule, value=entry, place=str(place), remedy=f"There are: {_labels(candidates)}.")
        return meant[0], _notes(meant[0], candidates, "as `--entry` says")
    known = _distinct(candidates)
    most = max(_matches(candidate, names) for candidate in known)
    distinct = [candidate for candidate in known if _matches(candidate, names) == most]
    if len(distinct) == 1:
        reason = "a moving average" if distinct[0].is_average else ""
        return distinct[0], _notes(distinct[0], known, reason)
    averages, others = [c for c in distinct if c.is_average], [c for c in distinct if not c.is_average]
    if len(averages) == len(others) == 1 and others[0].is_plain:
        return averages[0], _notes(averages[0], known, "the moving average, which timm takes, too")
    swapped = any(SWAPPED in candidate.path for candidate in distinct)
    why = (
        f" (OpenMMLab's EMA hook saves the average as `state_dict`, the raw weights as `{SWAPPED}`)" if swapped else ""
    )
    raise WeightsError(
        f"The file holds {len(distinct)} networks, and which is meant must be said{why}",
        value=_labels(distinct),
        place=str(place),
        remedy=f"Name one: `harness weights import FILE --entry {distinct[0].label} ...`.",
    )


def stand_ins(tree: object) -> Iterator[tuple[str, str]]:
    """(key, class) of the objects in a checkpoint that are neither tensors nor plain values; the file itself is ""."""
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
        others = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
        own = {
            name.removeprefix(prefix): value
            for name, value in entries.items()
            if name.startswith(prefix) and not (others and name.startswith(others))
        }
        left_out = tuple(name for name in entries if not name.startswith(prefix))
        candidate = WeightsCandidate(path, prefix, own, left_out)
        yield candidate if f"{classifier}.weight" in own else _with_head(candidate, entries, classifier)


def _with_head(candidate: WeightsCandidate, entries: Entries, classifier: str) -> WeightsCandidate:
    """A backbone with the classifier beside it, where there is one of a usual name."""
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
    """The prefix that leaves the longest of the network's names, if there is one."""
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
    """Without those whose entries are equal to those of an earlier one."""
    kept: list[WeightsCandidate] = []
    for candidate in candidates:
        if not any(_are_equal(candidate.entries, other.entries) for other in kept):
            kept.append(candidate)
    return kept


def _are_equal(one: Entries, other: Entries) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


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
        more = ", ..." if len(taken.left_out) > MAX_NAMED else ""
        listed = ", ".join(name[:80] for name in taken.left_out[:MAX_NAMED])
        count = len(taken.left_out)
        notes.append(f"left out, as not the network's: {count} {'entry' if count == 1 else 'entries'} ({listed}{more})")
    return notes


def _labels(candidates: Sequence[WeightsCandidate]) -> str:
    return ", ".join(f"`{candidate.label}`" for candidate in candidates)
