"""How many networks of a space are within its rules and budgets, and which: all of them counted, or a sample.

A network costs a fraction of a millisecond to price, so a small space is priced as a whole. Of a large one as many
combinations are drawn; the share of those within rules and budgets has an interval (Clopper & Pearson 1934), and where
none is, the search goes downhill from the nearest ones.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from harness.config.axes import Axis, Choice, Sampler, Value, random_sampler
from harness.config.space import Candidate, Space

MAX_PRICED = 20_000
"""Combinations of a space that is priced as a whole, which takes some 6 s."""
SMALL = 1_000
"""Combinations that are priced as a whole even if the space is not scarce."""
MAX_DRAWS = 5_000
"""Draws from a larger space."""
PROBES = 400
"""Draws that tell whether a space is scarce."""
SCARCE_SHARE = 0.1
"""Share of networks within rules and budgets below which a space is scarce."""
STARTS = 5
"""Nearest networks from which the search goes downhill."""
NEIGHBORS = 12
"""Values of a long axis that one step of the search tries."""


@dataclass(frozen=True)
class SpaceCensus:
    """What is known of a space."""

    size: int
    """Combinations of all axes."""
    priced: int
    """Different networks that were priced; all of them where it is complete."""
    feasible: tuple[Candidate, ...]
    """Those within rules and budgets."""
    is_complete: bool
    draws: int = 0
    """Combinations that were drawn, where it is not complete."""
    feasible_draws: int = 0
    """Draws that were within rules and budgets."""
    ruled_out: Counter[str] = field(default_factory=Counter)
    """The others, by every rule and budget that they break."""
    least: dict[str, int] = field(default_factory=dict)
    """The lowest cost of any network, by budget."""
    nearest: Candidate | None = None
    """The network that breaks rules and budgets least; None where one breaks none."""

    @property
    def is_scarce(self) -> bool:
        """Whether few networks are within rules and budgets."""
        share = (
            len(self.feasible) / max(1, self.priced) if self.is_complete else self.feasible_draws / max(1, self.draws)
        )
        return share < SCARCE_SHARE

    def interval(self) -> tuple[float, float]:
        """The share of combinations within rules and budgets, with a confidence of 95 %, as far as draws tell."""
        from scipy.special import betaincinv

        k, n = self.feasible_draws, self.draws
        low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, 0.025))
        high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 0.975))
        return low, high

    def text(self) -> str:
        """As `2 of 10,125 networks are within rules and budgets`."""
        if self.is_complete:
            are = "is" if len(self.feasible) == 1 else "are"
            return f"{len(self.feasible):,} of {self.priced:,} networks {are} within rules and budgets"
        low, high = self.interval()
        share = (
            f"about {100 * self.feasible_draws / self.draws:.2g} % of {self.size:,} combinations are within "
            f"rules and budgets"
        )
        return f"{share} (95 % interval {100 * low:.2g} to {100 * high:.2g} %, from {self.draws:,} draws)"

    @property
    def is_whole(self) -> bool:
        """Whether every network that was priced is within rules and budgets."""
        return len(self.feasible) == self.priced

    def nearest_to(self, params: dict[str, Value], axes: dict[str, Axis], known: Collection[str]) -> Candidate | None:
        """The feasible network nearest to some choices that is not known yet, by its fingerprint; None for none."""
        left = (candidate for candidate in self.feasible if candidate.fingerprint not in known)
        return min(left, key=lambda candidate: distance(candidate.params, params, axes), default=None)


def distance(a: dict[str, Value], b: dict[str, Value], axes: dict[str, Axis]) -> float:
    """How far two configurations are apart: on each axis the share of its length, or 1 where it has no order."""
    return sum(_apart(axes[name], a.get(name), b.get(name)) for name in axes)


@lru_cache(maxsize=4)
def take_census(space: Space) -> SpaceCensus:
    """Price the space: as a whole where it is small enough, else as many draws from it; the same every time."""
    if space.size <= SMALL:
        return _count(space, space.grid())
    probes = _draw(space, PROBES)
    if sum(candidate.is_feasible for candidate in probes) >= SCARCE_SHARE * PROBES:
        return _sampled(space, probes)
    if space.size <= MAX_PRICED:
        return _count(space, space.grid())
    draws = _draw(space, MAX_DRAWS)
    found = _sampled(space, draws)
    return found if found.feasible else _downhill(space, found, draws)


def _count(space: Space, candidates: Iterable[Candidate]) -> SpaceCensus:
    tried = list(candidates)
    return _census(space, tried, is_complete=True)


def _sampled(space: Space, draws: list[Candidate]) -> SpaceCensus:
    different = {candidate.fingerprint: candidate for candidate in draws}
    hits = sum(candidate.is_feasible for candidate in draws)
    return _census(space, list(different.values()), draws=len(draws), hits=hits)


def _census(
    space: Space, tried: list[Candidate], *, is_complete: bool = False, draws: int = 0, hits: int = 0
) -> SpaceCensus:
    feasible = tuple(candidate for candidate in tried if candidate.is_feasible)
    costs = [candidate.cost for candidate in tried if candidate.cost is not None]
    return SpaceCensus(
        space.size,
        len(tried),
        feasible,
        is_complete,
        draws,
        hits,
        Counter(key for candidate in tried for key in candidate.violations),
        {name: min(getattr(cost, name) for cost in costs) for name in space.budgets if costs},
        None if feasible else min(tried, key=_excess, default=None),
    )


def _draw(space: Space, count: int) -> list[Candidate]:
    choose = random_sampler(0)
    return [space.sample(choose) for _ in range(count)]


def _downhill(space: Space, census: SpaceCensus, draws: list[Candidate]) -> SpaceCensus:
    """The census with the networks that are found from the nearest ones, one axis changed at a time."""
    nearest = sorted({candidate.fingerprint: candidate for candidate in draws}.values(), key=_excess)[:STARTS]
    ends = [_descend(space, candidate) for candidate in nearest]
    feasible = {candidate.fingerprint: candidate for candidate in ends if candidate.is_feasible}
    return SpaceCensus(
        census.size,
        census.priced,
        tuple(feasible.values()),
        is_complete=False,
        draws=census.draws,
        feasible_draws=census.feasible_draws,
        ruled_out=census.ruled_out,
        least=census.least,
        nearest=None if feasible else min(ends, key=_excess),
    )


def _descend(space: Space, start: Candidate) -> Candidate:
    here = start
    while not here.is_feasible:
        best = min(_neighbors(space, here), key=_excess, default=here)
        if _excess(best) >= _excess(here):
            return here
        here = best
    return here


def _neighbors(space: Space, here: Candidate) -> Iterator[Candidate]:
    for name, axis in space.axes.items():
        for i in _indices(axis, here.params.get(name)):
            yield space.sample(_sampler({**here.params, name: axis.at(i)}))


def _sampler(params: dict[str, Value]) -> Sampler:
    """Choose these values; the first one on an axis that did not count before."""
    return lambda name, axis: params.get(name, axis.at(0))


def _indices(axis: Axis, value: Value) -> Iterable[int]:
    if len(axis) <= NEIGHBORS:
        return range(len(axis))
    last = len(axis) - 1
    near = [] if value is None or isinstance(axis, Choice) else [_index(axis, value) - 1, _index(axis, value) + 1]
    spread = [round(last * k / (NEIGHBORS - 1)) for k in range(NEIGHBORS)]
    return itertools.chain(spread, (i for i in near if 0 <= i <= last))


def _excess(candidate: Candidate) -> float:
    return sum(candidate.violations.values())


def _apart(axis: Axis, a: Value, b: Value) -> float:
    if a == b:
        return 0.0
    if isinstance(axis, Choice) or a is None or b is None:
        return 1.0
    return abs(_index(axis, a) - _index(axis, b)) / max(1, len(axis) - 1)


def _index(axis: Axis, value: Value) -> int:
    assert not isinstance(axis, Choice) and isinstance(value, int | float)
    return round((value - axis.low) / axis.step)
