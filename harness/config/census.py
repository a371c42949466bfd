"""How many networks of a space satisfy its rules and budgets, and which: by full enumeration, or from a sample.

Computing the cost of a network takes a fraction of a millisecond, so a small space is enumerated completely. From a
large one a sample of combinations is drawn; the share of feasible ones has a confidence interval (Clopper & Pearson
1934), and if none is feasible, a local search starts from those that break rules and budgets least.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from harness.config.axes import Axis, Choice, Sampler, Value, random_sampler
from harness.config.space import Candidate, Space

MAX_PRICED = 20_000
"""Largest space, in combinations, that is enumerated, which takes about 6 s."""
SMALL = 1_000
"""Largest space, in combinations, that is enumerated even if it is not scarce."""
MAX_DRAWS = 5_000
"""Number of draws from a larger space."""
PROBES = 400
"""Number of draws that decide whether a space is scarce."""
SCARCE_SHARE = 0.1
"""Share of feasible networks below which a space is scarce."""
STARTS = 5
"""Number of networks from which the local search starts."""
NEIGHBORS = 12
"""Number of values of a long axis that one step of the local search tries."""


@dataclass(frozen=True)
class SpaceCensus:
    """The feasible networks of a space, complete or from a sample."""

    size: int
    """Number of combinations of all axes."""
    priced: int
    """Number of different networks whose cost was computed; all of the space if the census is complete."""
    feasible: tuple[Candidate, ...]
    """The networks within rules and budgets."""
    is_complete: bool
    draws: int = 0
    """Number of combinations drawn, if the census is not complete."""
    feasible_draws: int = 0
    """Number of draws within rules and budgets."""
    ruled_out: Counter[str] = field(default_factory=Counter)
    """Number of infeasible networks by each rule and budget that they break."""
    least: dict[str, int] = field(default_factory=dict)
    """The lowest cost of any network, by budget."""
    noun: str = "networks"
    """What is counted: `configurations` where networks are the same with several recipes."""
    nearest: Candidate | None = None
    """The network that breaks rules and budgets least; None if a feasible one exists."""

    @property
    def is_scarce(self) -> bool:
        """Whether the share of feasible networks is below `SCARCE_SHARE`."""
        share = (
            len(self.feasible) / max(1, self.priced) if self.is_complete else self.feasible_draws / max(1, self.draws)
        )
        return share < SCARCE_SHARE

    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the share of combinations within rules and budgets, from the draws."""
        from scipy.special import betaincinv

        k, n = self.feasible_draws, self.draws
        low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, 0.025))
        high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 0.975))
        return low, high

    def text(self) -> str:
        """A summary as `2 of 10,125 networks are within rules and budgets`."""
        if self.is_complete:
            are = "is" if len(self.feasible) == 1 else "are"
            return f"{len(self.feasible):,} of {self.priced:,} {self.noun} {are} within rules and budgets"
        low, high = self.interval()
        share = (
            f"about {100 * self.feasible_draws / self.draws:.2g} % of {self.size:,} combinations are within "
            f"rules and budgets"
        )
        return f"{share} (95 % interval {100 * low:.2g} to {100 * high:.2g} %, from {self.draws:,} draws)"

    @property
    def is_whole(self) -> bool:
        """Whether every network whose cost was computed is within rules and budgets."""
        return len(self.feasible) == self.priced

    def nearest_to(
        self, params: dict[str, Value], axes: dict[str, Axis], excluded: Collection[str]
    ) -> Candidate | None:
        """The feasible network nearest to these choices whose fingerprint is not in `excluded`, if there is one."""
        left = (candidate for candidate in self.feasible if candidate.fingerprint not in excluded)
        return min(left, key=lambda candidate: distance(candidate.params, params, axes), default=None)


def distance(a: dict[str, Value], b: dict[str, Value], axes: dict[str, Axis]) -> float:
    """Distance of two configurations: the sum over axes of the share of its length, or 1 on unordered axes."""
    return sum(_apart(axes[name], a.get(name), b.get(name)) for name in axes)


@lru_cache(maxsize=4)
def take_census(space: Space) -> SpaceCensus:
    """Take the census of a space: by enumeration if it is small enough, else from a sample; deterministic."""
    if space.size <= SMALL:
        return _census(space, list(space.grid()), is_complete=True)
    probes = _draw(space, PROBES)
    if sum(candidate.is_feasible for candidate in probes) >= SCARCE_SHARE * PROBES:
        return _sampled(space, probes)
    if space.size <= MAX_PRICED:
        return _census(space, list(space.grid()), is_complete=True)
    draws = _draw(space, MAX_DRAWS)
    census = _sampled(space, draws)
    return census if census.feasible else _downhill(space, census, draws)


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
        "configurations" if space.has_recipe_axes else "networks",
        None if feasible else min(tried, key=_excess, default=None),
    )


def _draw(space: Space, count: int) -> list[Candidate]:
    choose = random_sampler(0)
    return [space.sample(choose) for _ in range(count)]


def _downhill(space: Space, census: SpaceCensus, draws: list[Candidate]) -> SpaceCensus:
    """The census with the results of a local search from the nearest networks, which changes one axis at a time."""
    nearest = sorted({candidate.fingerprint: candidate for candidate in draws}.values(), key=_excess)[:STARTS]
    ends = [_descend(space, candidate) for candidate in nearest]
    feasible = {candidate.fingerprint: candidate for candidate in ends if candidate.is_feasible}
    nearest_end = None if feasible else min(ends, key=_excess)
    return replace(census, feasible=tuple(feasible.values()), nearest=nearest_end)


def _descend(space: Space, start: Candidate) -> Candidate:
    candidate = start
    while not candidate.is_feasible:
        best = min(_neighbors(space, candidate), key=_excess, default=candidate)
        if _excess(best) >= _excess(candidate):
            return candidate
        candidate = best
    return candidate


def _neighbors(space: Space, candidate: Candidate) -> Iterator[Candidate]:
    for name, axis in space.axes.items():
        for i in _indices(axis, candidate.params.get(name)):
            yield space.sample(_sampler({**candidate.params, name: axis.at(i)}))


def _sampler(params: dict[str, Value]) -> Sampler:
    """A sampler of these values; the first value on an axis that was not active before."""
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
