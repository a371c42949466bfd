"""Expressions of a study file in Python's syntax: conditions, rules, derived axes, and the metric of a claim.

Each is parsed once, checked against a small grammar, and evaluated by simpleeval, never by Python.

In an `Expression` the names are the fields of a network (those with one value per stage are lists, `K[0]` is the first
stage; the fields of `MAY_DIFFER` are single values, except where their stages are used, as in `shortcut[0]` and
`all(shortcut)`), the keys of the recipe (`recipe.optimizer.lr`), and `true`, `false`, `null`. There are numbers, text,
lists, indices and slices; `+ - * / // % **` on numbers; comparisons, `in`; `and`, `or`, `not`, `a if c else b`; the
functions of `CONDITION_FUNCTIONS`; and loops as in `all(k > 5 for k in K)`.

In a `Formula` the names are the metrics of a run. There are numbers, `+ - * / **`, and the functions of
`FORMULA_FUNCTIONS`.
"""

import ast
import json
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from simpleeval import EvalWithCompoundTypes, InvalidExpression, SimpleEval

from harness.config.recipe_axes import PREFIX, RECIPE_NAMES
from harness.config.yaml_file import MAX_WHOLE
from harness.errors import StudyError, did_you_mean
from harness.models.spec.network import FIELDS, MAY_DIFFER

MAX_CONDITION_LENGTH = 300
MAX_DEPTH = 25
DIGITS = 12
"""Decimals of a derived value, as of the values of a range."""
MAX_POWER_BASE = 1e6
MAX_POWER_EXPONENT = 64

CONDITION_NODES = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp, ast.Add, ast.Sub, ast.Mult),
    *(ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
    *(ast.In, ast.NotIn, ast.Is, ast.IsNot, ast.IfExp, ast.Call, ast.Name, ast.Load, ast.Store, ast.Constant),
    *(ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.GeneratorExp, ast.ListComp, ast.comprehension),
)
NAMES = frozenset((*FIELDS, *RECIPE_NAMES))
LITERALS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition on a network's fields, or a value that follows from them. Raises `StudyError` for any other text.

    Expressions with equal texts are equal; `key` and `place` locate it in a study file, for error messages.
    """

    text: str
    key: str = field(default="expression", compare=False)
    place: str | None = field(default=None, compare=False)
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tree", self._parsed())

    def references(self) -> frozenset[tuple[str, int | None]]:
        """The fields and keys of the recipe that the expression uses, with the stage if written as `K[0]`, or None."""
        fields: set[tuple[str, int | None]] = set()
        indexed: set[int] = set()
        for node in ast.walk(self._tree):  # parents come before their children
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
                stage = _constant_index(node.slice)
                if stage is not None:
                    fields.add((node.value.id, stage))
                    indexed.add(id(node.value))
            elif isinstance(node, ast.Name) and node.id in NAMES and id(node) not in indexed:
                fields.add((node.id, None))
        return frozenset((name, stage) for name, stage in fields if name in NAMES)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition is true for a network with these fields, and a recipe with these values."""
        outcome = self._evaluated(values, "must be true or false for every network")
        if not isinstance(outcome, bool):
            remedy = f"{self._with(values)}it is {_short(outcome)}; write a comparison, as `max(K) > 5`."
            raise self._error("must be true or false", remedy)
        return outcome

    def value(self, values: Mapping[str, Any]) -> Any:
        """The value for a network and a recipe with these values: a scalar, or a tuple of scalars."""
        outcome = self._evaluated(values, "must have a value for every configuration")
        try:
            return tuple(map(_scalar, outcome)) if isinstance(outcome, list | tuple) else _scalar(outcome)
        except ValueError as error:
            remedy = f"{self._with(values)}it is {_short(outcome)}."
            raise self._error("must be a finite number, text, true, false, null, or a list of these", remedy) from error

    def _evaluated(self, values: Mapping[str, Any], rule: str) -> Any:
        evaluator = EvalWithCompoundTypes(
            operators=CONDITION_OPERATORS,
            functions=CONDITION_FUNCTIONS | STAGE_FUNCTIONS,
            names=LITERALS | dict(values),
        )
        try:
            return evaluator.eval(self.text, previously_parsed=self._tree)
        except (InvalidExpression, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            cause = str(error).rstrip(".") or type(error).__name__
            raise self._error(rule, f"{self._with(values)}{cause}.") from error

    def _parsed(self) -> ast.expr:
        if len(self.text) > MAX_CONDITION_LENGTH:
            raise self._error(f"must have at most {MAX_CONDITION_LENGTH} characters", "Split it into several rules.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what causes only a warning in Python, as `1if`, is an error here
                tree = ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, Warning, RecursionError, MemoryError) as error:
            hint = "Write conditions as in Python: `and`, `or`, `not`, `==`, `<=`, `K[0]`."
            raise self._error("must be an expression", hint) from error
        if _depth(tree) > MAX_DEPTH:
            raise self._error(f"must be nested at most {MAX_DEPTH} deep")
        tree = _with_dotted_names(tree)
        for node in ast.walk(tree):
            self._check(node)
        self._check_names(tree)
        return _with_single_values(tree)

    def _check(self, node: ast.AST) -> None:
        if not isinstance(node, CONDITION_NODES):
            raise self._error(
                "may hold numbers, comparisons, arithmetic, and/or/not, indices, loops in all(...) and functions only",
                f"`{ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__:.40}` is none of them.",
            )
        if isinstance(node, ast.Constant) and not isinstance(node.value, bool | int | float | str | None):
            raise self._error(f"may hold plain numbers and text only, not `{node.value!r:.40}`")
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in CONDITION_FUNCTIONS):
            called = ast.unparse(node.func)[:40]
            raise self._error(
                f"calls `{called}`, which is no function", did_you_mean(called, CONDITION_FUNCTIONS, "Functions")
            )
        if (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and (node.id in NAMES or node.id in CONDITION_FUNCTIONS or node.id.startswith(PREFIX))
        ):
            raise self._error(f"must not use `{node.id}` as the variable of a loop", "Choose another name, as `k`.")

    def _check_names(self, tree: ast.expr) -> None:
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        for node in names:
            if id(node) in functions or node.id in bound or node.id in NAMES or node.id in LITERALS:
                continue
            if node.id.startswith(PREFIX):
                remedy = did_you_mean(node.id, RECIPE_NAMES, "Keys")
                raise self._error(f"names `{node.id[:60]}`, which is no key of the proxy", remedy)
            raise self._error(
                f"names `{node.id[:40]}`, which is no field of a network", did_you_mean(node.id, FIELDS, "Fields")
            )

    def _with(self, values: Mapping[str, Any]) -> str:
        """The values of the fields that the expression uses, as `With K=[3, 3, 3, 3]: `."""
        names = sorted({name for name, _ in self.references()} & set(values))
        shown = {name: _collapsed(values[name]) if name in MAY_DIFFER else values[name] for name in names}
        assignments = ", ".join(f"{name}={json.dumps(value)}" for name, value in shown.items())
        return f"With {assignments}: " if assignments else "Here: "

    def _error(self, rule: str, remedy: str | None = None) -> StudyError:
        text = self.text if len(self.text) <= 80 else self.text[:77] + "..."
        return StudyError(f"`{self.key}` {rule}", value=text, place=self.place, remedy=remedy)


class _DottedNames(ast.NodeTransformer):
    """Makes one name of `recipe.optimizer.lr`; other attributes are left, and refused."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        text = ast.unparse(node)
        return ast.Name(text, node.ctx) if re.fullmatch(r"recipe(\.\w+)+", text) else node


def _with_dotted_names(tree: ast.expr) -> ast.expr:
    """The tree in which each key of the recipe is one name."""
    result = _DottedNames().visit(tree)
    assert isinstance(result, ast.expr)
    return result


class _SingleValues(ast.NodeTransformer):
    """Reads a field of `MAY_DIFFER` as a single value, except where the expression uses its stages."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return _stage_call(SINGLE, node) if _may_differ(node) else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        node.slice = self.visit(node.slice)
        node.value = node.value if _may_differ(node.value) else self.visit(node.value)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.comprehension:
        node.iter = node.iter if _may_differ(node.iter) else self.visit(node.iter)
        node.ifs = [self.visit(condition) for condition in node.ifs]
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        is_of_list = len(node.args) == 1 and ast.unparse(node.func) != "abs"  # max(dw_ratio, 1) is of single values
        node.args = [part if is_of_list and _may_differ(part) else self.visit(part) for part in node.args]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        parts = [node.left, *node.comparators]
        has_list = any(isinstance(part, ast.List | ast.Tuple | ast.ListComp) for part in parts)
        is_of_lists = has_list and not any(isinstance(op, ast.In | ast.NotIn) for op in node.ops)
        node.left, *node.comparators = (
            part if is_of_lists and _may_differ(part) else self.visit(part) for part in parts
        )
        for i, (op, part) in enumerate(zip(node.ops, parts[1:], strict=True)):
            if isinstance(op, ast.In | ast.NotIn) and _may_differ(part):
                node.comparators[i] = _stage_call(MEMBERS, part)
        return node


def _with_single_values(tree: ast.expr) -> ast.expr:
    """The tree in which fields of `MAY_DIFFER` are single values where it does not use their stages."""
    if _may_differ(tree):
        return _stage_call(COLLAPSED, tree)
    result = _SingleValues().visit(tree)
    assert isinstance(result, ast.expr)
    return result


def _may_differ(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and node.id in MAY_DIFFER


def _stage_call(function: str, field: ast.Name) -> ast.expr:
    return ast.Call(ast.Name(function, ast.Load()), [field, ast.Constant(field.id)], [])


def _depth(tree: ast.AST) -> int:
    """Nesting depth of a tree, computed without recursion, so that no text can exhaust the stack."""
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _constant_index(node: ast.expr) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _constant_index(node.operand)
        return None if inner is None else -inner
    is_index = isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool)
    return node.value if is_index else None  # type: ignore[attr-defined]


def _short(value: object) -> str:
    """A result as a short text."""
    try:
        return f"`{json.dumps(value, default=str):.60}`"
    except ValueError:  # Python refuses to write out numbers of thousands of digits
        return "a huge number"


def _scalar(value: Any) -> Any:
    """A scalar without floating-point noise, whole numbers as such. Raises `ValueError` for what is none."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("not finite")
        return int(value) if value.is_integer() else round(value, DIGITS)
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        raise ValueError("too large")
    if not isinstance(value, bool | int | str | None):
        raise ValueError("no scalar")
    return value


def _on_numbers(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Arithmetic on numbers only; lists and texts could grow without limit."""

    def checked(a: Any, b: Any) -> Any:
        for value in (a, b):
            if not isinstance(value, int | float):
                raise TypeError(f"arithmetic needs numbers, not {_kind(value)}")
        return compute(a, b)

    return checked


def _power(a: Any, b: Any) -> Any:
    if abs(a) > MAX_POWER_BASE or abs(b) > MAX_POWER_EXPONENT:
        raise ValueError(f"powers go up to a base of {MAX_POWER_BASE:g} and an exponent of {MAX_POWER_EXPONENT}")
    return a**b


def _comparison(compare: Callable[[Any, Any], Any], *, is_ordering: bool) -> Callable[[Any, Any], Any]:
    """A comparison in which `K == 3` is an error and not silently false."""

    def checked(a: Any, b: Any) -> Any:
        a, b = (list(value) if isinstance(value, tuple) else value for value in (a, b))
        if isinstance(a, list) != isinstance(b, list):
            raise TypeError(
                "a list can be compared with a list only; write `K[0]`, `max(K)` or `all(k > 5 for k in K)`"
            )
        if is_ordering and (a is None or b is None):
            raise TypeError("null is neither more nor less than a number; ask `... != null and ...` first")
        return compare(a, b)

    return checked


def _without_null(compute: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*values: Any) -> Any:
        items = values[0] if len(values) == 1 and isinstance(values[0], list | tuple) else values
        if None in items:
            raise TypeError("null has no size; write `s or 0 for s in reparam`")
        return compute(*values)

    return checked


def _collapsed(value: Any, _: str = "") -> Any:
    """The values of the stages; a single one if they are all the same."""
    is_single = isinstance(value, list | tuple) and value and all(each == value[0] for each in value)
    return value[0] if is_single else value


def _single(value: Any, name: str) -> Any:
    """The value of all stages."""
    single = _collapsed(value)
    if isinstance(single, list | tuple):
        raise TypeError(f"stages differ in `{name}`; write `{name}[0]`, or a loop as in `all(v == 1 for v in {name})`")
    return single


def _members(value: Any, _: str) -> Any:
    """The values of the stages for `in`; the text if they all have the same, so that a part of it is in it, too."""
    single = _collapsed(value)
    return single if isinstance(single, str) or not isinstance(value, list | tuple) else value


def _kind(value: object) -> str:
    return {list: "a list", tuple: "a list", str: "text", type(None): "null"}.get(type(value), type(value).__name__)


CONDITION_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Not: operator.not_,
    ast.USub: lambda a: _on_numbers(operator.sub)(0, a),
    ast.UAdd: lambda a: _on_numbers(operator.add)(0, a),
    ast.Add: _on_numbers(operator.add),
    ast.Sub: _on_numbers(operator.sub),
    ast.Mult: _on_numbers(operator.mul),
    ast.Div: _on_numbers(operator.truediv),
    ast.FloorDiv: _on_numbers(operator.floordiv),
    ast.Mod: _on_numbers(operator.mod),
    ast.Pow: _on_numbers(_power),
    ast.Eq: _comparison(operator.eq, is_ordering=False),
    ast.NotEq: _comparison(operator.ne, is_ordering=False),
    ast.Is: _comparison(operator.eq, is_ordering=False),
    ast.IsNot: _comparison(operator.ne, is_ordering=False),
    ast.Lt: _comparison(operator.lt, is_ordering=True),
    ast.LtE: _comparison(operator.le, is_ordering=True),
    ast.Gt: _comparison(operator.gt, is_ordering=True),
    ast.GtE: _comparison(operator.ge, is_ordering=True),
    ast.In: lambda a, b: operator.contains(b, a),
    ast.NotIn: lambda a, b: not operator.contains(b, a),
}

CONDITION_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "max": _without_null(max),
    "min": _without_null(min),
    "sum": _without_null(sum),
    "len": len,
    "abs": abs,
    "all": all,
    "any": any,
}

SINGLE, MEMBERS, COLLAPSED = "single value", "members of", "one or more values"
STAGE_FUNCTIONS: dict[str, Callable[..., Any]] = {SINGLE: _single, MEMBERS: _members, COLLAPSED: _collapsed}
"""Functions that the stages of a field are read with, under names that no expression can contain."""


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
