"""Collects the errors of a file, each with its line, so that all of them are reported at once."""

import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from harness.config.yaml_file import Document, KeyPath, combined, dotted, quoted
from harness.errors import SpecError, StudyError, UserError, did_you_mean

RULES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have at least {min_length} entry",
    "string_pattern_mismatch": "must be 1 to 64 letters, digits, `_` and `-`, the first one no sign",
}
"""Rules for error messages, by pydantic's type of error."""

REMEDIES = {
    "bool_type": "Write true or false.",
    "list_type": "Put it in brackets, as `[3]`.",
}

Problem = tuple[KeyPath, str, object, str]
"""Path, violated rule, value and remedy."""


class FileErrors:
    """The errors of one file."""

    def __init__(self, document: Document, kind: str = "a study file") -> None:
        self.document = document
        self.kind = kind
        self.errors: list[StudyError] = []

    def add(self, at: KeyPath, rule: str, *, value: object = None, remedy: str | None = None) -> None:
        """Add a violated rule for the value at a path; `value` is shown in the message."""
        self.errors.append(StudyError(rule, value=value, place=self.document.place(at), remedy=remedy))

    def add_error(self, at: KeyPath, error: UserError) -> None:
        """Add an error; one without a place gets the place of the path."""
        if isinstance(error, StudyError) and error.problems != (error,):
            self.errors += [problem for problem in error.problems if isinstance(problem, StudyError)]
        elif error.place is not None and isinstance(error, StudyError):
            self.errors.append(error)
        else:
            named = _path_of(error.field) if isinstance(error, SpecError) else ()
            is_written = bool(named) and (*at, named[0]) in self.document.lines  # its value may then be null
            value = quoted(error.value) if is_written or error.value is not None else None
            self.add((*at, *named), error.rule, value=value, remedy=error.remedy)

    def add_invalid(self, error: ValidationError, model: type[BaseModel]) -> set[KeyPath]:
        """Add pydantic's errors; returns the invalid paths."""
        invalid: set[KeyPath] = set()
        for details in error.errors(include_url=False):
            at = _written_path(details, self.document.data)
            message = str(details["ctx"]["error"]) if details["type"] == "value_error" else ""
            if named := re.match(r"`([\w.]+)` ", message):  # a validator's message about a key below its own
                at, message = (*at, *named[1].split(".")), message[named.end() :]
            if at not in invalid:
                invalid.add(at)
                self._add_details(at, details, model, message)
        return invalid

    def raise_if_any(self) -> None:
        """Raise all errors as one, in the order of their lines."""
        if self.errors:
            raise combined(self.document.path, sorted(self.errors, key=_line))

    def _add_details(self, at: KeyPath, details: ErrorDetails, model: type[BaseModel], message: str) -> None:
        kind, context = details["type"], details.get("ctx", {})
        if kind == "value_error":
            self.add(at, f"`{dotted(at)}` {message}")
        elif kind == "extra_forbidden":
            fields = _model_at(model, at[:-1], details["loc"]).model_fields
            parent = f"`{dotted(at[:-1])}`" if at[1:] else self.kind
            rule = f"`{at[-1]!s:.60}` is no key of {parent}"
            self.add(at, rule, remedy=did_you_mean(str(at[-1]), fields, "Keys"))
        elif kind == "missing":
            self.add(at[:-1], f"`{dotted(at)}` is required", remedy=_about(model, at, details["loc"]))
        else:
            rule = RULES.get(kind, f"is not right: {details['msg']}").format(**context)
            self.add(
                at,
                f"`{dotted(at)}` {rule}",
                value=quoted(details["input"]),
                remedy=_remedy(details) or _about(model, at, details["loc"]),
            )


def invalid_value(error: ValidationError, prefix: str) -> StudyError:
    """The first of pydantic's errors as one about a key with this prefix, as `recipe.`."""
    details = error.errors(include_url=False)[0]
    kind, name, value = details["type"], ".".join(map(str, details["loc"])), details["input"]
    rule = RULES.get(kind, f"is not right: {details['msg']}").format(**details.get("ctx", {}))
    if kind == "value_error":  # a rule across keys, whose message begins with the key
        message = str(details["ctx"]["error"])
        named = re.match(r"`([\w.]+)` ", message)
        name, rule, value = (named[1], message[named.end() :], None) if named else (name, message, None)
    return StudyError(f"`{prefix}{name}` {rule}", value=value, remedy=_remedy(details))


def _written_path(details: ErrorDetails, data: Any) -> KeyPath:
    """The path in the file, without the parts that pydantic adds (branches of a union)."""
    at: KeyPath = ()
    for i, part in enumerate(details["loc"]):
        is_key = isinstance(data, dict) and part in data
        is_index = isinstance(data, list) and isinstance(part, int)
        if is_key or is_index:
            at, data = (*at, part), data[part]
        elif details["type"] == "missing" and i == len(details["loc"]) - 1:
            at = (*at, part)
    return at


def _model_at(model: type[BaseModel], at: KeyPath, location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that describes the mapping at a path; of several forms, the one that pydantic's location names."""
    for part in at:
        field = model.model_fields.get(str(part))
        if field is not None:
            forms = list(_forms_in(field.annotation))
            model = next((form for tag, form in forms if tag in location), forms[0][1] if forms else model)
    return model


def _forms_in(annotation: Any, tag: str | None = None) -> Iterator[tuple[str | None, type[BaseModel]]]:
    """The models in an annotation with the tags that tell the forms of a key apart."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield tag, annotation
    arguments = get_args(annotation)
    own = next((argument.tag for argument in arguments if isinstance(argument, Tag)), tag)
    for inner in arguments:
        yield from _forms_in(inner, own)


def _about(model: type[BaseModel], at: KeyPath, location: tuple[int | str, ...]) -> str | None:
    """The description of the key at a path."""
    field = _model_at(model, at[:-1], location).model_fields.get(str(at[-1])) if at else None
    return field.description if field else None


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation such as `Transfer | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def _remedy(details: ErrorDetails) -> str | None:
    kind, value = details["type"], details["input"]
    if kind == "literal_error" and isinstance(value, str):
        return did_you_mean(value, re.findall(r"'([^']*)'", details["ctx"]["expected"]))
    if kind in ("int_type", "float_type") and isinstance(value, str) and re.fullmatch(r"[-+\d.eE_]+", value):
        return "Write it without quotes."
    if kind in ("model_type", "dict_type") and value is None:
        return "Write keys below it, or leave it out."
    return REMEDIES.get(kind)


def _path_of(field: str) -> KeyPath:
    """The path of a spec's field: ("K", 2) for `K[2]`."""
    name, *stages = re.findall(r"\w+", field)
    return (name, *(int(stage) for stage in stages))


def _line(problem: StudyError) -> int:
    number = (problem.place or "").rpartition(":")[2]
    return int(number) if number.isdigit() else 0
