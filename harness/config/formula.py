"""Formulas of metrics in Python's syntax, as the metric of a claim: `log2(latency_ms_p50 / macs)`.

The names are the metrics of a run. There are numbers, `+ - * / **`, and the functions of `FORMULA_FUNCTIONS`. A formula
is parsed once, checked against this grammar, and evaluated by simpleeval, never by Python.
"""

import ast
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from simpleeval import InvalidExpression, SimpleEval

from harness.errors import StudyError

MAX_FORMULA_CHARACTERS = 200
FORMULA_FUNCTIONS = {"log": math.log, "log2": math.log2, "log10": math.log10, "sqrt": math.sqrt, "abs": abs}
FORMULA_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: lambda a, b: float(a) + float(b),
    ast.Sub: lambda a, b: float(a) - float(b),
    ast.Mult: lambda a, b: float(a) * float(b),
    ast.Div: lambda a, b: float(a) / float(b),
    ast.Pow: lambda a, b: float(a) ** float(b),
    ast.USub: lambda a: -float(a),
    ast.UAdd: float,
}
"""Operators in floating point, where every operation takes bounded time; Python's integers are unbounded."""
TEST_VALUES = ((1e-3, 1.0), (0.4, -1.0), (1.7, 1.0), (30.0, -1.0), (97.0, 1.0), (1e7, 1.0), (4e9, -1.0))
"""Magnitudes of the metrics, and exponents that spread them, at which a formula is tried; see `require_value`."""
FORMULA_GRAMMAR = (
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UnaryOp, ast.USub, ast.UAdd),
    *(ast.Name, ast.Load, ast.Constant, ast.Call),
)


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula over the metrics of one run. Raises `StudyError` for a text that is no formula."""

    text: str
    names: frozenset[str] = field(init=False)
    """The metrics that it uses."""

    def __post_init__(self) -> None:
        tree = self._parsed()
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if not isinstance(node, FORMULA_GRAMMAR) or (
                isinstance(node, ast.Constant) and type(node.value) not in (int, float)
            ):
                raise self._error(f"`{ast.unparse(node)}` has no place in it")
            if isinstance(node, ast.Call) and not self._is_known(node):
                raise self._error(f"`{ast.unparse(node.func)}` is not a known function of one metric")
        used = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called)
        object.__setattr__(self, "names", frozenset(node.id for node in used))
        if bare := self.names & FORMULA_FUNCTIONS.keys():
            raise self._error(f"`{min(bare)}` is a function, as `{min(bare)}(macs)`")
        if not self.names:
            raise self._error("it names no metric of a run")

    def value(self, metric: Callable[[str], float | None]) -> float | None:
        """The value of the formula; None if a metric is missing, or the value is not finite."""
        metrics = {name: metric(name) for name in self.names}
        if any(value is None for value in metrics.values()):
            return None
        try:
            value = SimpleEval(operators=FORMULA_OPERATORS, names=metrics, functions=FORMULA_FUNCTIONS).eval(self.text)
        except (ArithmeticError, ValueError, TypeError, RecursionError, InvalidExpression):
            return None
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def require_value(self) -> None:
        """Raise `StudyError` for a formula that is constant, or has no finite value, whatever its metrics are."""
        names = sorted(self.names)
        probes = ({name: size * (1 + i) ** power for i, name in enumerate(names)} for size, power in TEST_VALUES)
        values = {value for probe in probes if (value := self.value(probe.get)) is not None}
        if not values:
            raise self._error("it has no finite value, whatever its metrics are")
        if len(values) == 1:
            raise self._error("its value does not depend on any metric")

    def _parsed(self) -> ast.expr:
        if len(self.text) > MAX_FORMULA_CHARACTERS:
            raise self._error(f"it has more than {MAX_FORMULA_CHARACTERS} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                return ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._error("it cannot be read") from None

    @staticmethod
    def _is_known(call: ast.Call) -> bool:
        is_plain = isinstance(call.func, ast.Name) and call.func.id in FORMULA_FUNCTIONS
        return is_plain and len(call.args) == 1 and not call.keywords

    def _error(self, why: str) -> StudyError:
        rule = f"must be a metric of a run, or a formula of metrics, but {why}"
        remedy = f"As `top1`, `log(latency_ms_p50 / macs)`; functions: {', '.join(FORMULA_FUNCTIONS)}."
        return StudyError(rule, value=self.text[:60], remedy=remedy)
