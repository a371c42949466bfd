"""The innermost loops of the direct convolution, generated with LLVM and compiled for this processor on first use.

A vector holds LANE_BYTES of channels of one pixel: one lane. An output row is computed in blocks of pixels whose sums
stay in registers while all taps inside the map are added, with one multiply-add and one load per tap and pixel: of 16
registers of 32 bytes, a block of 7 takes 14 and the tap's weights 2. Taps whose row is outside the map are skipped;
along the row, taps that are outside the map for every pixel of the block. For the other pixels of such a block they
read a margin of zeros, which the copy of the lane's map (made first) has on both sides.

Work: a block costs its pixels' multiply-adds over the taps that any of them needs, which are the taps inside the map
and up to block - 1 more at either edge.
"""

import functools
from typing import NamedTuple

from harness.ops.llvm_loops import CompiledFunction, IrValue, LoopBuilder, int_constant

LANE_BYTES = 64
BLOCKS = (7, 6, 4)
"""Numbers of pixels that may be computed together."""


class LoopArguments(NamedTuple):
    """The numbers that the compiled function reads, in this order. All strides count numbers, not bytes.

    y[n, a, b] = sum over i, j of taps[n, i, j] x[n, a step_h + i spread_h - top, b step_w + j spread_w - left]
    """

    first_image: int
    end_image: int
    first_lane: int
    end_lane: int
    rows: int
    columns: int
    tap_rows: int
    tap_columns: int
    out_rows: int
    out_columns: int
    top: int
    left: int
    step_h: int
    spread_h: int
    spread_w: int
    x_image: int
    x_row: int
    x_column: int
    taps_image: int
    """0 if all images share the same taps."""
    taps_row: int
    taps_column: int
    y_image: int
    y_row: int
    y_column: int
    is_added: int
    """1 if sums are added to the values of y, 0 if they replace them."""


Loops = CompiledFunction
"""Takes the addresses of x, taps, y, a buffer for a lane of x with margins, one for a lane of taps, `LoopArguments`."""


def best_block(columns: int) -> int:
    """The block size with the fewest loads for rows of `columns` pixels: one per pixel of a block, one for the tap."""
    return min(BLOCKS, key=lambda block: -(-columns // block) * (block + 1))


@functools.cache
def compiled(bits: int, block: int, step_w: int) -> Loops:
    """The loops for numbers of 32 or 64 bits; 50 to 100 ms for each set of arguments, once per process."""
    return _Loops(bits, block, step_w).compiled()


class _Loops(LoopBuilder):
    """Generates the function; `self.call` holds the fields of `LoopArguments` as LLVM values."""

    def __init__(self, bits: int, block: int, step_w: int) -> None:
        super().__init__("direct", 5, bits, 8 * LANE_BYTES // bits)
        self.block, self.step_w, self.margin = block, step_w, step_w * (block - 1)
        self.x, self.taps, self.y, self.map, self.kernel, _ = self.function.args
        self.call = LoopArguments(**self.numbers(LoopArguments._fields))
        self.map_row = self.mul(self.b.add(self.call.columns, int_constant(2 * self.margin)), self.width)
        self.kernel_row = self.mul(self.call.tap_columns, self.width)
        self._write()

    def _write(self) -> None:
        call = self.call
        with self.loop(call.first_lane, call.end_lane) as lane:
            channel = self.mul(lane, self.width)
            with self.loop(call.first_image, call.end_image) as image:
                self._copy_map(self.sum((image, call.x_image), (channel, 1)))
                is_first = self.b.icmp_signed("==", image, call.first_image)
                is_own = self.b.icmp_signed("!=", call.taps_image, int_constant(0))
                with self.b.if_then(self.b.or_(is_first, is_own)):
                    self._copy_taps(self.sum((image, call.taps_image), (channel, 1)))
                with self.loop(int_constant(0), call.out_rows) as row:
                    self._write_row(row, self.sum((image, call.y_image), (row, call.y_row), (channel, 1)))

    def _copy_map(self, start: IrValue) -> None:
        """Copy one lane of one image of x, with zeros on either side of each row."""
        with self.loop(int_constant(0), self.call.rows) as row:
            source, target = self.sum((row, self.call.x_row), (start, 1)), self.mul(row, self.map_row)
            right = self.sum((self.call.columns, self.width), (target, 1))
            for column in range(self.margin):
                self.store(self.zero(), self.map, self.b.add(target, int_constant(column * self.width)))
                self.store(self.zero(), self.map, self.b.add(right, int_constant((self.margin + column) * self.width)))
            inner = self.b.add(target, int_constant(self.margin * self.width))
            with self.loop(int_constant(0), self.call.columns) as column:
                value = self.load(self.x, self.sum((column, self.call.x_column), (source, 1)))
                self.store(value, self.map, self.sum((column, self.width), (inner, 1)))

    def _copy_taps(self, start: IrValue) -> None:
        with self.loop(int_constant(0), self.call.tap_rows) as row:
            source, target = self.sum((row, self.call.taps_row), (start, 1)), self.mul(row, self.kernel_row)
            with self.loop(int_constant(0), self.call.tap_columns) as column:
                value = self.load(self.taps, self.sum((column, self.call.taps_column), (source, 1)))
                self.store(value, self.kernel, self.sum((column, self.width), (target, 1)))

    def _write_row(self, row: IrValue, start: IrValue) -> None:
        """Compute one row of the output, which begins at offset `start`."""
        call, b = self.call, self.b
        top = b.sub(b.mul(row, call.step_h), call.top)
        first, end = self.within(top, top, call.rows, call.spread_h, call.tap_rows)
        with self.loop(int_constant(0), call.out_columns, self.block) as column:
            left = b.sub(self.mul(column, self.step_w), call.left)
            last = b.add(left, int_constant(self.margin))
            inner = self.within(left, last, call.columns, call.spread_w, call.tap_columns)
            sums = [self.local(self.vector) for _ in range(self.block)]
            for total in sums:
                b.store(self.zero(), total)
            with self.loop(first, end) as i:
                map_row = b.mul(self.sum((i, call.spread_h), (top, 1)), self.map_row)
                at = self.sum((b.add(left, int_constant(self.margin)), self.width), (map_row, 1))
                self._add_taps(sums, inner, b.gep(self.map, [at]), b.gep(self.kernel, [b.mul(i, self.kernel_row)]))
            self._store_sums(sums, column, start)

    def _add_taps(self, sums: list[IrValue], inner: tuple[IrValue, IrValue], pixels: IrValue, taps: IrValue) -> None:
        """Add one row of taps for the pixels of a block: the loop that takes most of the time."""
        with self.loop(*inner) as j:
            weights = self.load(taps, self.mul(j, self.width))
            address = self.b.gep(pixels, [self.mul(self.b.mul(j, self.call.spread_w), self.width)])
            for pixel, total in enumerate(sums):
                value = self.load(address, int_constant(pixel * self.step_w * self.width))
                self.b.store(self.fma(value, weights, self.b.load(total)), total)

    def _store_sums(self, sums: list[IrValue], column: IrValue, start: IrValue) -> None:
        b = self.b
        for pixel, total in enumerate(sums):
            position = b.add(column, int_constant(pixel))
            with b.if_then(b.icmp_signed("<", position, self.call.out_columns)):
                at = self.sum((position, self.call.y_column), (start, 1))
                with b.if_else(b.icmp_signed("!=", self.call.is_added, int_constant(0))) as (added, replaced):
                    with added:
                        self.store(b.fadd(self.load(self.y, at), b.load(total)), self.y, at)
                    with replaced:
                        self.store(b.load(total), self.y, at)

    def within(
        self, first: IrValue, last: IrValue, size: IrValue, spread: IrValue, taps: IrValue
    ) -> tuple[IrValue, IrValue]:
        """The range of taps inside the map: tap i is at first + i spread for one pixel, last + i spread for another."""
        b = self.b
        begin = b.sdiv(b.sub(b.sub(spread, int_constant(1)), last), spread)  # rounds toward zero, also below it
        begin = b.select(b.icmp_signed(">", begin, int_constant(0)), begin, int_constant(0))
        beyond = b.sub(b.add(b.sub(size, first), spread), int_constant(1))
        end = b.select(b.icmp_signed(">", beyond, int_constant(0)), b.sdiv(beyond, spread), int_constant(0))
        return begin, b.select(b.icmp_signed("<", end, taps), end, taps)
