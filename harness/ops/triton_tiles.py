"""How the Triton kernels divide a convolution into matrix products, and which share of each product is useful.

A row of a map, as a vector over its columns, is convolved by a banded matrix: T_i[v, w] = weight[i, v - w + p]. So
output rows h to h + R - 1 of one channel are a sum of one product per input row, with the matrices of R kernel rows
stacked; images, and blocks of R rows, are the columns of the other factor. A strip of output columns needs only the
input columns within its reach, and input rows outside the map are left out: both avoid products with zeros.
Shapes: N batch, H W sides of the map, KH KW sides of the kernel.

Useful share = taps inside the map / multiply-accumulates done. At N=64, square maps of side R:

| R | K | strip x rows | reach | row blocks together | MACs per output | useful share |
| --- | --- | --- | --- | --- | --- | --- |
| 16 | 31 | 16 x 16 | 16 | 1 | 256 | 100 % |
| 32 | 31 | 32 x 4 | 32 | 4 | 992 | 56 % |
| 64 | 31 | 32 x 4 | 48 | 4 | 1560 | 48 % |
| 64 | 13 | 16 x 8 | 32 | 4 | 640 | 24 % |
| 56 | 31 | 56 x 2 | 56 | 4 | 1865 | 38 % |
| 28 | 29 | 28 x 4 | 28 | 4 | 1024 | 45 % |
| 14 | 27 | 14 x 14 | 14 | 1 | 256 | 77 % |

Loads from the second-level cache limit these kernels, not the products: each row of the map is read again for
every kernel row that a block does not share. Of (64, 384, R, R) at K=31 in bfloat16, at 5.5 TB/s from that cache and
790 TFLOP/s: output 11, 106 and 669 us at R=16, 32 and 64 (products alone 4, 63 and 398), weight gradient 75, 283 and
1,315 us (8, 56 and 469); in TF32 twice that. Calculated, not measured.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

ALIGNED = 8
"""Strips of the input begin at multiples of this many columns, for loads of 16 bytes in half precision."""

WIDEST_STRIP = 64
"""Most columns of a strip; a wider map is always divided."""

LARGEST_TILE = 128 * 256
"""Most sums that a program can keep in its registers."""

MAX_COLUMNS = 256
"""Most images x blocks: their pixels must fit into shared memory three times."""

CACHE_BYTES = 24
"""Bytes per clock that a multiprocessor loads from the second-level cache: 5.5 TB/s / 132 / 1.75 GHz, assumed."""

PROGRAMS = 528
"""Programs that keep 132 multiprocessors busy; with fewer, the sum of a weight gradient is split."""


class ConvShape(NamedTuple):
    """Shape of a convolution with stride 1 and without dilation, for any number of channels."""

    n: int
    h: int
    w: int
    kh: int
    kw: int
    ph: int
    pw: int

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the output."""
        return self.h + 2 * self.ph - self.kh + 1, self.w + 2 * self.pw - self.kw + 1


class Tile(NamedTuple):
    """The work of one program of the forward kernel: `blocks` blocks of rows x strip pixels, of `images` images."""

    strip: int
    """Output columns."""
    reach: int
    """Input columns that a strip needs; the map's width if it needs nearly all."""
    rows: int
    """Output rows of a block."""
    blocks: int
    images: int
    bm: int
    """Side of the product for the pixels of a block: the smallest power of two >= rows x strip."""

    def programs(self, shape: ConvShape) -> int:
        """Number of programs for one channel of the output."""
        height, width = shape.out
        groups = _cut(height, self.rows * self.blocks)
        return _cut(width, self.strip) * groups * _cut(shape.n, self.images)

    def first_column(self, shape: ConvShape, strip: int) -> int:
        """The input column at which a strip's reach begins."""
        return 0 if self.reach == shape.w else max(0, strip * self.strip - shape.pw) // ALIGNED * ALIGNED

    def row_spans(self, shape: ConvShape) -> Iterator[tuple[int, int]]:
        """For each group of blocks the range of input rows that are read, relative to the block's first row."""
        step = self.rows * self.blocks
        for first in range(0, shape.out[0], step):
            last = first + step - self.rows
            yield max(-shape.ph, -last), min(shape.kh - shape.ph + self.rows - 1, shape.h - first)

    def macs(self, shape: ConvShape) -> float:
        """Multiply-accumulates per output pixel."""
        height, width = shape.out
        rows = sum(end - start for start, end in self.row_spans(shape))
        strips, tiles = _cut(width, self.strip), _cut(shape.n, self.images)
        return rows * self.reach * self.bm * strips * tiles * self.blocks * self.images / (height * width * shape.n)


class Margins(NamedTuple):
    """Zeros around a kernel, so that a tile can read any tap without bounds checks."""

    left: int
    right: int
    top: int
    bottom: int


def _cut(total: int, by: int) -> int:
    return -(-total // by)


def _power(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least n (and `least`)."""
    return max(least, 1 << max(0, n - 1).bit_length())


@cache
def forward_tiles(shape: ConvShape, itemsize: int, lanes: int) -> tuple[Tile, ...]:
    """All tiles worth trying, sorted by estimated time.

    `itemsize`: bytes of a number; `lanes`: multiply-accumulates per clock and multiprocessor. The estimate is the
    slower of the products and the loads from the second-level cache, `CACHE_BYTES` per clock; not measured.
    """

    def clocks(tile: Tile) -> float:
        columns = tile.images * tile.blocks
        loaded = (tile.bm + columns) * itemsize / (tile.bm * columns)
        return tile.macs(shape) * max(1 / lanes, loaded / CACHE_BYTES)

    return tuple(sorted(_tiles(shape), key=lambda tile: (clocks(tile), tile)))


def _tiles(shape: ConvShape) -> Iterator[Tile]:
    height, width = shape.out
    images = min(64, _power(shape.n))
    for strips in range(_cut(width, WIDEST_STRIP), max(_cut(width, WIDEST_STRIP), width // 16) + 1):
        strip = _cut(width, strips)
        reach, least = _reach(shape, strip), max(1, 16 // images)
        for pixels in (64, 128, 256):
            rows = _cut(height, _cut(height, max(1, pixels // strip)))
            bm = _power(rows * strip, 16)
            for blocks in (1, 2, 4, 8, 16):
                is_idle = blocks >= 2 * _cut(height, rows) and blocks > least
                fits = images * blocks <= MAX_COLUMNS and bm * images * blocks <= LARGEST_TILE
                if blocks >= least and fits and not is_idle:
                    yield Tile(strip, reach, rows, blocks, images, bm)


def _reach(shape: ConvShape, strip: int) -> int:
    """Most columns from the aligned start of a strip's reach to its end; rounded up, within the map."""
    widest = 0
    for first in range(0, shape.out[1], strip):
        begin = max(0, first - shape.pw) // ALIGNED * ALIGNED
        widest = max(widest, min(shape.w, first + strip - 1 - shape.pw + shape.kw) - begin)
    return min(shape.w, _cut(max(1, widest), ALIGNED) * ALIGNED)


@cache
def margins(shape: ConvShape, tile: Tile, bk: int) -> Margins:
    """The zeros needed around a kernel for a tile, when a product spans `bk` values of the flattened input."""
    columns = [tile.first_column(shape, s) - s * tile.strip for s in range(_cut(shape.out[1], tile.strip))]
    least = min(columns) + shape.pw - tile.strip + 1
    most = max(columns) + shape.pw + tile.reach - 1
    spans = list(tile.row_spans(shape))
    highest = min(start for start, _ in spans) + shape.ph - (tile.bm - 1) // tile.strip
    ends = [
        start + (_cut((end - start) * tile.reach, bk) * bk - 1) // tile.reach for start, end in spans if end > start
    ]
    lowest = max(ends, default=0) + shape.ph
    left, right = max(0, -least), max(0, most - shape.kw + 1)
    right += -(left + shape.kw + right) % ALIGNED
    return Margins(left, right, max(0, -highest), max(0, lowest - shape.kh + 1))


class GradientTile(NamedTuple):
    """The work of one program of the weight gradient's kernel: `rows` rows of one channel's kernel."""

    strip: int
    """Output columns."""
    left: int
    """Input columns of the reach before the strip's first column."""
    reach: int
    rows: int
    bm: int
    bo: int
    splits: int
    """Programs among which the sum over strips, images and output rows is divided."""
    qi: int
    qj: int
    """Powers of two that hold the rows, and the kernel's width."""


@cache
def gradient_tile(shape: ConvShape, channels: int, red: int) -> GradientTile:
    """The tile for a weight gradient when a product sums over `red` output rows at once."""
    height, width = shape.out
    if max(width, shape.w) <= WIDEST_STRIP:
        strip, left, reach = width, 0, shape.w
    else:
        strip, left = 32, _cut(shape.pw, ALIGNED) * ALIGNED
        reach = _cut(left + strip + shape.kw - 1 - shape.pw, ALIGNED) * ALIGNED
    rows = _cut(shape.kh, _cut(shape.kh, max(1, 256 // reach)))
    programs, terms = channels * _cut(shape.kh, rows), _cut(width, strip) * shape.n * height
    splits = max(1, min(_cut(PROGRAMS, programs), terms // (4 * red)))
    sizes = _power(rows * reach, 64), _power(strip, 16), splits, _power(rows), _power(shape.kw)
    return GradientTile(strip, left, reach, rows, *sizes)
