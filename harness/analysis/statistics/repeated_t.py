"""Nominal levels of t tests that are repeated after every new value; exact for normal values.

Legend: n values so far, a the state, b a bound on |a|, v the probability that no bound was crossed before; A plans in
parallel, M states, P points of a quadrature.

The state of n values is a_n with T_n = sqrt(n - 1) sinh a_n. Under the null the direction of (x_1, ..., x_n) is uniform
on a sphere and independent of its length. Two facts follow:

- a_n has the density f_n(a) = c_n sech(a)^(n-1) (Student's t), c_n = Gamma(n/2) / (sqrt(pi) Gamma((n-1)/2));
- given a_(n+1), the state before it is sinh a_n = (sqrt(n) sinh a_(n+1) cosh w - sinh w) / sqrt(n + 1), where w has the
  density f_n and is independent of a_(n+1); states further back depend on a_n alone.

So v_(n+1)(a) is the mean of v_n(a_n) over those w for which |a_n| is below its bound: an interval in closed form. The
bound at n + 1 is where f_(n+1) v_(n+1) has as much mass outside as the plan spends there. Jennison & Turnbull 1991,
Biometrika 78, 133-141, show that such calculations can be exact, with another recursion.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

DEGREE = 48
"""Degree of the polynomial for v; the relative error of the levels is 5e-5 at alpha = 1e-4, and less above."""
NEGLIGIBLE = 1e-13
"""Tails of w with a density below this, relative to the center, are left out."""

_X = chebyshev.chebpts1(DEGREE + 1)
_ANGLES = np.pi / 4 * (_X + 1)
_BASIS = chebyshev.chebvander(_X, DEGREE)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)


@dataclass(frozen=True)
class _Uncrossed:
    """v by plan: even in the state, 0 beyond the edge; a series in asin(|a| / edge), in which it is smooth."""

    edge: Array
    series: Array

    def at(self, states: Array) -> Array:
        """Evaluate v at states; (A, M, P) -> (A, M, P)."""
        angles = np.arcsin(np.minimum(np.abs(states) / self.edge[:, None, None], 1))
        values: Array = chebyshev.chebval(4 / np.pi * angles - 1, self.series[:, :, None, None], tensor=False)
        return values


def nominal_levels(first: int, spent: Array) -> Array:
    """Two-sided levels of the t tests of `first`, `first` + 1, ... values; (A, looks) -> (A, looks).

    `spent` is the probability under the null, by plan, that a bound was crossed at this look or before; it rises.
    `first` is at least 2.
    """
    levels = np.empty_like(spent)
    levels[:, 0] = spent[:, 0]
    bound = _bound(first, levels[:, 0])
    uncrossed = None
    for look in range(1, spent.shape[1]):
        n = first + look
        edge = np.arcsinh(np.sqrt((1 + n * np.sinh(bound) ** 2) / (n - 1)))
        states = edge[:, None] * np.sin(_ANGLES)
        chance = _uncrossed_before(n - 1, states, bound, uncrossed)
        mass = 2 * _density(n, states) * chance * edge[:, None] * np.cos(_ANGLES)
        from_center = chebyshev.chebint(_series(mass), scl=np.pi / 4)
        bound = edge * np.sin(np.pi / 4 * (1 + _tail_point(from_center, spent[:, look] - spent[:, look - 1])))
        levels[:, look] = 2 * _distribution(n, -bound)
        uncrossed = _Uncrossed(edge, _series(chance))
    return levels


def _uncrossed_before(n: int, states: Array, bound: Array, uncrossed: _Uncrossed | None) -> Array:
    """v_(n+1) at states (A, M), from the bound at n (A,) and v_n; None means 1, if n is the first look."""
    low, high = _uncrossed_range(n, states, bound)
    if uncrossed is None:
        return _distribution(n, high) - _distribution(n, low)
    middle, half = (high + low) / 2, (high - low) / 2
    w = middle[..., None] + half[..., None] * _NODES
    before = (math.sqrt(n) * np.sinh(states)[..., None] * np.cosh(w) - np.sinh(w)) / math.sqrt(n + 1)
    means: Array = (_density(n, w) * uncrossed.at(np.arcsinh(before))) @ _WEIGHTS * half
    return means


def _uncrossed_range(n: int, states: Array, bound: Array) -> tuple[Array, Array]:
    """The interval of w in which |a_n| is below its bound: |g cosh w - sinh w| <= r.

    With g < 1 the left side is sqrt(1 - g^2) sinh(center - w), else sqrt(g^2 - 1) cosh(w - center).
    """
    g = math.sqrt(n) * np.sinh(states)
    g = np.where(np.abs(g - 1) < 1e-9, 1 + 1e-9, g)
    r = math.sqrt(n + 1) * np.sinh(bound)[:, None] / np.sqrt(np.abs(g * g - 1))
    center = np.arctanh(np.minimum(g, 1 / np.maximum(g, 1e-9)))
    half = np.where(g < 1, np.arcsinh(r), np.arccosh(np.maximum(r, 1)))
    furthest = math.acosh(NEGLIGIBLE ** (-1 / (n - 1)))
    return np.clip(center - half, -furthest, furthest), np.clip(center + half, -furthest, furthest)


def _tail_point(from_center: Array, tail: Array) -> Array:
    """The point on [-1, 1] where an integral from the center is `tail` less than at the end, by bisection."""
    target = from_center.sum(axis=0) - tail  # at 1 every Chebyshev polynomial is 1
    low, high = np.full_like(tail, -1), np.ones_like(tail)
    for _ in range(50):
        middle = (low + high) / 2
        is_short = chebyshev.chebval(middle, from_center, tensor=False) < target
        low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
    return (low + high) / 2


def _series(values: Array) -> Array:
    """Chebyshev coefficients (DEGREE + 1, A) of the polynomial through values (A, M)."""
    series: Array = (values @ _BASIS).T * (2 / len(_X))
    series[0] /= 2
    return series


def _density(n: int, a: Array) -> Array:
    c = math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2)) / math.sqrt(math.pi)
    density: Array = c * np.cosh(a) ** (1 - n)
    return density


def _distribution(n: int, a: Array) -> Array:
    from scipy.special import stdtr

    probability: Array = stdtr(n - 1, math.sqrt(n - 1) * np.sinh(a))
    return probability


def _bound(n: int, level: Array) -> Array:
    from scipy.special import stdtrit

    bound: Array = np.arcsinh(-stdtrit(n - 1, level / 2) / math.sqrt(n - 1))
    return bound
