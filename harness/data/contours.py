"""The rendering in which reach decides: a dashed outline among stray dashes of other images' outlines.

All images carry the same number of equally long dashes, and those of a figure leave gaps. The strays are dashes of
outlines of random classes, transposed and each moved elsewhere. So a small window sees much the same in every class, in
figure and in ground; only how the dashes lie to each other, over gaps, tells which silhouette it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from harness.data.silhouettes import OUTLINE, SCENE, Curve, Pose, draw_distractor, silhouette, walk

DASH, GAP = 5.0, 3.0
"""Length of a dash, and of the gap before the next one of the same outline, in units of the scene."""
REMOVED_AT_HARDEST = 0.2
"""Share of the figure's dashes that is left out at difficulty 1; in proportion below."""
STRAYS_AT_HARDEST = 5.7
"""Stray dashes per dash of a figure at difficulty 1; in proportion below."""
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
    """Share of the figure's dashes."""
    strays: float
    """Stray dashes per dash of a whole figure."""

    @classmethod
    def of(cls, difficulty: float) -> Self:
        """Nothing missing and nothing around it at difficulty 0."""
        return cls(REMOVED_AT_HARDEST * difficulty, STRAYS_AT_HARDEST * difficulty)

    @property
    def dashes(self) -> int:
        """Number of dashes of every image."""
        return round(OUTLINE / (DASH + GAP) * (1 - self.removed + self.strays))


def draw_dashes(rng: np.random.Generator, label: int, pose: Pose, clutter: Clutter, per_dash: int) -> Curve:
    """The points of an image's dashes, (dashes, per_dash, 2) in units of the scene; equally many for all images."""
    figure = _dashes(rng, label, pose, per_dash)
    kept = rng.permutation(len(figure))[: round(len(figure) * (1 - clutter.removed))][: clutter.dashes]
    strays = _strays(rng, clutter.dashes - len(kept), per_dash)
    return np.concatenate([figure[kept], strays])


def _strays(rng: np.random.Generator, count: int, per_dash: int) -> Curve:
    """Dashes of other images' outlines, each moved elsewhere and around the border; (count, per_dash, 2)."""
    pool = np.empty((0, per_dash, 2))
    while len(pool) < count:
        pool = np.concatenate([pool, _dashes(rng, *draw_distractor(rng), per_dash)])
    chosen = pool[rng.permutation(len(pool))[:count]]
    return (chosen + rng.uniform(0.0, SCENE, (count, 1, 2))) % SCENE


def _dashes(rng: np.random.Generator, label: int, pose: Pose, per_dash: int) -> Curve:
    """A placed outline as dashes with gaps between them, begun anywhere: (dashes, per_dash, 2)."""
    start, pitch = rng.random(), DASH + GAP
    within = DASH / pitch * (np.arange(per_dash) + 0.5) / per_dash
    dashes = []
    for corners, walked in _walks(label):
        count = max(1, round(walked[-1] * pose.scale / pitch))
        way = (start + (np.arange(count)[:, None] + within).ravel() / count) % 1.0 * walked[-1]
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
