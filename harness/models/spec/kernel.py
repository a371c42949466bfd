"""The kinds of large kernel, as values that cost formulas and blocks share.

Letters: k side of the large kernel, s side of the small kernel parallel to it, d dilation, c channels.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple


class Kernel(NamedTuple):
    """A large kernel: its kind and the values of a spec for one stage."""

    k: int
    s: int | None = None
    kind: str = "plain"
    dilation: int = 1
    depthwise: bool = True
    stripe: int = 5
    band_ratio: float = 0.125


class KernelKind(NamedTuple):
    """A kind of large kernel, and the values it can be combined with."""

    about: str
    has_small: bool = False
    """Whether it can have a parallel small kernel (`reparam`)."""
    can_be_dense: bool = False
    dilations: tuple[int, int] = (1, 1)
    """The smallest and the largest `dilation`."""
    least_k: Callable[[Kernel], int] = lambda _: 1
    """The smallest side, given the other values of a kernel."""
    least_width: int = 1
    """The smallest number of channels."""
    fields: tuple[str, ...] = ()
    """Fields of a spec that are used by this kind only."""
    canonical: Callable[[Kernel], Kernel] = lambda kernel: kernel
    """Maps all specifications that build the same kernel to one of them."""


def _undilated_if_one_tap(kernel: Kernel) -> Kernel:
    """A single tap is the same with every dilation."""
    return kernel._replace(dilation=1) if kernel.k == 1 else kernel


def _plain_if_undilated(kernel: Kernel) -> Kernel:
    """`dilated_reparam` whose one branch is not dilated is `plain` with that small kernel."""
    (s, d), *others = dilated_branches(kernel.k)
    return kernel if others or d > 1 else kernel._replace(kind="plain", s=s)


def _plain_if_unshared(kernel: Kernel) -> Kernel:
    """`peripheral` without a shared weight is `plain`."""
    return kernel if max(peripheral_cells(kernel.k)) > 1 else kernel._replace(kind="plain")


def _least_with_its_taps(kernel: Kernel) -> Kernel:
    """Neighboring sides of `sequential` have the same taps: the smallest of them is canonical."""
    return kernel._replace(k=(dilated_taps(kernel.k, kernel.dilation) - 1) * kernel.dilation + 1)


KERNEL_KINDS: dict[str, KernelKind] = {
    "plain": KernelKind(
        "one k x k convolution",
        has_small=True,
        can_be_dense=True,
        dilations=(1, 1000),
        canonical=_undilated_if_one_tap,
    ),
    "dilated_reparam": KernelKind(
        "k x k, in training with parallel small dilated kernels (UniRepLKNet)",
        least_k=lambda _: 3,
        canonical=_plain_if_undilated,
    ),
    "stripes": KernelKind(
        "k x stripe parallel to stripe x k (SLaK)",
        has_small=True,
        least_k=lambda kernel: kernel.stripe,
        fields=("stripe",),
    ),
    "bands": KernelKind(
        "3 x 3, 1 x k and k x 1, each on a share of the channels (InceptionNeXt)",
        least_k=lambda _: 3,
        least_width=4,
        fields=("band_ratio",),
    ),
    "peripheral": KernelKind(
        "k x k whose outer taps share weights (PeLK)",
        has_small=True,
        canonical=_plain_if_unshared,
    ),
    "sequential": KernelKind(
        "a small kernel, then a dilated one (VAN)",
        dilations=(2, 1000),
        least_k=lambda kernel: 2 * kernel.dilation + 1,
        canonical=_least_with_its_taps,
    ),
}


def largest_small_kernel(kernel: Kernel) -> int:
    """The largest side of a small kernel parallel to this one; 0 if it cannot have one."""
    kind = KERNEL_KINDS[kernel.kind]
    if not kind.has_small or kernel.dilation != 1:
        return 0
    return min(kernel.k, kernel.stripe) if "stripe" in kind.fields else kernel.k


def fits_small_kernel(s: Any, k: Any, kind: Any, dilation: Any, stripe: Any) -> bool:
    """Whether a small kernel of side s can be parallel to this large one; false for values that make no kernel."""
    if s is None:
        return True
    if not all(isinstance(value, int) for value in (s, k, dilation, stripe)) or kind not in tuple(KERNEL_KINDS):
        return False
    return bool(s <= largest_small_kernel(Kernel(k, kind=kind, dilation=dilation, stripe=stripe)))


DILATED_BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    3: ((1, 1),),
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}
"""By k, the branches of `dilated_reparam` as (side, dilation): as in UniRepLKNet (arXiv 2311.15599); 3 is our own."""


def dilated_branches(k: int) -> tuple[tuple[int, int], ...]:
    """The small dilated kernels parallel to a k x k one, as (side, dilation); none extends over its border.

    Above 17, a rule of our own: the branches of 17, with dilations scaled with the kernel and rounded down.
    """
    if k in DILATED_BRANCHES:
        return DILATED_BRANCHES[k]
    return tuple((side, d * (k - 1) // 16) for side, d in DILATED_BRANCHES[17])


def peripheral_cells(k: int) -> tuple[int, ...]:
    """The sides of the cells that share a weight, from border to border of a k x k kernel, along either axis.

    The five in the middle are single taps; further out, sides double: 2, 4, 8, ..., the last clipped at the border.
    """
    half = k // 2
    ends = [0, *(2**i for i in range(half.bit_length()) if 2**i < half), half]  # counted from the middle tap
    arm = [after - before for before, after in pairwise(ends) if after > before]
    return (*reversed(arm), 1, *arm)


def dilated_taps(k: int, d: int) -> int:
    """The side of the second kernel of `sequential`: the smallest odd number with which the two cover k pixels.

    If k / d, rounded up, is odd, it is that: VAN's rule (arXiv 2202.09741), which does not define even numbers.
    """
    taps = -(-k // d)
    return taps - 1 if taps % 2 == 0 else taps


def band_width(c: int, ratio: float) -> int:
    """Channels of each of the three convolutions of `bands`: c * ratio, rounded down, and at least 1."""
    return max(1, int(c * ratio + 1e-9))
