"""Optuna's Gaussian process sampler, with its acquisition function maximized over the feasible networks alone.

Whether a network satisfies rules and budgets is known before it is trained. Optuna's own sampler does not know it: it
learns only from complete trials, so it would propose the same infeasible network again and again.

This module imports Optuna; it is imported only when a sampler is built.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from optuna._gp.acqf import BaseAcquisitionFunc
from optuna._gp.search_space import SearchSpace
from optuna.samplers import GPSampler, RandomSampler

from harness.config.search_methods import GP_RANDOM_TRIALS

Params = dict[str, Any]

STARTS = 5
"""Number of networks from which the local search starts."""
MAX_STEPS = 50
"""Maximum number of steps of one local search; each changes one axis."""
MAX_ALL_VALUES = 16
"""Longest axis of which a step tries all values; of a longer one, the neighbors of its value."""


class _Point(NamedTuple):
    """A network in the internal representation of Optuna's Gaussian process, with its acquisition value."""

    x: np.ndarray
    value: float


class FeasibleGPSampler(GPSampler):
    """Gaussian process sampler for axes in steps; `is_feasible` decides about the parameters of a proposal.

    `known` returns the parameters of feasible networks, for spaces in which random ones are rarely feasible.
    """

    def __init__(self, seed: int, is_feasible: Callable[[Params], bool], known: Callable[[], Sequence[Params]]) -> None:
        super().__init__(
            seed=seed,
            independent_sampler=RandomSampler(seed),
            n_startup_trials=GP_RANDOM_TRIALS,
            warn_independent_sampling=False,
        )
        self._is_feasible = is_feasible
        self._known = known
        self._feasibility: dict[tuple[Any, ...], bool] = {}

    def _optimize_acqf(self, acqf: BaseAcquisitionFunc, best_params: np.ndarray | None) -> np.ndarray:
        best = [] if best_params is None else _evaluated(acqf, best_params)
        starts = [
            *best,
            *self._starts(acqf),
        ]  # of equal values the first is taken: where nothing promises more, the best
        assert starts, "a study's space has a feasible network"
        return max((self._climb(acqf, start) for start in starts), key=lambda point: point.value).x

    def _starts(self, acqf: BaseAcquisitionFunc) -> list[_Point]:
        """The best feasible networks of a sample that covers the space, or of those that are known."""
        sampled = acqf.search_space.sample_normalized_params(self._n_preliminary_samples, self._rng.rng)
        best = sorted(_evaluated(acqf, np.unique(sampled, axis=0)), key=lambda point: -point.value)
        feasible = (point for point in best if self._is_allowed(acqf.search_space, point.x))
        starts = list(itertools.islice(feasible, STARTS))
        if starts:
            return starts
        known = self._known()
        points = acqf.search_space.get_normalized_params(known, known)  # type: ignore[arg-type]
        return sorted(_evaluated(acqf, points), key=lambda point: -point.value)[:STARTS]

    def _climb(self, acqf: BaseAcquisitionFunc, start: _Point) -> _Point:
        """Change one axis at a time to the best feasible neighbor, until none is better."""
        point, values = start, acqf.search_space.get_choices_of_discrete_params()
        for _ in range(MAX_STEPS):
            neighbors = np.array(list(_neighbors(point.x, values))).reshape(-1, len(point.x))
            better = [other for other in _evaluated(acqf, neighbors) if other.value > point.value + self._tol]
            better.sort(key=lambda other: -other.value)
            ahead = next((other for other in better if self._is_allowed(acqf.search_space, other.x)), None)
            if ahead is None:
                break
            point = ahead
        return point

    def _is_allowed(self, space: SearchSpace, x: np.ndarray) -> bool:
        params: Mapping[str, Any] = space.get_unnormalized_param(x)
        key = tuple(params.values())
        if key not in self._feasibility:
            self._feasibility[key] = self._is_feasible(dict(params))
        return self._feasibility[key]


def _evaluated(acqf: BaseAcquisitionFunc, points: np.ndarray) -> list[_Point]:
    if not len(points):
        return []
    return [_Point(x, float(value)) for x, value in zip(points, acqf.eval_acqf_no_grad(points), strict=True)]


def _neighbors(x: np.ndarray, values: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The points that differ from this one on one axis."""
    for i, choices in enumerate(values):
        current = int(np.argmin(np.abs(choices - x[i])))
        is_long = len(choices) > MAX_ALL_VALUES
        indices = (current - 2, current - 1, current + 1, current + 2) if is_long else range(len(choices))
        for j in indices:
            if j != current and 0 <= j < len(choices):
                neighbor = x.copy()
                neighbor[i] = choices[j]
                yield neighbor
