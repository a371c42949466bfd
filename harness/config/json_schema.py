"""The JSON schema of a study file; with it, editors complete keys, show their descriptions, and mark errors."""

import ast
import inspect
from types import NoneType
from typing import Any, get_args, get_type_hints

from harness.config.axes import BASE, DATA_FIELDS
from harness.config.recipe_axes import KEY_MODELS, PREFIX, RECIPE_AXES
from harness.config.recipes.loading import recipe_names
from harness.config.study import Study
from harness.models.spec.family import FAMILIES
from harness.models.spec.network import FIELDS, PER_STAGE, NetworkSpec
from harness.models.spec.presets import PRESETS

JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", NoneType: "null"}


def json_schema() -> dict[str, Any]:
    """The schema. Rules across keys are not part of it; they are checked when a study file is read."""
    schema = Study.model_json_schema()
    ranged = schema["$defs"]["OrdinalRange"] | {"type": "object"}
    fields = {name: _field(name, about) for name, about in field_docs().items()}
    network = {"type": "object", "additionalProperties": False, "properties": fields}
    axes = {name: _axis(name, form, ranged) for name, form in fields.items() if name not in DATA_FIELDS}
    stages = max(family.stages for family in FAMILIES.values())
    axes |= {f"{name}[{i}]": _axis(name, _scalar(name), ranged) for name in PER_STAGE for i in range(stages)}
    axes |= {name: _recipe_axis(name, ranged) for name in RECIPE_AXES}
    keys = schema["properties"]
    base = {"anyOf": [{"enum": list(PRESETS)}, {"type": "string", "pattern": r"\.ya?ml$"}, network]}
    keys["bases"] |= {"additionalProperties": base}
    axes[BASE] = {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
        "description": "Whole networks, by name.",
    }
    schema["anyOf"] = [{"required": [BASE]}, {"properties": {"axes": {"required": [BASE]}}}]
    keys["base"] = base | {"description": keys["base"]["description"]}
    full_scale = schema["$defs"]["FullScale"]["properties"]
    full_scale["base"] |= {"oneOf": base["anyOf"]}
    full_scale["recipe"]["anyOf"][0] = {"enum": list(recipe_names())}
    keys["axes"] |= {"properties": axes, "additionalProperties": False}
    conditions = {name: {"type": "string", "description": f"When `{name}` is chosen."} for name in axes}
    keys["when"] |= {"properties": conditions, "additionalProperties": False}
    del schema["$defs"]["OrdinalRange"], schema["$defs"]["WeightedValues"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _recipe_axis(name: str, ranged: dict[str, Any]) -> dict[str, Any]:
    """The schema of an axis that sets a key of the proxy."""
    key = name.removeprefix(PREFIX)
    value = KEY_MODELS[key].model_json_schema()["properties"][key.rpartition(".")[2]]
    one = {part: content for part, content in value.items() if part not in ("title", "default", "description")}
    listed = {"type": "array", "items": one, "minItems": 1}
    kinds = {kind.get("type") for kind in (one, *one.get("anyOf", ()))}
    is_number = bool({"integer", "number"} & kinds)
    return {
        "anyOf": [listed, _weighted(listed), *([ranged] if is_number else []), DERIVED],
        "description": value.get("description", f"`proxy.{key}`."),
    }


def field_docs() -> dict[str, str]:
    """The docstrings of a network's fields in `harness.models.spec.network`, by field."""
    (definition,) = ast.parse(inspect.getsource(NetworkSpec)).body
    assert isinstance(definition, ast.ClassDef), "the source of a class is its definition"
    docs = dict.fromkeys(FIELDS, "")
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if is_text and isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            docs[field.target.id] = inspect.cleandoc(str(below.value.value))  # type: ignore[attr-defined]
    return docs


def _scalar(name: str) -> dict[str, Any]:
    """The schema of one value of a field, from its type."""
    hint = get_type_hints(NetworkSpec)[name]
    kinds = get_args(hint)[:1] if name in PER_STAGE else (hint,)
    kinds = tuple(member for kind in kinds for member in (get_args(kind) or (kind,)))
    return {"type": [JSON_TYPES[kind] for kind in kinds]}


def _field(name: str, about: str) -> dict[str, Any]:
    """The schema of a field: one value, or one per stage."""
    one = _scalar(name)
    if name in PER_STAGE:
        one = {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
    return one | {"description": about}


DERIVED = {"type": "string", "description": "An expression of other axes, from which the value follows."}


def _weighted(listed: dict[str, Any]) -> dict[str, Any]:
    """The schema of values with a prior."""
    prior = {"type": "array", "items": {"type": "number", "minimum": 0}, "description": "A weight for each value."}
    properties = {"values": listed, "prior": prior}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _axis(name: str, value: dict[str, Any], ranged: dict[str, Any]) -> dict[str, Any]:
    """The schema of an axis: a list of values, an expression, or also a range if they are numbers."""
    listed = {"type": "array", "items": value, "minItems": 1}
    is_number = {"integer", "number"} & set(_scalar(name)["type"])
    forms = [listed, _weighted(listed), *([ranged] if is_number else []), DERIVED]
    return {"anyOf": forms, "description": value.get("description", name)}
