"""The loops of a batch norm with its activation, generated with LLVM: forward and backward, one lane at a time.

A lane is a vector of channels of one pixel. All passes over a lane (the mean, the variance, the output; or the two sums
of the backward pass, and the input's gradient) are made before the next lane, so that only the first has to read from
beyond the caches. Sums are of blocks of rows, added with compensation, so their error does not grow with the map.

Shapes: x, y, dy, dx (rows, channels), rows are the pixels of all images; all parameters and statistics (channels,).
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from llvmlite import ir

from harness.ops.llvm_loops import INT, CompiledFunction, IrValue, LoopBuilder, int_constant

WIDTHS = (16, 8, 4)
"""Numbers of channels that may be computed together; the vectors have up to 64 bytes."""
ROWS = 4
"""Rows that are computed together, each with sums of its own."""
BLOCK = 128
"""Rows whose sum is added up without compensation."""

LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
EXP_TAYLOR = (
    *(1.0, 1.0, 0.49999991059303284, 0.1666642129421234),
    *(0.0416683591902256, 0.008374771103262901, 0.0013829420786350965),
)
"""exp(r) for |r| <= ln(2) / 2, to 2e-8 of its value: a fit of least squares at Chebyshev's points."""
TAIL_SCALE = 0.26
TAIL = (
    *(-7.8808744e-06, 1.0392062e-01, 1.0159765e-01, 1.1003824e-01, 2.9575486e-02),
    *(2.0320049e-01, -2.0456946e-01, 2.9383862e-01, -1.7174938e-01, 3.4155611e-02),
)
"""exp(t^2 / 2) times the normal distribution's tail beyond t, as a polynomial of 1 / (1 + TAIL_SCALE t): for t from 0
to 14, to 2e-8 of its value; a fit of the same kind."""
INVERSE_ROOT_2PI = 0.3989422804014327


class BatchNormArguments(NamedTuple):
    """The whole numbers that the compiled functions read, in this order."""

    rows: int
    channels: int
    first_lane: int
    end_lane: int


@functools.cache
def compiled_forward(width: int, activation: str) -> CompiledFunction:
    """(x, weight, bias, running_mean, running_var, batches, statistics, y, scalars, numbers) -> None.

    Writes the output and, in `statistics` (2, channels), the batch's mean and 1 / sqrt(variance + eps); updates the
    running statistics and the number of batches, int64. `scalars` are eps, momentum, 1 / rows and rows / (rows - 1);
    `numbers` are `BatchNormArguments`.
    """
    return _Forward(width, activation).compiled()


@functools.cache
def compiled_backward(width: int, activation: str) -> CompiledFunction:
    """(x, dy, weight, bias, statistics, dx, gradients, scalars, numbers) -> None.

    Writes the gradients of x and, in `gradients` (2, channels), of weight and bias.
    """
    return _Backward(width, activation).compiled()


class _Lanes(LoopBuilder, ABC):
    """What both passes share: loops over rows, sums over them, and the activations."""

    def __init__(self, name: str, pointers: int, width: int, activation: str) -> None:
        super().__init__(name, pointers, 32, width)
        self.activation = activation
        self.call = BatchNormArguments(**self.numbers(BatchNormArguments._fields))
        with self.loop(self.call.first_lane, self.call.end_lane) as lane:
            self.channel = self.mul(lane, width)
            self.write_lane()

    @abstractmethod
    def write_lane(self) -> None:
        """Emit the passes over the lane that begins with `self.channel`."""

    def scalar_vector(self, base: IrValue, index: int) -> IrValue:
        """A vector of equal numbers, the one at an index."""
        value = self.b.load(self.b.gep(base, [int_constant(index)]))
        first = self.b.insert_element(ir.Constant(self.vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.b.shuffle_vector(first, ir.Constant(self.vector, ir.Undefined), zeros)

    def of_channel(self, base: IrValue) -> IrValue:
        """The lane's numbers of a parameter."""
        return self.load(base, self.channel)

    def pair(self, base: IrValue) -> tuple[IrValue, IrValue]:
        """The lane's numbers of two rows, of all channels each."""
        return self.of_channel(base), self.load(base, self.b.add(self.channel, self.call.channels))

    def store_pair(self, base: IrValue, first: IrValue, second: IrValue) -> None:
        """Store the lane's numbers of two rows, of all channels each."""
        self.store(first, base, self.channel)
        self.store(second, base, self.b.add(self.channel, self.call.channels))

    def each_row(
        self, body: Callable[[IrValue, int], None], first: IrValue | None = None, end: IrValue | None = None
    ) -> None:
        """Emit `body(offset, index)` for each row, which adds to the sums of `index` (below ROWS)."""
        first, end = int_constant(0) if first is None else first, self.call.rows if end is None else end
        whole = self.b.add(first, self.b.and_(self.b.sub(end, first), int_constant(-ROWS)))
        with self.loop(first, whole, ROWS) as row:
            for index in range(ROWS):
                body(self.offset(self.b.add(row, int_constant(index))), index)
        with self.loop(whole, end) as row:
            body(self.offset(row), 0)

    def offset(self, row: IrValue) -> IrValue:
        """Of the lane in a row."""
        return self.sum((row, self.call.channels), (self.channel, 1))

    def row_sums(self, terms: Callable[[IrValue], Sequence[IrValue]], count: int) -> list[IrValue]:
        """The sums over all rows of the `count` terms of a row, given its offset."""
        b = self.b
        totals, errors = ([self.cleared() for _ in range(count)] for _ in range(2))
        parts = [[self.local(self.vector) for _ in range(ROWS)] for _ in range(count)]
        with self.loop(int_constant(0), self.call.rows, BLOCK) as start:
            for part in (part for row in parts for part in row):
                b.store(self.zero(), part)
            end = b.add(start, int_constant(BLOCK))
            end = b.select(b.icmp_signed("<", end, self.call.rows), end, self.call.rows)

            def add(offset: IrValue, index: int) -> None:
                for row, value in zip(parts, terms(offset), strict=True):
                    b.store(b.fadd(b.load(row[index]), value), row[index])

            self.each_row(add, start, end)
            for row, total, error in zip(parts, totals, errors, strict=True):
                self.add_compensated(functools.reduce(b.fadd, [b.load(part) for part in row]), total, error)
        return [b.load(total) for total in totals]

    def cleared(self) -> IrValue:
        """A local vector of zeros."""
        slot = self.local(self.vector)
        self.b.store(self.zero(), slot)
        return slot

    def add_compensated(self, value: IrValue, total: IrValue, error: IrValue) -> None:
        """Kahan's sum."""
        b, old = self.b, self.b.load(total)
        value = b.fsub(value, b.load(error))
        new = b.fadd(old, value)
        b.store(b.fsub(b.fsub(new, old), value), error)
        b.store(new, total)

    def activated(self, z: IrValue) -> IrValue:
        """The activation of a vector; NaN stays NaN."""
        if self.activation == "gelu":
            return self.b.fmul(z, self.normal(z)[0])
        if self.activation == "none":
            return z
        y = self.b.select(self.b.fcmp_ordered("<", z, self.zero()), self.zero(), z)
        if self.activation == "relu":
            return y
        six = self.constant(6)
        return self.b.select(self.b.fcmp_ordered(">", y, six), six, y)

    def activation_gradient(self, z: IrValue, dy: IrValue) -> IrValue:
        """The gradient before the activation, from the one after it."""
        if self.activation == "gelu":
            below, density = self.normal(z)
            return self.b.fmul(dy, self.fma(z, density, below))
        if self.activation == "none":
            return dy
        dz = self.b.select(self.b.fcmp_ordered("<=", z, self.zero()), self.zero(), dy)
        if self.activation == "relu":
            return dz
        return self.b.select(self.b.fcmp_ordered(">=", z, self.constant(6)), self.zero(), dz)

    def normal(self, z: IrValue) -> tuple[IrValue, IrValue]:
        """The standard normal distribution's function and density; both to about 1e-7."""
        b = self.b
        size = b.call(self.intrinsic("fabs", 1), [z])
        size = b.select(b.fcmp_ordered(">", size, self.constant(13)), self.constant(13), size)
        decay = self.exp(b.fmul(b.fmul(size, size), self.constant(-0.5)))
        u = b.fdiv(self.constant(1), self.fma(size, self.constant(TAIL_SCALE), self.constant(1)))
        tail = b.fmul(decay, self.polynomial(u, TAIL))
        is_negative = b.fcmp_ordered("<", z, self.zero())
        below = b.select(is_negative, tail, b.fsub(self.constant(1), tail))
        return below, b.fmul(decay, self.constant(INVERSE_ROOT_2PI))

    def exp(self, x: IrValue) -> IrValue:
        """exp(x) for x from -87 to 0."""
        b, whole = self.b, ir.VectorType(ir.IntType(32), self.width)
        power = b.call(self.intrinsic("nearbyint", 1), [b.fmul(x, self.constant(1.4426950408889634))])
        rest = self.fma(power, self.constant(-LN2_HIGH), x)
        rest = self.fma(power, self.constant(-LN2_LOW), rest)
        exponent = b.add(b.fptosi(power, whole), ir.Constant(whole, [127] * self.width))
        scale = b.bitcast(b.shl(exponent, ir.Constant(whole, [23] * self.width)), self.vector)
        return b.fmul(self.polynomial(rest, EXP_TAYLOR), scale)

    def polynomial(self, x: IrValue, coefficients: Sequence[float]) -> IrValue:
        """The lowest power first."""
        *others, last = map(self.constant, coefficients)
        return functools.reduce(lambda value, c: self.fma(value, x, c), reversed(others), last)


class _Forward(_Lanes):
    def __init__(self, width: int, activation: str) -> None:
        super().__init__("batch_norm", 9, width, activation)

    def write_lane(self) -> None:
        b = self.b
        x, weight, bias, running_mean, running_var, batches, statistics, y, scalars, _ = self.function.args
        eps, momentum, per_row, unbiased = (self.scalar_vector(scalars, i) for i in range(4))
        mean = b.fmul(self.row_sums(lambda at: [self.load(x, at)], 1)[0], per_row)

        def squared(at: IrValue) -> list[IrValue]:
            deviation = b.fsub(self.load(x, at), mean)
            return [b.fmul(deviation, deviation)]

        variance = b.fmul(self.row_sums(squared, 1)[0], per_row)
        root = b.call(self.intrinsic("sqrt", 1), [b.fadd(variance, eps)])
        inverse_std = b.fdiv(self.constant(1), root)
        self.store_pair(statistics, mean, inverse_std)
        for running, value in ((running_mean, mean), (running_var, b.fmul(variance, unbiased))):
            before = self.of_channel(running)
            self.store(self.fma(momentum, b.fsub(value, before), before), running, self.channel)
        scale, shift = self.of_channel(weight), self.of_channel(bias)

        def write(at: IrValue, _: int) -> None:
            normalized = b.fmul(b.fsub(self.load(x, at), mean), inverse_std)
            self.store(self.activated(self.fma(normalized, scale, shift)), y, at)

        self.each_row(write)
        with b.if_then(b.icmp_signed("==", self.channel, int_constant(0))):
            counter = b.bitcast(batches, INT.as_pointer())
            b.store(b.add(b.load(counter), int_constant(1)), counter)


class _Backward(_Lanes):
    def __init__(self, width: int, activation: str) -> None:
        super().__init__("batch_norm_backward", 8, width, activation)

    def write_lane(self) -> None:
        b = self.b
        x, dy, weight, bias, statistics, dx, gradients, scalars, _ = self.function.args
        per_row = self.scalar_vector(scalars, 2)
        (mean, inverse_std), scale, shift = self.pair(statistics), self.of_channel(weight), self.of_channel(bias)
        is_kept = self.activation == "gelu"  # its gradient takes long, so it waits in dx for the second pass

        def normalized(at: IrValue) -> IrValue:
            return b.fmul(b.fsub(self.load(x, at), mean), inverse_std)

        def gradient(at: IrValue, value: IrValue) -> IrValue:
            return self.activation_gradient(self.fma(value, scale, shift), self.load(dy, at))

        def terms(at: IrValue) -> list[IrValue]:
            value = normalized(at)
            dz = gradient(at, value)
            if is_kept:
                self.store(dz, dx, at)
            return [dz, b.fmul(dz, value)]

        shift_gradient, scale_gradient = self.row_sums(terms, 2)
        self.store_pair(gradients, scale_gradient, shift_gradient)
        factor = b.fmul(scale, inverse_std)
        constant, slope = (b.fmul(total, per_row) for total in (shift_gradient, scale_gradient))

        def write(at: IrValue, _: int) -> None:
            value = normalized(at)
            dz = self.load(dx, at) if is_kept else gradient(at, value)
            centered = b.fsub(b.fsub(dz, constant), b.fmul(value, slope))
            self.store(b.fmul(factor, centered), dx, at)

        self.each_row(write)
