"""What a claim compares: a figure of a run by its name, or a formula of figures.

There are numbers, names, `+ - * / **`, and the functions of `FUNCTIONS`; simpleeval evaluates, never Python.
"""

import ast
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from simpleeval import InvalidExpression, SimpleEval

from harness.errors import StudyError

MAX_CHARACTERS = 200
FUNCTIONS = {"log": math.log, "log2": math.log2, "log10": math.log10, "sqrt": math.sqrt, "abs": abs}
OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: lambda a, b: float(a) + float(b),
    ast.Sub: lambda a, b: float(a) - float(b),
    ast.Mult: lambda a, b: float(a) * float(b),
    ast.Div: lambda a, b: float(a) / float(b),
    ast.Pow: lambda a, b: float(a) ** float(b),
    ast.USub: lambda a: -float(a),
    ast.UAdd: float,
}
"""In floating point, where every operation takes the same time: the digits of a whole number know no bound."""
PROBES = ((1e-3, 1.0), (0.4, -1.0), (1.7, 1.0), (30.0, -1.0), (97.0, 1.0), (1e7, 1.0), (4e9, -1.0))
"""Sizes of metrics, and how they are spread, at which a formula must have a value."""
GRAMMAR = (
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UnaryOp, ast.USub, ast.UAdd),
    *(ast.Name, ast.Load, ast.Constant, ast.Call),
)


@dataclass(frozen=True, slots=True)
class Formula:
    """A number from the figures of one run. Raises `StudyError` for a text that is no formula."""

    text: str
    names: frozenset[str] = field(init=False)
    """The figures that it needs."""

    def __post_init__(self) -> None:
        tree = self._parsed()
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if not isinstance(node, GRAMMAR) or (
                isinstance(node, ast.Constant) and type(node.value) not in (int, float)
            ):
                raise self._wrong(f"`{ast.unparse(node)}` has no place in it")
            if isinstance(node, ast.Call) and not self._is_known(node):
                raise self._wrong(f"`{ast.unparse(node.func)}` is no function of one figure that it knows")
        used = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called)
        object.__setattr__(self, "names", frozenset(node.id for node in used))
        if bare := self.names & FUNCTIONS.keys():
            raise self._wrong(f"`{min(bare)}` is a function, as `{min(bare)}(macs)`")
        if not self.names:
            raise self._wrong("it names no figure of a run")

    def value(self, figure: Callable[[str], float | None]) -> float | None:
        """The number; None where a figure is missing, or the formula has no finite value for them."""
        figures = {name: figure(name) for name in self.names}
        if any(value is None for value in figures.values()):
            return None
        try:
            value = SimpleEval(operators=OPERATORS, names=figures, functions=FUNCTIONS).eval(self.text)
        except (ArithmeticError, ValueError, TypeError, RecursionError, InvalidExpression):
            return None
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def require_value(self) -> None:
        """Raise `StudyError` for a formula that is the same, or no number, whatever its metrics are."""
        names = sorted(self.names)
        probes = ({name: size * (1 + i) ** power for i, name in enumerate(names)} for size, power in PROBES)
        values = {value for probe in probes if (value := self.value(probe.get)) is not None}
        if not values:
            raise self._wrong("it has no finite value, whatever its metrics are")
        if len(values) == 1:
            raise self._wrong("its value does not depend on any metric")

    def _parsed(self) -> ast.expr:
        if len(self.text) > MAX_CHARACTERS:
            raise self._wrong(f"it has more than {MAX_CHARACTERS} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                return ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._wrong("it cannot be read") from None

    @staticmethod
    def _is_known(call: ast.Call) -> bool:
        is_plain = isinstance(call.func, ast.Name) and call.func.id in FUNCTIONS
        return is_plain and len(call.args) == 1 and not call.keywords

    def _wrong(self, why: str) -> StudyError:
        return StudyError(
            f"must be a figure of a run, or a formula of figures, but {why}",
            value=self.text[:60],
            remedy=f"As `top1`, `log(latency_ms_p50 / macs)`; functions: {', '.join(FUNCTIONS)}.",
        )
