"""The operators and functions of `harness.config.expressions`: as Python's, but an error where Python would surprise.

`K == 3` on a list is an error and not silently false, arithmetic is on numbers only, and powers are bounded.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

MAX_POWER_BASE = 1e6
MAX_POWER_EXPONENT = 64


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


def collapsed(value: Any, _: str = "") -> Any:
    """The values of the stages; a single one if they are all the same."""
    is_single = isinstance(value, list | tuple) and value and all(each == value[0] for each in value)
    return value[0] if is_single else value


def _single(value: Any, name: str) -> Any:
    """The value of all stages."""
    single = collapsed(value)
    if isinstance(single, list | tuple):
        raise TypeError(f"stages differ in `{name}`; write `{name}[0]`, or a loop as in `all(v == 1 for v in {name})`")
    return single


def _members(value: Any, _: str) -> Any:
    """The values of the stages for `in`; the text if they all have the same, so that a part of it is in it, too."""
    single = collapsed(value)
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
STAGE_FUNCTIONS: dict[str, Callable[..., Any]] = {SINGLE: _single, MEMBERS: _members, COLLAPSED: collapsed}
"""Functions that the stages of a field are read with, under names that no expression can contain."""
