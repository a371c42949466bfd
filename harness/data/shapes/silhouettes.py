"""Eight silhouettes as closed curves around the origin, and their poses in the scene.

Units: the scene is the square [0, 64] x [0, 64] at any resolution, x to the right and y down. Every silhouette is
scaled to an outline of the same length, so that the length is no cue to the class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

SCENE = 64.0
"""Side of the scene."""
OUTLINE = 138.0
"""Length of every silhouette's outline at scale 1: that of a disc of radius 22."""

Curve = NDArray[np.float64]
"""(P, 2): the corners of a closed polygon, the first not repeated."""


def _arc(radius: float, start: float, end: float, x: float = 0.0) -> Curve:
    """Part of a circle around (x, 0), as a polygon of 96 corners that leaves out the end."""
    angles = np.linspace(start, end, 96, endpoint=False)
    return np.stack([x + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _polygon(corners: int, inner: float | None = None) -> Curve:
    """A regular polygon on the unit circle with a corner at the top; with `inner`, a star with that inner radius."""
    steps = corners if inner is None else 2 * corners
    angles = -np.pi / 2 + 2 * np.pi * np.arange(steps) / steps
    radii = np.ones(steps) if inner is None else np.where(np.arange(steps) % 2, inner, 1.0)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _box(half_width: float, half_height: float) -> Curve:
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (half_width, half_height)


def _cross(half_arm: float = 0.34) -> Curve:
    quarter = np.array([[half_arm, -1.0], [half_arm, -half_arm], [1.0, -half_arm]])
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in np.pi / 2 * np.arange(4)]
    return np.concatenate([quarter @ turn.T for turn in turns])


def _crescent(bite: float = 0.55) -> Curve:
    """A unit disc without the unit disc that is `bite` to its right."""
    tip = np.arccos(bite / 2)
    back = _arc(1.0, tip, 2 * np.pi - tip, x=0.4)
    front = _arc(1.0, np.pi + tip, np.pi - tip, x=0.4 + bite)
    return np.concatenate([back, front])


_UNIT: dict[str, Sequence[Curve]] = {
    "disc": [_arc(1.0, 0.0, 2 * np.pi)],
    "triangle": [_polygon(3)],
    "square": [_box(1.0, 1.0)],
    "star": [_polygon(5, inner=0.45)],
    "cross": [_cross()],
    "ring": [_arc(1.0, 0.0, 2 * np.pi), _arc(0.5, 0.0, 2 * np.pi)],
    "crescent": [_crescent()],
    "bar": [_box(1.0, 0.3)],
}
NAMES = tuple(_UNIT)
"""The classes, in the order of the labels. A second curve of a silhouette is its hole."""


def walk(curve: Curve) -> tuple[Curve, NDArray[np.float64]]:
    """The corners around the closed curve, with the first one repeated at the end, and the arc length up to each."""
    corners = np.concatenate([curve, curve[:1]])
    steps = np.hypot(*np.diff(corners, axis=0).T)
    return corners, np.concatenate([[0.0], np.cumsum(steps)])


@cache
def silhouette(label: int) -> tuple[Curve, ...]:
    """The curves of a class around the origin, with the total length `OUTLINE`."""
    curves = _UNIT[NAMES[label]]
    scale = OUTLINE / sum(float(walk(curve)[1][-1]) for curve in curves)
    return tuple(curve * scale for curve in curves)


@dataclass(frozen=True, slots=True)
class Pose:
    """Position, scale and rotation of a silhouette in the scene."""

    scale: float
    angle: float
    """Radians."""
    x: float
    y: float

    def place(self, points: Curve) -> Curve:
        """Transform the points of a silhouette to the scene."""
        cos, sin = np.cos(self.angle) * self.scale, np.sin(self.angle) * self.scale
        placed: Curve = points @ np.array([[cos, sin], [-sin, cos]]) + np.array([self.x, self.y])
        return placed


def outline(label: int, pose: Pose) -> list[Curve]:
    """The curves of a class in the scene."""
    return [pose.place(curve) for curve in silhouette(label)]


SCALES = (0.85, 1.05)
ANGLE = np.deg2rad(15.0)
"""Largest rotation of an object to either side."""
SHIFT = 4.0
"""Largest shift of an object from the center, further limited by the border."""


def draw_pose(rng: np.random.Generator, label: int) -> Pose:
    """A random pose with the whole silhouette inside the scene."""
    scale, angle = rng.uniform(*SCALES), rng.uniform(-ANGLE, ANGLE)
    centred = Pose(scale, angle, 0.0, 0.0)
    corners = np.concatenate(outline(label, centred))
    low = np.maximum(SCENE / 2 - SHIFT, 1.0 - corners.min(axis=0))
    high = np.minimum(SCENE / 2 + SHIFT, SCENE - 1.0 - corners.max(axis=0))
    assert (low <= high).all(), "a silhouette at its largest fits into the scene"
    x, y = rng.uniform(low, high)
    return Pose(scale, angle, x, y)


def fill(curves: Sequence[Curve], resolution: int) -> NDArray[np.bool_]:
    """The pixels, (H, W), whose centers are inside the curves by the even-odd rule: a second curve is a hole."""
    starts = np.concatenate(curves) * (resolution / SCENE)
    ends = np.concatenate([np.roll(curve, -1, axis=0) for curve in curves]) * (resolution / SCENE)
    rows = np.arange(resolution) + 0.5
    edge, row = np.nonzero((starts[:, 1, None] <= rows) != (ends[:, 1, None] <= rows))
    (x0, y0), (x1, y1) = starts[edge].T, ends[edge].T
    crossing = x0 + (rows[row] - y0) / (y1 - y0) * (x1 - x0)
    column = np.clip(np.ceil(crossing - 0.5), 0, resolution).astype(np.int64)
    toggles = np.bincount(row * (resolution + 1) + column, minlength=resolution * (resolution + 1))
    crossed = toggles.reshape(resolution, -1)[:, :-1].cumsum(axis=1)
    return (crossed % 2).astype(np.bool_)


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the smallest box around the mask's pixels, x1 and y1 exclusive."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
