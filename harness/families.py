"""The families of networks, and what of a spec each of them has."""

from typing import NamedTuple


class Family(NamedTuple):
    """What a network of the family can vary."""

    stages: int
    stem_strides: tuple[int, ...]
    """Possible total strides of the stem."""
    lacks: tuple[str, ...] = ()
    """Fields of a spec that mean nothing here and stand at their default."""


FAMILIES: dict[str, Family] = {
    "replknet": Family(stages=4, stem_strides=(2, 4)),
}
