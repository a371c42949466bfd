"""The kernels for GPUs, as far as a machine without one can show: their numbers, their tiles, when they are taken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.ops.geometry import Window
from harness.ops.triton_conv import HAS_TRITON, TRITON, is_worthwhile
from harness.ops.triton_tiles import LARGEST_TILE, ConvShape, forward_tiles, gradient_tile, margins

TESTS = Path(__file__).parents[1] / "helpers"

SHAPES = [
    ConvShape(n, h, w, kh, kw, kh // 2, kw // 2)
    for n, h, w, kh, kw in (
        (1, 1, 1, 7, 7),
        (64, 7, 7, 13, 13),
        (8, 14, 14, 27, 27),
        (64, 16, 16, 31, 31),
        (1, 28, 28, 29, 29),
        (8, 56, 56, 31, 31),
        (64, 64, 64, 31, 31),
        (1, 64, 64, 51, 5),
        (8, 96, 96, 1, 11),
        (2, 40, 200, 13, 13),
    )
]


@pytest.mark.long
@pytest.mark.skipif(not HAS_TRITON, reason="no Triton for this platform")
def test_the_kernels_under_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(TESTS / "interpreted_kernels.py")]
    result = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


@pytest.mark.long
def test_importing_the_operator_imports_no_triton() -> None:
    code = "import sys, harness.ops.triton_conv; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("itemsize", "lanes"), [(2, 2048), (4, 1024)])
def test_tiles_cover_the_output_and_suit_the_tensor_cores(shape: ConvShape, itemsize: int, lanes: int) -> None:
    tile = forward_tiles(shape, itemsize, lanes)[0]
    assert tile.rows * tile.strip <= tile.bm >= 16
    assert tile.images * tile.blocks >= 16
    assert tile.bm * tile.images * tile.blocks <= LARGEST_TILE
    for first in range(0, shape.out[1], tile.strip):
        begin = tile.first_column(shape, first // tile.strip)
        last = min(shape.out[1], first + tile.strip) - 1 - shape.pw + shape.kw
        assert begin <= max(0, first - shape.pw)
        assert begin + tile.reach >= min(shape.w, last)
    gradient = gradient_tile(shape, 384, 64)
    assert gradient.rows * gradient.reach <= gradient.bm <= 256
    assert gradient.left + gradient.strip + shape.kw - 1 - shape.pw <= gradient.reach or gradient.reach == shape.w


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_tap_is_looked_up_outside_the_laid_out_kernel(shape: ConvShape) -> None:
    """Walks the indices that the kernel computes, for the first and the last of each axis."""
    tile = forward_tiles(shape, 2, 2048)[0]
    zeros = margins(shape, tile, 64)
    height, width = shape.kh + zeros.top + zeros.bottom, shape.kw + zeros.left + zeros.right
    for begin, end in tile.row_spans(shape):
        chunks = range(0, max(0, end - begin) * tile.reach, 64)
        last_row = (chunks[-1] + 63) // tile.reach if chunks else 0
        rows = (begin + shape.ph - (tile.bm - 1) // tile.strip, begin + last_row + shape.ph)
        for strip in range(-(-shape.out[1] // tile.strip)):
            offset = tile.first_column(shape, strip) - strip * tile.strip + shape.pw
            columns = (offset - tile.strip + 1, offset + tile.reach - 1)
            assert zeros.top + rows[0] >= 0
            assert zeros.top + rows[1] < height
            assert zeros.left + columns[0] >= 0
            assert zeros.left + columns[1] < width
    assert width % 8 == 0


@pytest.mark.parametrize(("side", "expected"), [(16, 1.0), (32, 0.56), (64, 0.48)])
def test_the_useful_share_that_the_docstring_states(side: int, expected: float) -> None:
    shape = ConvShape(64, side, side, 31, 31, 15, 15)
    inside = sum(min(side, h + 16) - max(0, h - 15) for h in range(side)) / side
    share = inside**2 / forward_tiles(shape, 2, 2048)[0].macs(shape)
    assert round(share, 2) == expected


def test_the_rule_of_thumb() -> None:
    assert not TRITON.fits(torch.zeros(1, 2, 32, 32), torch.zeros(2, 1, 31, 31), Window.of(1, 15, 1))
    assert is_worthwhile(torch.zeros(2, 1, 7, 7))
    assert not is_worthwhile(torch.zeros(2, 1, 5, 5))
