"""The innermost loops of the direct convolution, generated with LLVM and compiled for this processor on first use.

A vector holds LANE_BYTES of channels of one pixel: one lane. An output row is computed in blocks of pixels whose sums
stay in registers while all taps inside the map are added, with one multiply-add and one load per tap and pixel: of 16
registers of 32 bytes, a block of 7 takes 14 and the tap's weights 2. Taps whose row is outside the map are skipped;
along the row, taps that are outside the map for every pixel of the block. For the other pixels of such a block they
read a margin of zeros, which the copy of the lane's map (made first) has on both sides.

Work: a block costs its pixels' multiply-adds over the taps that any of them needs, which are the taps inside the map
and up to block - 1 more at either edge.
"""

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir

LANE_BYTES = 64
BLOCKS = (7, 6, 4)
"""Numbers of pixels that may be computed together."""

INT = ir.IntType(64)
IrValue = Any
"""A value of `llvmlite.ir`, which has no type hints."""


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


Loops = Callable[..., None]
"""Takes the addresses of x, taps, y, a buffer for a lane of x with margins, one for a lane of taps, `LoopArguments`."""


def best_block(columns: int) -> int:
    """The block size with the fewest loads for rows of `columns` pixels: one per pixel of a block, one for the tap."""
    return min(BLOCKS, key=lambda block: -(-columns // block) * (block + 1))


@functools.cache
def compiled(bits: int, block: int, step_w: int) -> Loops:
    """The loops for numbers of 32 or 64 bits; 50 to 100 ms for each set of arguments, once per process."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3)
    module = llvm.parse_assembly(_Loops(bits, block, step_w).text())
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()  # local variables become registers; the loops need no other optimization
    passes.run(module.get_function("loops"), llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    loops: Any = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 6)(engine.get_function_address("loops"))
    loops.engine = engine  # the code lives as long as its engine
    return loops  # type: ignore[no-any-return]


class _Loops:
    """Generates the function; `self.call` holds the fields of `LoopArguments` as LLVM values."""

    def __init__(self, bits: int, block: int, step_w: int) -> None:
        scalar = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.width, self.block, self.align = 8 * LANE_BYTES // bits, block, bits // 8
        self.vector = ir.VectorType(scalar, self.width)
        self.step_w, self.margin = step_w, step_w * (block - 1)
        self.module = ir.Module("direct")
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        self.fma = ir.Function(self.module, kind, f"llvm.fma.v{self.width}f{bits}")
        kind = ir.FunctionType(ir.VoidType(), [scalar.as_pointer()] * 5 + [INT.as_pointer()])
        function = ir.Function(self.module, kind, "loops")
        for argument in function.args:
            argument.add_attribute("noalias")
        self.x, self.taps, self.y, self.map, self.kernel, numbers = function.args
        self.locals = ir.IRBuilder(function.append_basic_block("locals"))
        self.b = ir.IRBuilder(function.append_basic_block("loops"))
        fields = {name: self.b.load(self.b.gep(numbers, [_int(i)])) for i, name in enumerate(LoopArguments._fields)}
        self.call = LoopArguments(**fields)
        self.map_row = self.mul(self.b.add(self.call.columns, _int(2 * self.margin)), self.width)
        self.kernel_row = self.mul(self.call.tap_columns, self.width)
        self._write()
        self.locals.branch(function.basic_blocks[1])

    def text(self) -> str:
        """The module as LLVM assembly."""
        return str(self.module)

    def _write(self) -> None:
        call = self.call
        with self.loop(call.first_lane, call.end_lane) as lane:
            channel = self.mul(lane, self.width)
            with self.loop(call.first_image, call.end_image) as image:
                self._copy_map(self.sum((image, call.x_image), (channel, 1)))
                is_first = self.b.icmp_signed("==", image, call.first_image)
                is_own = self.b.icmp_signed("!=", call.taps_image, _int(0))
                with self.b.if_then(self.b.or_(is_first, is_own)):
                    self._copy_taps(self.sum((image, call.taps_image), (channel, 1)))
                with self.loop(_int(0), call.out_rows) as row:
                    self._write_row(row, self.sum((image, call.y_image), (row, call.y_row), (channel, 1)))
        self.b.ret_void()

    def _copy_map(self, start: IrValue) -> None:
        """Copy one lane of one image of x, with zeros on either side of each row."""
        with self.loop(_int(0), self.call.rows) as row:
            source, target = self.sum((row, self.call.x_row), (start, 1)), self.mul(row, self.map_row)
            right = self.sum((self.call.columns, self.width), (target, 1))
            for column in range(self.margin):
                self.store(self.zero(), self.map, self.b.add(target, _int(column * self.width)))
                self.store(self.zero(), self.map, self.b.add(right, _int((self.margin + column) * self.width)))
            inner = self.b.add(target, _int(self.margin * self.width))
            with self.loop(_int(0), self.call.columns) as column:
                value = self.load(self.x, self.sum((column, self.call.x_column), (source, 1)))
                self.store(value, self.map, self.sum((column, self.width), (inner, 1)))

    def _copy_taps(self, start: IrValue) -> None:
        with self.loop(_int(0), self.call.tap_rows) as row:
            source, target = self.sum((row, self.call.taps_row), (start, 1)), self.mul(row, self.kernel_row)
            with self.loop(_int(0), self.call.tap_columns) as column:
                value = self.load(self.taps, self.sum((column, self.call.taps_column), (source, 1)))
                self.store(value, self.kernel, self.sum((column, self.width), (target, 1)))

    def _write_row(self, row: IrValue, start: IrValue) -> None:
        """Compute one row of the output, which begins at offset `start`."""
        call, b = self.call, self.b
        top = b.sub(b.mul(row, call.step_h), call.top)
        first, end = self.within(top, top, call.rows, call.spread_h, call.tap_rows)
        with self.loop(_int(0), call.out_columns, self.block) as column:
            left = b.sub(self.mul(column, self.step_w), call.left)
            last = b.add(left, _int(self.margin))
            inner = self.within(left, last, call.columns, call.spread_w, call.tap_columns)
            sums = [self.local(self.vector) for _ in range(self.block)]
            for total in sums:
                b.store(self.zero(), total)
            with self.loop(first, end) as i:
                map_row = b.mul(self.sum((i, call.spread_h), (top, 1)), self.map_row)
                at = self.sum((b.add(left, _int(self.margin)), self.width), (map_row, 1))
                self._add_taps(sums, inner, b.gep(self.map, [at]), b.gep(self.kernel, [b.mul(i, self.kernel_row)]))
            self._store_sums(sums, column, start)

    def _add_taps(self, sums: list[IrValue], inner: tuple[IrValue, IrValue], pixels: IrValue, taps: IrValue) -> None:
        """Add one row of taps for the pixels of a block: the loop that takes most of the time."""
        with self.loop(*inner) as j:
            weights = self.load(taps, self.mul(j, self.width))
            address = self.b.gep(pixels, [self.mul(self.b.mul(j, self.call.spread_w), self.width)])
            for pixel, total in enumerate(sums):
                value = self.load(address, _int(pixel * self.step_w * self.width))
                self.b.store(self.b.call(self.fma, [value, weights, self.b.load(total)]), total)

    def _store_sums(self, sums: list[IrValue], column: IrValue, start: IrValue) -> None:
        b = self.b
        for pixel, total in enumerate(sums):
            position = b.add(column, _int(pixel))
            with b.if_then(b.icmp_signed("<", position, self.call.out_columns)):
                at = self.sum((position, self.call.y_column), (start, 1))
                with b.if_else(b.icmp_signed("!=", self.call.is_added, _int(0))) as (added, replaced):
                    with added:
                        self.store(b.fadd(self.load(self.y, at), b.load(total)), self.y, at)
                    with replaced:
                        self.store(b.load(total), self.y, at)

    def within(
        self, first: IrValue, last: IrValue, size: IrValue, spread: IrValue, taps: IrValue
    ) -> tuple[IrValue, IrValue]:
        """The range of taps inside the map: tap i is at first + i spread for one pixel, last + i spread for another."""
        b = self.b
        begin = b.sdiv(b.sub(b.sub(spread, _int(1)), last), spread)  # rounds toward zero, also below it
        begin = b.select(b.icmp_signed(">", begin, _int(0)), begin, _int(0))
        beyond = b.sub(b.add(b.sub(size, first), spread), _int(1))
        end = b.select(b.icmp_signed(">", beyond, _int(0)), b.sdiv(beyond, spread), _int(0))
        return begin, b.select(b.icmp_signed("<", end, taps), end, taps)

    @contextmanager
    def loop(self, start: IrValue, end: IrValue, step: int = 1) -> Iterator[IrValue]:
        """Emit `for i in range(start, end, step)`; the condition is tested at the end of the body."""
        b, slot = self.b, self.local(INT)
        b.store(start, slot)
        body, after = b.append_basic_block(), b.append_basic_block()
        b.cbranch(b.icmp_signed("<", start, end), body, after)
        b.position_at_end(body)
        i = b.load(slot)
        yield i
        following = b.add(i, _int(step))
        b.store(following, slot)
        b.cbranch(b.icmp_signed("<", following, end), body, after)
        b.position_at_end(after)

    def local(self, kind: ir.Type) -> IrValue:
        return self.locals.alloca(kind)

    def zero(self) -> ir.Constant:
        return ir.Constant(self.vector, None)

    def mul(self, value: IrValue, by: IrValue | int) -> IrValue:
        return self.b.mul(value, _int(by) if isinstance(by, int) else by)

    def sum(self, *terms: tuple[IrValue, IrValue | int]) -> IrValue:
        """The sum of products."""
        products = [value if isinstance(by, int) and by == 1 else self.mul(value, by) for value, by in terms]
        return functools.reduce(self.b.add, products)

    def load(self, base: IrValue, at: IrValue) -> IrValue:
        return self.b.load(self._vector(base, at), align=self.align)

    def store(self, value: IrValue, base: IrValue, at: IrValue) -> None:
        self.b.store(value, self._vector(base, at), align=self.align)

    def _vector(self, base: IrValue, at: IrValue) -> IrValue:
        return self.b.bitcast(self.b.gep(base, [at]), self.vector.as_pointer())


def _int(value: int) -> ir.Constant:
    return ir.Constant(INT, value)
