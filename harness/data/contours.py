"""The rendering in which reach decides: a dashed outline among fragments of other images' outlines.

All images carry the same number of dashes of the same length. Those of the figure leave gaps; the rest comes from
outlines of random classes, transposed and shifted around the border. A small window sees much the same in every class;
the arrangement over the whole image tells which it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from harness.data.silhouettes import OUTLINE, SCENE, Curve, Pose, draw_distractor, silhouette, walk

DASH = 6.0
"""Length of a dash in units of the scene."""
DISTRACTORS = 3
"""Outlines that lend fragments to an image."""
REMOVED_AT_HARDEST = 0.6
"""Share of the figure's dashes that is removed at difficulty 1; in proportion below."""
FRAGMENTS_AT_HARDEST = 0.7
"""Share of the distractors' dashes that is drawn at difficulty 1; in proportion below."""
SCATTERED = 1
GAP = 0.0
STROKE = 0.7
"""Standard deviation of the stroke's profile in units of the scene."""
NOISE = 0.08
"""Standard deviation of the noise, where a line has contrast 1."""
GROUND, LINE = 64.0, 144.0
"""Grey level of the ground, and how much brighter a line is."""


@dataclass(frozen=True, slots=True)
class Clutter:
    """How much of the figure is missing, and how much stands around it."""

    removed: float
    fragments: float

    @classmethod
    def of(cls, difficulty: float) -> Self:
        """Nothing missing and nothing around it at difficulty 0."""
        return cls(REMOVED_AT_HARDEST * difficulty, FRAGMENTS_AT_HARDEST * difficulty)

    @property
    def dashes(self) -> int:
        """Number of dashes of every image."""
        return round(OUTLINE / (DASH + GAP) * (1 - self.removed + DISTRACTORS * self.fragments))


def draw_dashes(rng: np.random.Generator, label: int, pose: Pose, clutter: Clutter, per_dash: int) -> Curve:
    """The points of an image's dashes, (dashes, per_dash, 2) in units of the scene; equally many for all images."""
    figure = _dashes(label, pose, per_dash, rng.random())
    kept = rng.permutation(len(figure))[: round(len(figure) * (1 - clutter.removed))][: clutter.dashes]
    others = [_dashes(*draw_distractor(rng), per_dash, rng.random()) for _ in range(DISTRACTORS)]
    fragments = np.concatenate(others)
    chosen = rng.permutation(len(fragments))[: clutter.dashes - len(kept)]
    moved = fragments[chosen] + rng.uniform(0.0, SCENE, (len(chosen), 1, 2)) * SCATTERED
    return np.concatenate([figure[kept], moved % SCENE])


def _dashes(label: int, pose: Pose, per_dash: int, phase: float) -> Curve:
    """A placed outline, cut into equal dashes without gaps: (dashes, per_dash, 2)."""
    dashes = []
    for corners, walked in _walks(label):
        count = max(1, round(walked[-1] * pose.scale / (DASH + GAP)))
        drawn = DASH / (DASH + GAP) * (np.arange(per_dash) + 0.5) / per_dash
        way = (np.arange(count)[:, None] + drawn).ravel() / count * walked[-1]
        way = (way + phase * walked[-1]) % walked[-1]
        points = np.stack([np.interp(way, walked, corners[:, i]) for i in range(2)], axis=1)
        dashes.append(pose.place(points).reshape(count, per_dash, 2))
    return np.concatenate(dashes)


@cache
def _walks(label: int) -> list[tuple[Curve, NDArray[np.float64]]]:
    return [walk(curve) for curve in silhouette(label)]


def points_per_dash(resolution: int) -> int:
    """Four points per pixel of line."""
    return max(4, round(4 * DASH * resolution / SCENE))


def ink(points: NDArray[np.float32], resolution: int) -> NDArray[np.float32]:
    """Strokes through the points, (N, P, 2) in units of the scene -> (N, H, W); about 1 on the middle of a line."""
    n, p, _ = points.shape
    at = points * np.float32(resolution / SCENE) - np.float32(0.5)
    corner = np.floor(at)
    weight = at - corner
    x, y = corner[..., 0].astype(np.int64), corner[..., 1].astype(np.int64)
    canvas = np.zeros(n * resolution * resolution)
    base = np.arange(n)[:, None] * resolution * resolution
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dx - weight[..., 0]) * np.abs(1 - dy - weight[..., 1])
            place = base + (y + dy) % resolution * resolution + (x + dx) % resolution
            canvas += np.bincount(place.ravel(), weights=share.ravel(), minlength=canvas.size)
    profile = _profile(resolution)
    spacing = DASH / points_per_dash(resolution)
    height = np.float32(spacing * resolution / SCENE)
    blurred = profile @ (canvas.reshape(n, resolution, resolution).astype(np.float32) * height) @ profile.T
    assert p % points_per_dash(resolution) == 0, "points come in whole dashes"
    strokes: NDArray[np.float32] = np.minimum(blurred / _crest(resolution), np.float32(1.0))
    return strokes


def _profile(resolution: int) -> NDArray[np.float32]:
    """The blur along one side as a matrix, (H, H)."""
    sigma = STROKE * resolution / SCENE
    apart = np.subtract.outer(np.arange(resolution), np.arange(resolution))
    weights = np.exp(-0.5 * (apart / sigma) ** 2)
    profile: NDArray[np.float32] = (weights / (sigma * np.sqrt(2 * np.pi))).astype(np.float32)
    return profile


def _crest(resolution: int) -> np.float32:
    """What the blur leaves of an endless line of height 1 on its middle, the spread over two pixels counted in."""
    variance = (STROKE * resolution / SCENE) ** 2 + 1 / 6
    return np.float32(1 / np.sqrt(2 * np.pi * variance))


def shade(strokes: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey levels of bright, slightly noisy lines on darker ground."""
    return np.clip(np.rint(GROUND + LINE * (strokes + NOISE * noise)), 0, 255).astype(np.uint8)


def render(
    streams: Sequence[np.random.Generator],
    labels: NDArray[np.int64],
    poses: Sequence[Pose],
    difficulty: float,
    resolution: int,
) -> NDArray[np.uint8]:
    """One image per stream, (N, H, W)."""
    clutter, per_dash = Clutter.of(difficulty), points_per_dash(resolution)
    points = [
        draw_dashes(rng, int(label), pose, clutter, per_dash).reshape(-1, 2)
        for rng, label, pose in zip(streams, labels, poses, strict=True)
    ]
    noise = np.stack([rng.standard_normal((resolution, resolution), np.float32) for rng in streams])
    return shade(ink(np.stack(points).astype(np.float32), resolution), noise)
