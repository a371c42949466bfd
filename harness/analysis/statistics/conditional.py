"""The conditional error of a plan: the probability, under the null, that it rejects at one of its later looks.

Legend: n values so far, x their differences from the bound, s the state, c a bound on |s|; A plans in parallel,
M states, P points of a quadrature.

The state of n values is s_n = sum(x) / sqrt(sum(x^2)), so that |s_n| <= sqrt(n) and the t of n values is
s_n sqrt((n - 1) / (n - s_n^2)). Under the null, the next value over the length of those before it is tan(theta), where
theta has the density cos(theta)^(n-1) up to a constant, whatever the variance; and then

    s_(n+1) = s_n cos(theta) + sin(theta) = sqrt(1 + s_n^2) sin(theta + arctan(s_n)).

So the states are a Markov chain that does not depend on the variance, and the conditional error given s_n follows by
recursion from the last look: the probability that s_(n+1) crosses its bound, and otherwise the conditional error there.
It is a conditional error given the t statistic, as in Posch et al. 2004 (Biometrical Journal 46, 389-405), exact for
normal differences.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

POINTS = 240
"""Number of states between 0 and the bound with a stored conditional error; interpolated linearly in between."""
_FRACTIONS = np.sin(np.linspace(0, math.pi / 2, POINTS))
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True)
class Boundary:
    """The bounds of several plans: the two-sided levels (A,) of the t test by look; a level of 0 never rejects."""

    levels: Mapping[int, Array]

    @property
    def last(self) -> int:
        """Number of values at the last look."""
        return max(self.levels, default=0)

    def at(self, n: int) -> Array | None:
        """Bounds (A,) on |s_n|; None if there is no look at n values."""
        from scipy.special import stdtrit

        if n not in self.levels:
            return None
        t = -stdtrit(n - 1, np.minimum(self.levels[n], 1.0) / 2)
        with np.errstate(invalid="ignore"):
            s = np.sqrt(n * t**2 / (n - 1 + t**2))
        return np.where(np.isfinite(s), s, math.sqrt(n))


def conditional_error(boundary: Boundary, n: int) -> "ErrorGrid":
    """The conditional error of plans after n values: the recursion from the last look back to those after n values."""
    plans = len(next(iter(boundary.levels.values())))
    grid = None
    for m in range(boundary.last - 1, n - 1, -1):
        edge = None if m == n else boundary.at(m)
        states = (np.full(plans, math.sqrt(m)) if edge is None else edge)[:, None] * _FRACTIONS
        grid = ErrorGrid(states, _crossing_later(m, states, boundary, grid))
    return grid or ErrorGrid(np.zeros((plans, 1)), np.zeros((plans, 1)))  # 0 after the last look


@dataclass(frozen=True)
class ErrorGrid:
    """Conditional errors on a grid of states, for each plan; even in the state."""

    states: Array
    errors: Array

    def of_state(self, state: float) -> Array:
        """Conditional errors (A,) of the plans given this state."""
        return self.at(np.full((len(self.states), 1), state))[:, 0]

    def at(self, states: Array) -> Array:
        """Interpolate conditional errors at states; (A, M) -> (A, M)."""
        rows = [np.interp(np.abs(s), grid, e) for s, grid, e in zip(states, self.states, self.errors, strict=True)]
        return np.array(rows)


def _crossing_later(n: int, states: Array, boundary: Boundary, later: ErrorGrid | None) -> Array:
    """The probability (A, M) of crossing at n + 1 values or later, given states (A, M) of n values without crossing."""
    bound = boundary.at(n + 1)
    reach, turned = np.sqrt(1 + states**2), np.arctan(states)
    c = np.full((len(states), 1), math.sqrt(n + 1)) if bound is None else bound[:, None]
    furthest = math.pi / 2
    with np.errstate(invalid="ignore"):
        half = np.where(c < reach, np.arcsin(np.minimum(c / reach, 1)), furthest)
    # Not crossed: |sin(theta + turned)| <= sin(half), which is up to three intervals of theta.
    total = np.zeros_like(states)
    stays = np.zeros_like(states)
    for middle in (-math.pi, 0.0, math.pi):
        low = np.clip(middle - half - turned, -furthest, furthest)
        high = np.clip(middle + half - turned, -furthest, furthest)
        is_whole = half >= furthest
        if middle != 0:  # the intervals touch where every angle stays inside
            low, high = np.where(is_whole, 0.0, low), np.where(is_whole, 0.0, high)
        else:
            low, high = np.where(is_whole, -furthest, low), np.where(is_whole, furthest, high)
        if (low >= high).all():
            continue
        stays += _mass(n, low, high)
        if later is not None:
            total += _integral(n, low, high, states, later)
    return np.clip(1 - stays + total, 0.0, 1.0)


def _integral(n: int, low: Array, high: Array, states: Array, later: ErrorGrid) -> Array:
    """The mean of the later conditional error over angles between low and high."""
    middle, half = (low + high) / 2, (high - low) / 2
    theta = middle[..., None] + half[..., None] * _NODES
    following = states[..., None] * np.cos(theta) + np.sin(theta)
    plans, m, points = following.shape
    errors = later.at(following.reshape(plans, m * points)).reshape(plans, m, points)
    means: Array = (_density(n, theta) * errors) @ _WEIGHTS * half
    return means


def _density(n: int, theta: Array) -> Array:
    """The density of the angle of the next value after n values."""
    constant = math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2)) / math.sqrt(math.pi)
    density: Array = constant * np.cos(theta) ** (n - 1)
    return density


def _mass(n: int, low: Array, high: Array) -> Array:
    """The probability of an angle between low and high: tan(theta) sqrt(n) is Student's t with n degrees of freedom."""
    from scipy.special import stdtr

    with np.errstate(over="ignore"):
        mass: Array = stdtr(n, math.sqrt(n) * np.tan(high)) - stdtr(n, math.sqrt(n) * np.tan(low))
    return np.maximum(mass, 0.0)
