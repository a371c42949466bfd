"""Pareto fronts of points with several objectives: ranks, crowding, the knee and the hypervolume; arrays alone.

Shapes: points are (N, M), N configurations with M objectives, all of them maximized (an objective that is minimized has
its sign changed) and finite.
"""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
MARGIN = 0.1
"""Distance of the reference point from the worst value of each objective, as a share of the range of its values."""
SAMPLES = 32_768
"""Number of random points with which the hypervolume of more than two objectives is estimated."""
ON_THE_LINE = 1e-9
"""Distance from the line between the extremes up to which a point is on it."""
LEAST_FOR_KNEE = 3
"""Smallest number of different points of a front with a knee: two are both extremes."""


def dominates(one: Points, other: Points) -> bool:
    """Whether a point is at least as good in every objective and better in one."""
    return bool((one >= other).all() and (one > other).any())


def front_positions(points: Points) -> NDArray[np.int64]:
    """Positions of the points that no other one dominates, in increasing order; equal points do not dominate."""
    order = np.lexsort(points.T[::-1])[::-1]  # no point dominates an earlier one
    front: list[NDArray[np.int64]] = []
    while len(order):
        first = points[order[0]]
        front.append(order[(points[order] == first).all(axis=1)])
        order = order[(points[order] > first).any(axis=1)]
    return np.sort(np.concatenate(front)) if front else np.zeros(0, dtype=np.int64)


def pareto_ranks(points: Points, *, least: int | None = None) -> NDArray[np.int64]:
    """The non-dominated rank of each point, (N,): 0 on the front, 1 on the front of the others, ... (Deb 2002).

    With `least`, ranks end when as many points have one; the others all have the next rank.
    """
    if points.shape[1] == 2:
        return _ranks_of_two(points)
    ranks = np.zeros(len(points), dtype=np.int64)
    left, rank = np.arange(len(points)), 0
    while len(left):
        ranks[left] = rank
        if least is not None and len(points) - len(left) >= least:
            break
        left, rank = np.delete(left, front_positions(points[left])), rank + 1
    return ranks


def _ranks_of_two(points: Points) -> NDArray[np.int64]:
    """The ranks for two objectives, in a time that hardly grows faster than the number of points (Jensen 2003)."""
    ranks = np.zeros(len(points), dtype=np.int64)
    lowest: list[float] = []  # by rank, the largest second objective so far, with its sign changed; increasing
    before: tuple[tuple[float, ...], int] | None = None
    for i in np.lexsort(points.T[::-1])[::-1].tolist():  # only earlier points dominate later ones
        point = tuple(points[i].tolist())
        rank = before[1] if before is not None and before[0] == point else bisect_right(lowest, -point[1])
        if rank == len(lowest):
            lowest.append(-point[1])
        lowest[rank] = min(lowest[rank], -point[1])
        ranks[i], before = rank, (point, rank)
    return ranks


def crowding_distances(points: Points) -> Points:
    """How far the neighbors of each point are, over all objectives, as shares of their ranges, (N,) (Deb 2002).

    The extremes of an objective have an infinite distance; equal points have the same one.
    """
    different, which = np.unique(points, axis=0, return_inverse=True)
    distances = np.zeros(len(different))
    for column in different.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]]
        if width == 0:
            continue
        distances[column == column[order[0]]] = np.inf
        distances[column == column[order[-1]]] = np.inf
        if len(order) > 2:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return np.asarray(distances[which.reshape(-1)])


def knee(front: Points) -> int | None:
    """Position of the knee of a front, whose objectives are scaled to [0, 1] by its range; of equal ones, the first.

    Of two objectives, it is the point with the largest distance from the line between the extremes, on its better side;
    None if no point is there. Of more, it is the point with the smallest distance to the one that is best in all:
    several objectives may have the same extreme, so that there is no plane through them. None for fewer than three
    different points.
    """
    low, high = front.min(axis=0), front.max(axis=0)
    if len(np.unique(front, axis=0)) < LEAST_FOR_KNEE:
        return None
    scaled = (front - low) / np.where(high > low, high - low, 1.0)
    if front.shape[1] > 2:
        return int(((1 - scaled) ** 2)[:, high > low].sum(axis=1).argmin())
    beyond = scaled.sum(axis=1) - 1
    return None if beyond.max() <= ON_THE_LINE else int(beyond.argmax())


def reference_point(points: Points) -> Points:
    """The reference point of hypervolumes, (M,): worse than the worst value of each objective by `MARGIN` of its range.

    The margin lets the extremes of a front count; an objective with one value has its own as the reference.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray(low - MARGIN * (high - low))


def hypervolume_shares(points: Points) -> list[float]:
    """The hypervolume of the points up to each one, as a share of the box between the reference and the ideal point.

    The ideal point has the best value of each objective. Objectives in which all points are equal are left out; if that
    is all of them, the share is 1. It is exact for two objectives. For more, where the exact time grows exponentially,
    it is the share of `SAMPLES` random points of the box, always the same ones, with a standard error below 0.003.
    """
    low, high = reference_point(points), points.max(axis=0)
    varied = high > low
    if not varied.any():
        return [1.0] * len(points)
    scaled = (points[:, varied] - low[varied]) / (high[varied] - low[varied])
    return _exact_shares(scaled) if scaled.shape[1] <= 2 else _sampled_shares(scaled)


def _exact_shares(scaled: Points) -> list[float]:
    """The area, or the length, that the points up to each one dominate above the origin."""
    shares: list[float] = []
    front = scaled[:0]
    for point in scaled:
        if not (front >= point).all(axis=1).any():
            front = np.vstack([front[~(point >= front).all(axis=1)], point])
            ordered = front[np.argsort(-front[:, 0])]  # by decreasing first objective, the last one increases
            heights = np.diff(ordered[:, -1], prepend=0.0)
            shares.append(float((ordered[:, 0] * heights).sum()) if scaled.shape[1] == 2 else float(front.max()))
        else:
            shares.append(shares[-1])
    return shares


def _sampled_shares(scaled: Points) -> list[float]:
    """The share of random points of the unit cube that the points up to each one dominate."""
    sample = np.random.default_rng(0).random((SAMPLES, scaled.shape[1]))
    shares, left = [], sample
    for point in scaled:
        left = left[(left > point).any(axis=1)]
        shares.append(1 - len(left) / SAMPLES)
    return shares
