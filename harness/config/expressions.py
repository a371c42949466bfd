"""Expressions of a study file in Python's syntax: conditions, rules and derived axes.

Each is parsed once, checked against a small grammar, and evaluated by simpleeval, never by Python.

The names are the fields of a network (those with one value per stage are lists, `K[0]` is the first
stage; the fields of `MAY_DIFFER` are single values, except where their stages are used, as in `shortcut[0]` and
`all(shortcut)`), the keys of the recipe (`recipe.optimizer.lr`), and `true`, `false`, `null`. There are numbers, text,
lists, indices and slices; `+ - * / // % **` on numbers; comparisons, `in`; `and`, `or`, `not`, `a if c else b`; the
functions of `CONDITION_FUNCTIONS`; and loops as in `all(k > 5 for k in K)`.
"""

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from simpleeval import EvalWithCompoundTypes, InvalidExpression

from harness.config.expression_functions import (
    COLLAPSED,
    CONDITION_FUNCTIONS,
    CONDITION_OPERATORS,
    MEMBERS,
    SINGLE,
    STAGE_FUNCTIONS,
    collapsed,
)
from harness.config.recipe_axes import PREFIX, RECIPE_NAMES
from harness.config.yaml_file import MAX_WHOLE
from harness.errors import StudyError, did_you_mean
from harness.models.spec.network import FIELDS, MAY_DIFFER

MAX_CONDITION_LENGTH = 300
MAX_DEPTH = 25
DIGITS = 12
"""Decimals of a derived value, as of the values of a range."""

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
        shown = {name: collapsed(values[name]) if name in MAY_DIFFER else values[name] for name in names}
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
