"""The rendering in which a large receptive field is needed: a dashed outline among stray dashes of other outlines.

All images have the same number of equally long dashes, with gaps between those of the object. The strays are dashes of
outlines of random classes, transposed and each shifted. A small window therefore looks much the same in every class, on
the object and on the background; only the arrangement of the dashes, over gaps, shows the silhouette.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from harness.data.shapes.silhouettes import ANGLE, NAMES, OUTLINE, SCALES, SCENE, SHIFT, Pose, silhouette, walk

DASH, GAP = 5.0, 3.0
"""Length of a dash, and of the gap before the next one of the same outline, in units of the scene."""
MAX_REMOVED = 0.2
"""Share of the object's dashes that is left out at difficulty 1; proportional to the difficulty."""
MAX_DISTRACTORS = 5.7
"""Stray dashes per dash of an object at difficulty 1; proportional to the difficulty."""
STROKE = 0.7
"""Standard deviation of the stroke's profile in units of the scene."""
NOISE = 0.08
"""Standard deviation of the noise, relative to the contrast of a line."""
BACKGROUND, LINE = 64.0, 144.0
"""Gray level of the background, and the additional brightness of a line."""
SAMPLES = 1 << 13
"""Number of points of a curve: at most 0.017 of the scene's units apart, a small part of a pixel. A power of 2."""

Points = NDArray[np.float32]
"""(..., 2): x and y in units of the scene."""


class Poses(NamedTuple):
    """The poses of the silhouettes of N images in the scene."""

    scale: NDArray[np.float64]
    angle: NDArray[np.float64]
    middle: NDArray[np.float64]
    """(N, 2): x and y."""

    def pose(self, i: int) -> Pose:
        """The pose of one image."""
        x, y = self.middle[i].tolist()
        return Pose(float(self.scale[i]), float(self.angle[i]), x, y)


@dataclass(frozen=True, slots=True)
class Clutter:
    """The amounts of removed and of stray dashes."""

    removed: float
    """Share of the object's dashes that is removed."""
    distractors: float
    """Number of stray dashes per dash of a complete object."""

    @classmethod
    def of(cls, difficulty: float) -> Self:
        """The clutter of a difficulty; none at difficulty 0."""
        return cls(MAX_REMOVED * difficulty, MAX_DISTRACTORS * difficulty)

    @property
    def dashes(self) -> int:
        """Number of dashes per image."""
        return round(OUTLINE / (DASH + GAP) * (1 - self.removed + self.distractors))


def draw_poses(rng: np.random.Generator, labels: NDArray[np.int64]) -> Poses:
    """A random pose for each of N images, with the whole silhouette inside the scene."""
    scale, angle = rng.uniform(*SCALES, len(labels)), rng.uniform(-ANGLE, ANGLE, len(labels))
    share = rng.random((len(labels), 2))
    low, high = np.empty_like(share), np.empty_like(share)
    for label in np.unique(labels):
        chosen = np.flatnonzero(labels == label)
        corners = np.concatenate(silhouette(int(label)))
        cos, sin = np.cos(angle[chosen, None]) * scale[chosen, None], np.sin(angle[chosen, None]) * scale[chosen, None]
        turned = np.stack([cos * corners[:, 0] - sin * corners[:, 1], sin * corners[:, 0] + cos * corners[:, 1]], -1)
        low[chosen] = np.maximum(SCENE / 2 - SHIFT, 1.0 - turned.min(axis=1))
        high[chosen] = np.minimum(SCENE / 2 + SHIFT, SCENE - 1.0 - turned.max(axis=1))
    assert (low <= high).all(), "a silhouette at its largest fits into the scene"
    return Poses(scale, angle, low + share * (high - low))


def draw_dashes(
    rng: np.random.Generator, labels: NDArray[np.int64], poses: Poses, clutter: Clutter, per_dash: int
) -> Points:
    """The dashes of N images, (N, dashes, per_dash, 2) in units of the scene; equally many for all images."""
    n, dashes = len(labels), clutter.dashes
    distractors = -(-dashes // fewest_dashes())
    figure = Contours.draw(rng, labels[:, None], poses.scale[:, None], poses.angle[:, None])
    others = Contours.draw(
        rng,
        rng.integers(len(NAMES), size=(n, distractors)),
        rng.uniform(*SCALES, (n, distractors)),
        rng.uniform(-ANGLE, ANGLE, (n, distractors)),
    )
    kept = np.minimum(np.rint(figure.is_dash.sum(axis=1) * (1 - clutter.removed)), dashes)
    figure_dashes = figure.choose(rng, min(dashes, figure.is_dash.shape[1]), per_dash)
    figure_dashes += poses.middle[:, None, None].astype(np.float32)
    points = others.choose(rng, dashes, per_dash)[..., ::-1]  # transposed: an orientation that no object has
    points = points + rng.uniform(0.0, SCENE, (n, dashes, 1, 2)).astype(np.float32)
    points -= np.float32(SCENE) * np.floor(points * np.float32(1 / SCENE))
    is_own = np.arange(figure_dashes.shape[1]) < kept[:, None]
    points[:, : figure_dashes.shape[1]][is_own] = figure_dashes[is_own]
    return points


@dataclass(frozen=True, slots=True)
class Contours:
    """The dashes of M outlines for each of N images, around the origin; (N, dashes), with unused entries."""

    curve: NDArray[np.intp]
    """The row of `Curves.points` that contains a dash."""
    begin: NDArray[np.float64]
    """Start of a dash on the curve, from 0 to 1."""
    reach: NDArray[np.float64]
    """Length of a dash on the curve, from 0 to 1."""
    cos: NDArray[np.float64]
    """Cosine of its outline's rotation, times the scale; `sin` accordingly."""
    sin: NDArray[np.float64]
    is_dash: NDArray[np.bool_]

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        labels: NDArray[np.int64],
        scale: NDArray[np.float64],
        angle: NDArray[np.float64],
    ) -> Self:
        """Divide outlines (N, M) into dashes with gaps between them, from a random start."""
        curves = curve_table()
        curve = curves.rows[labels]  # (N, M, curves), -1 for a second curve that a class lacks
        count = np.maximum(1, np.rint(curves.lengths[curve] * scale[..., None] / (DASH + GAP)))
        count = np.where(curve >= 0, count, 0.0)[..., None]
        dash = np.arange(curves.most_dashes)
        start = rng.random(labels.shape)[..., None, None]
        begin = (start + dash / np.maximum(count, 1)) % 1.0
        shape, flat = begin.shape, (len(labels), -1)

        def spread(values: NDArray[Any]) -> NDArray[Any]:
            return np.broadcast_to(values, shape).reshape(flat)

        cos, sin = (np.cos(angle) * scale)[..., None, None], (np.sin(angle) * scale)[..., None, None]
        reach = DASH / (DASH + GAP) / np.maximum(count, 1)
        return cls(
            spread(curve[..., None]), begin.reshape(flat), spread(reach), spread(cos), spread(sin), spread(dash < count)
        )

    def choose(self, rng: np.random.Generator, count: int, per_dash: int) -> Points:
        """`count` random dashes of every image, (N, count, per_dash, 2); unused entries are last."""
        keys = np.where(self.is_dash, rng.random(self.is_dash.shape, np.float32), np.float32(2))
        order = np.argsort(keys, axis=1)[:, :count]
        curve, *numbers = (
            np.take_along_axis(values, order, axis=1)[..., None]
            for values in (self.curve, self.begin, self.reach, self.cos, self.sin)
        )
        begin, reach, cos, sin = (values.astype(np.float32) for values in numbers)
        within = ((np.arange(per_dash) + 0.5) / per_dash).astype(np.float32)
        sample = ((begin + reach * within) * np.float32(SAMPLES)).astype(np.intp) & (SAMPLES - 1)
        at = curve_table().points[curve, sample]
        x, y = at[..., 0], at[..., 1]
        return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


class Curves(NamedTuple):
    """The curves of all silhouettes."""

    points: Points
    """(curves, SAMPLES, 2): points at equal distances along each curve."""
    lengths: NDArray[np.float64]
    """(curves,)."""
    rows: NDArray[np.intp]
    """(classes, 2): the curves of a class; -1 if it has no second one."""

    @property
    def most_dashes(self) -> int:
        """The maximum number of dashes of a curve, at the largest scale."""
        return round(float(self.lengths.max()) * SCALES[1] / (DASH + GAP))


@cache
def curve_table() -> Curves:
    """The table of curves, computed in the first call."""
    points: list[NDArray[np.float64]] = []
    lengths: list[float] = []
    rows = np.full((len(NAMES), 2), -1)
    for label in range(len(NAMES)):
        for i, (corners, walked) in enumerate(map(walk, silhouette(label))):
            rows[label, i] = len(points)
            way = (np.arange(SAMPLES) + 0.5) / SAMPLES * walked[-1]
            points.append(np.stack([np.interp(way, walked, corners[:, axis]) for axis in range(2)], axis=1))
            lengths.append(walked[-1])
    return Curves(np.stack(points).astype(np.float32), np.array(lengths), rows)


@cache
def fewest_dashes() -> int:
    """The minimum number of dashes of an outline, at the smallest scale."""
    curves = curve_table()
    counts = np.maximum(1, np.rint(curves.lengths * SCALES[0] / (DASH + GAP)))
    of_class: NDArray[np.float64] = np.where(curves.rows >= 0, counts[curves.rows], 0).sum(axis=1)
    return round(float(of_class.min()))


def points_per_dash(resolution: int) -> int:
    """Number of points per dash: four per pixel of line."""
    return max(4, round(4 * DASH * resolution / SCENE))


def rasterize_strokes(points: Points, resolution: int) -> NDArray[np.float32]:
    """Rasterize dashes (N, dashes, points, 2) in units of the scene as strokes (N, H, W); 1 on the middle of a line.

    Each point is distributed over the four pixels around it; those beyond a border wrap around to the opposite one.
    """
    n, side = len(points), resolution + 2
    at = points.reshape(n, -1, 2) * np.float32(resolution / SCENE) + np.float32(0.5)
    corner = at.astype(np.int32)  # rounds down, since no point is below 0
    right, below = np.moveaxis(at - corner, -1, 0)
    place = (np.arange(n)[:, None] * side + corner[..., 1]) * side + corner[..., 0]
    left, above = 1 - right, 1 - below
    canvas = np.zeros(n * side * side)
    for offset, share in ((0, left * above), (1, right * above), (side, left * below), (side + 1, right * below)):
        canvas += np.bincount((place + offset).ravel(), weights=share.ravel(), minlength=canvas.size)
    framed = canvas.astype(np.float32).reshape(n, side, side)
    framed[:, :, -2] += framed[:, :, 0]
    framed[:, :, 1] += framed[:, :, -1]
    framed[:, -2] += framed[:, 0]
    framed[:, 1] += framed[:, -1]
    height = DASH / points.shape[2] * resolution / SCENE / _peak_height(resolution)
    profile = _profile(resolution)
    blurred = profile @ (framed[:, 1:-1, 1:-1] @ (profile.T * np.float32(height)))
    strokes: NDArray[np.float32] = np.minimum(blurred, np.float32(1.0), out=blurred)
    return strokes


def _profile(resolution: int) -> NDArray[np.float32]:
    """The blur along one side as a matrix, (H, H)."""
    sigma = STROKE * resolution / SCENE
    apart = np.subtract.outer(np.arange(resolution), np.arange(resolution))
    weights = np.exp(-0.5 * (apart / sigma) ** 2)
    profile: NDArray[np.float32] = (weights / (sigma * np.sqrt(2 * np.pi))).astype(np.float32)
    return profile


def _peak_height(resolution: int) -> np.float32:
    """Height of an infinite line of height 1 after the blur, including its distribution over two pixels."""
    variance = (STROKE * resolution / SCENE) ** 2 + 1 / 6
    return np.float32(1 / np.sqrt(2 * np.pi * variance))


def shade(strokes: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Gray levels of bright, slightly noisy lines on a darker background."""
    levels = LINE * strokes
    levels += np.float32(LINE * NOISE) * noise
    levels += np.float32(BACKGROUND + 0.5)  # `astype` below then rounds to the nearest
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def render(
    rng: np.random.Generator, labels: NDArray[np.int64], poses: Poses, difficulty: float, resolution: int, count: int
) -> NDArray[np.uint8]:
    """Render the first `count` images with these labels and poses, (count, H, W); each is the same for any count."""
    points = draw_dashes(rng, labels, poses, Clutter.of(difficulty), points_per_dash(resolution))
    noise = rng.standard_normal((count, resolution, resolution), np.float32)
    return shade(rasterize_strokes(points[:count], resolution), noise)
