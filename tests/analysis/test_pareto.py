"""Fronts, ranks, knees and hypervolumes against brute force on small grids of values."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.statistics.pareto import (
    crowding_distances,
    dominates,
    front_positions,
    hypervolume_shares,
    knee,
    pareto_ranks,
    reference_point,
)

SIDE = 4


def points(m: int) -> st.SearchStrategy[np.ndarray]:
    row = st.lists(st.integers(0, SIDE), min_size=m, max_size=m)
    return st.lists(row, min_size=1, max_size=9).map(lambda rows: np.array(rows, dtype=float))


any_points = st.integers(1, 4).flatmap(points)


def brute_force(table: np.ndarray) -> float:
    """The share of the box that points dominate, by the cells of the grid that their coordinates draw."""
    reference, ideal = reference_point(table), table.max(axis=0)
    varied = ideal > reference
    if not varied.any():
        return 1.0
    edges = [np.unique([low, *column]) for low, column in zip(reference[varied], table[:, varied].T, strict=True)]
    volume = 0.0
    for cell in itertools.product(*(range(len(edge) - 1) for edge in edges)):
        upper = np.array([edge[i + 1] for edge, i in zip(edges, cell, strict=True)])
        if any((row >= upper).all() for row in table[:, varied]):
            volume += float(np.prod([edge[i + 1] - edge[i] for edge, i in zip(edges, cell, strict=True)]))
    return volume / float((ideal - reference)[varied].prod())


@settings(max_examples=100, deadline=None)
@given(any_points)
def test_a_hypervolume_is_the_volume_of_the_dominated_cells(table: np.ndarray) -> None:
    shares = hypervolume_shares(table)
    is_exact = int((table.max(axis=0) > table.min(axis=0)).sum()) <= 2
    assert shares[-1] == pytest.approx(brute_force(table), abs=1e-9 if is_exact else 0.015)
    assert shares == sorted(shares) and 0 < shares[-1] <= 1 + 1e-9


@settings(max_examples=100, deadline=None)
@given(points(2))
def test_the_course_of_the_hypervolume_is_that_of_the_points_so_far(table: np.ndarray) -> None:
    reference, ideal = reference_point(table), table.max(axis=0)
    for n, share in enumerate(hypervolume_shares(table), 1):
        so_far = np.vstack([table[:n], [[ideal[0], reference[1]], [reference[0], ideal[1]]]])  # of the same box
        clipped = np.maximum(so_far, reference)
        area = 0.0
        xs, ys = (np.unique([reference[i], *clipped[:, i]]) for i in (0, 1))
        for x, y in itertools.product(range(len(xs) - 1), range(len(ys) - 1)):
            corner = np.array([xs[x + 1], ys[y + 1]])
            area += (xs[x + 1] - xs[x]) * (ys[y + 1] - ys[y]) * any((row >= corner).all() for row in table[:n])
        if (ideal > reference).all():
            assert share == pytest.approx(area / float((ideal - reference).prod()))


@settings(max_examples=150, deadline=None)
@given(any_points)
def test_ranks_are_those_of_fronts_that_are_removed_one_after_another(table: np.ndarray) -> None:
    left, rank = list(range(len(table))), 0
    expected: dict[int, int] = {}
    while left:
        front = [i for i in left if not any(dominates(table[j], table[i]) for j in left)]
        expected |= dict.fromkeys(front, rank)
        left, rank = [i for i in left if i not in front], rank + 1
    assert pareto_ranks(table).tolist() == [expected[i] for i in range(len(table))]
    assert front_positions(table).tolist() == [i for i in range(len(table)) if expected[i] == 0]
    first = pareto_ranks(table, least=3).tolist()
    assert all(rank == expected[i] or sum(r < rank for r in first) >= 3 for i, rank in enumerate(first))


@settings(max_examples=100, deadline=None)
@given(any_points, st.randoms())
def test_crowding_does_not_depend_on_the_order(table: np.ndarray, random: object) -> None:
    order = np.array(sorted(range(len(table)), key=lambda _: random.random()))  # type: ignore[attr-defined]
    once, again = crowding_distances(table), crowding_distances(table[order])
    np.testing.assert_allclose(once[order], again)


def test_crowding_is_the_width_of_the_gap_around_a_point() -> None:
    table = np.array([[0.0, 10.0], [1.0, 8.0], [4.0, 2.0], [5.0, 0.0]])
    assert crowding_distances(table).tolist() == [np.inf, 4 / 5 + 8 / 10, 4 / 5 + 8 / 10, np.inf]


def test_the_knee_is_farthest_from_the_line_between_the_extremes() -> None:
    front = np.array([[0.0, 100.0], [5.0, 60.0], [8.0, 55.0], [10.0, 0.0]])
    scaled = front / [10, 100]
    by_hand = [abs(x + y - 1) / np.sqrt(2) for x, y in scaled]
    assert knee(front) == int(np.argmax(by_hand)) == 2
    assert knee(front * [3.0, 0.01] + [7.0, -2.0]) == 2, "units play no role"


def test_there_is_no_knee_of_two_points_nor_of_a_front_that_bends_inwards() -> None:
    assert knee(np.array([[0.0, 1.0], [1.0, 0.0]])) is None
    assert knee(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])) is None
    assert knee(np.array([[0.0, 1.0], [0.4, 0.4], [1.0, 0.0]])) is None
    assert knee(np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])) is None, "on the line"


def test_the_knee_of_three_objectives_is_nearest_to_the_best_of_each() -> None:
    front = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.6, 0.6, 0.6], [0.7, 0.2, 0.5]])
    assert knee(front) == 3
    of_one_kind = np.array([[1.0, 0.0, 1.0], [0.75, 0.4, 0.6], [0.0, 1.0, 0.0]])
    assert knee(of_one_kind) == 1, "two objectives with the same extremes do not make it the knee"
