"""Functions generated with LLVM and compiled for this processor on first use: loops over vectors of float numbers.

`LoopBuilder` emits the loops, loads and stores of one function of pointers; `compile_function` makes it callable. The
compiled functions run outside Python's lock (GIL).
"""

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

INT = ir.IntType(64)
IrValue = Any
"""A value of `llvmlite.ir`, which has no type hints."""
CompiledFunction = Callable[..., None]
"""Takes addresses as integers."""


def compile_function(module: ir.Module, name: str) -> CompiledFunction:
    """Compile a function, all of whose arguments are pointers, for this processor: 50 to 100 ms."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3)
    count = len(module.get_global(name).args)
    parsed = llvm.parse_assembly(str(module))
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()  # local variables become registers; the loops need no other optimization
    passes.run(parsed.get_function(name), llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    function: Any = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count)(engine.get_function_address(name))
    function.engine = engine  # the code lives as long as its engine
    return function  # type: ignore[no-any-return]


class LoopBuilder:
    """Emits one function of pointers, which computes with vectors of `width` numbers of `bits` (32 or 64).

    The last pointer is to int64 numbers, the others are to floating-point numbers; none may overlap.
    """

    def __init__(self, name: str, pointers: int, bits: int, width: int) -> None:
        self.name, self.bits, self.width, self.align = name, bits, width, bits // 8
        self.scalar = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, width)
        self.module = ir.Module(name)
        kind = ir.FunctionType(ir.VoidType(), [self.scalar.as_pointer()] * pointers + [INT.as_pointer()])
        self.function = ir.Function(self.module, kind, name)
        for argument in self.function.args:
            argument.add_attribute("noalias")
        self.locals = ir.IRBuilder(self.function.append_basic_block("locals"))
        self.b = ir.IRBuilder(self.function.append_basic_block("loops"))

    def compiled(self) -> CompiledFunction:
        """End the function and compile it."""
        self.b.ret_void()
        self.locals.branch(self.function.basic_blocks[1])
        return compile_function(self.module, self.name)

    def numbers(self, names: Sequence[str]) -> dict[str, IrValue]:
        """The first numbers at the last pointer, by these names."""
        pointer = self.function.args[-1]
        return {name: self.b.load(self.b.gep(pointer, [int_constant(i)])) for i, name in enumerate(names)}

    def intrinsic(self, name: str, count: int) -> ir.Function:
        """LLVM's function of `count` vectors, such as `fma`."""
        full = f"llvm.{name}.v{self.width}f{self.bits}"
        if full in self.module.globals:
            return self.module.get_global(full)
        return ir.Function(self.module, ir.FunctionType(self.vector, [self.vector] * count), full)

    def fma(self, a: IrValue, b: IrValue, c: IrValue) -> IrValue:
        """a b + c, rounded once."""
        return self.b.call(self.intrinsic("fma", 3), [a, b, c])

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
        following = b.add(i, int_constant(step))
        b.store(following, slot)
        b.cbranch(b.icmp_signed("<", following, end), body, after)
        b.position_at_end(after)

    def local(self, kind: ir.Type) -> IrValue:
        """A local variable's address."""
        return self.locals.alloca(kind)

    def zero(self) -> ir.Constant:
        """A vector of zeros."""
        return ir.Constant(self.vector, None)

    def constant(self, value: float) -> ir.Constant:
        """A vector of equal numbers."""
        return ir.Constant(self.vector, [float(value)] * self.width)

    def mul(self, value: IrValue, by: IrValue | int) -> IrValue:
        """The product of two whole numbers."""
        return self.b.mul(value, int_constant(by) if isinstance(by, int) else by)

    def sum(self, *terms: tuple[IrValue, IrValue | int]) -> IrValue:
        """The sum of products of whole numbers."""
        products = [value if isinstance(by, int) and by == 1 else self.mul(value, by) for value, by in terms]
        return functools.reduce(self.b.add, products)

    def load(self, base: IrValue, at: IrValue) -> IrValue:
        """The vector that begins `at` numbers after the address `base`."""
        return self.b.load(self._vector(base, at), align=self.align)

    def store(self, value: IrValue, base: IrValue, at: IrValue) -> None:
        """Store a vector `at` numbers after the address `base`."""
        self.b.store(value, self._vector(base, at), align=self.align)

    def _vector(self, base: IrValue, at: IrValue) -> IrValue:
        return self.b.bitcast(self.b.gep(base, [at]), self.vector.as_pointer())


def int_constant(value: int) -> ir.Constant:
    """A whole number of 64 bits."""
    return ir.Constant(INT, value)
