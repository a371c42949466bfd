"""The ways to build a large kernel, as values: what a cost formula and a block both need to know of one.

Letters: k side of the large kernel, s side of the small kernel parallel to it.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """What a kind of large kernel can be combined with."""

    about: str
    has_small: bool = False
    """Whether a parallel small kernel (`reparam`) has a place in it."""
    can_be_dense: bool = False
    dilations: tuple[int, int] = (1, 1)
    """The least and the largest `dilation`."""
    fields: tuple[str, ...] = ()
    """Fields of a spec that count with this kind alone."""


KINDS: dict[str, Kind] = {
    "plain": Kind("one k x k convolution", has_small=True, can_be_dense=True, dilations=(1, 1000)),
}


class Kernel(NamedTuple):
    """One large kernel: its kind and the values that a spec gives for a stage."""

    k: int
    s: int | None = None
    kind: str = "plain"
    dilation: int = 1
    depthwise: bool = True
    stripe: int = 5
    band_ratio: float = 0.125


def has_place_for(s: object, k: object, kind: object, dilation: object) -> bool:
    """Whether a small kernel of side s can stand beside that large one; false for values that make no kernel."""
    if s is None:
        return True
    if not (isinstance(s, int) and isinstance(k, int) and isinstance(kind, str) and kind in KINDS):
        return False
    return s <= k and dilation == 1 and KINDS[kind].has_small
