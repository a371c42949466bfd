"""Strict reading and writing of YAML: plain values, each with its line.

The scalars are those of YAML 1.2, so that `on` and `no` are text; in addition, `1e6` is a number. Duplicate keys, keys
that are not text, tags, NaN and infinity, huge numbers, aliases that multiply, and files that are too large or nested
too deep are refused. Anchors, aliases and merge keys (`<<`) are supported.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.errors import StudyError

KeyPath = tuple[str | int, ...]
"""Path of a value: `("axes", "K", 2)` is the third value of the axis K."""

MAX_BYTES = 100_000
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Maximum number of values in one file, each alias counted as often as it is used."""
MAX_WHOLE = 2**53
"""The largest whole number that every reader of JSON and every database represents exactly."""

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+)\Z")
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))\Z|\.(?:nan|NaN|NAN)\Z"
)
_RESOLVERS = (
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own form)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


class _StoredLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _name, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)
    _StoredLoader.add_implicit_resolver(_TAG + _name, _pattern, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _pattern, _first)


def dotted(at: KeyPath) -> str:
    """A path in dotted notation: `axes.K[2]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".")


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file: its text, its plain values, and the line of each."""

    path: Path
    text: str
    data: dict[str, Any]
    lines: Mapping[KeyPath, int] = field(repr=False, compare=False)

    def line(self, at: KeyPath) -> int:
        """The line of a value, or of the innermost enclosing value that is in the file."""
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)

    def place(self, at: KeyPath = ()) -> str:
        """File and line of a value, as `search_spaces/kernel_size.yaml:14`."""
        return f"{self.path}:{self.line(at)}"


def read_document(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping. Raises `StudyError` with the line of each fault."""
    text = _read_text(path)
    node = _compose(path, text)
    if node is None:
        raise StudyError("The file must not be empty", place=str(path), remedy="Start from a shipped one.")
    builder = _ValueBuilder(path)
    data = builder.build(node, ())
    if builder.problems:
        raise combined(path, builder.problems)
    if not isinstance(data, dict):
        rule = "The top of the file must be a mapping of keys to values"
        remedy = "Write lines such as `base: replknet_nano`."
        raise StudyError(rule, value=quoted(data), place=f"{path}:{node.start_mark.line + 1}", remedy=remedy)
    return Document(path, text, data, builder.lines)


def parse_stored(text: str) -> Any:
    """The values of YAML that `write_yaml` has written, such as a stored study; ten times as fast as `read_document`.

    Text such as `on` or `2026-12-01` is text, as in `read_document`. Raises `yaml.YAMLError`.
    """
    return yaml.load(text, _StoredLoader)


def combined(path: Path, problems: list[StudyError]) -> StudyError:
    """One error that contains all problems."""
    if len(problems) == 1:
        return problems[0]
    return StudyError(f"{len(problems)} things must be put right", place=str(path), problems=problems)


class _Unquoted(str):
    """Text that an error shows without quotes."""

    def __repr__(self) -> str:
        return str(self)


def quoted(value: object, *, is_quoted: bool = True) -> object:
    """A value as an error shows it: as in the file (`null`, `true`), and shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str) if is_quoted else str(value)
    return _Unquoted(text if len(text) <= 60 else f"{text[:57]}...")


def write_yaml(data: Mapping[str, Any], comment: str | None = None) -> str:
    """Plain values as YAML, after a comment; `read_document` returns equal values."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in (comment or "").splitlines())
    body = yaml.dump(
        dict(data), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
    )
    return head + body


def _read_text(path: Path) -> str:
    try:
        if not path.exists():
            raise StudyError("The file must exist", place=str(path), remedy="Check the path and the working folder.")
        if not path.is_file():
            raise StudyError("The path must lead to a file; this is a folder or a device", place=str(path))
        raw = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError) as error:
        raise StudyError(f"The file must be readable: {error}", place=str(path)) from error
    if raw is None:
        raise StudyError(f"The file must have at most {MAX_BYTES} bytes", value=path.stat().st_size, place=str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        rule = f"The file must be UTF-8 text (byte {error.start} is not)"
        raise StudyError(rule, place=f"{path}:{line}", remedy="Save it as UTF-8.") from error


def _compose(path: Path, text: str) -> yaml.Node | None:
    """The file as PyYAML's graph of nodes, which have their lines."""
    try:
        loader = _Loader(text)
        try:
            node: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        output = ", ".join(part for part in (error.context, error.problem) if part)
        raise StudyError(f"The file must be valid YAML: {output}", place=place, remedy=_yaml_remedy(output)) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise StudyError("The file must hold no control characters", place=f"{path}:{line}") from error
    except RecursionError as error:
        raise StudyError(f"The file must be nested at most {MAX_DEPTH} deep", place=str(path)) from error
    return node


def _yaml_remedy(output: str) -> str:
    if "\\t" in output:
        return "Indent with spaces, not with tabs."
    if "got '['" in output:
        return 'Inside braces, quote a key such as "K[3]".'
    if "single document" in output:
        return "Write one study per file, without a second `---`."
    return "Look for a missing quote, bracket or colon there or in the line above."


class _ValueBuilder:
    """Builds plain values from PyYAML's nodes, and collects lines and problems."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[StudyError] = []
        self._open: set[int] = set()
        self._values = 0

    def build(self, node: yaml.Node, at: KeyPath) -> Any:
        """The value of the node at a path."""
        self._values += 1
        self.lines.setdefault(at, node.start_mark.line + 1)
        if self._values > MAX_VALUES:
            if self._values == MAX_VALUES + 1:
                self._problem(node, f"The file must hold at most {MAX_VALUES} values, aliases followed")
            return None
        if id(node) in self._open or len(at) > MAX_DEPTH:
            self._problem(node, f"Values must be nested at most {MAX_DEPTH} deep, and no alias may hold itself")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self._problem(node, f"The tag `{node.tag:.60}` does not fit here", remedy="Leave the tag out.")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, at)
            return [self.build(item, (*at, i)) for i, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, at: KeyPath) -> dict[str, Any]:
        key_lines: dict[str, int] = {}
        values: dict[str, Any] = {}
        for key, child in ((key, child) for key, child in node.value if not _is_merge(key)):
            line = key.start_mark.line + 1
            if key.tag != _TAG + "str" or not isinstance(key, yaml.ScalarNode):
                value = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                self._problem(
                    key, "Keys must be text", value=quoted(value, is_quoted=False), remedy="Put it in quotes."
                )
            elif key.value in key_lines:
                self._problem(key, f"`{key.value:.60}` must occur once, but line {key_lines[key.value]} has it too")
            else:
                key_lines[key.value] = line
                self.lines.setdefault((*at, key.value), line)
                values[key.value] = self.build(child, (*at, key.value))
        for merged in self._merged(node, at):
            values = merged | values
        return values

    def _merged(self, node: yaml.MappingNode, at: KeyPath) -> Iterator[dict[str, Any]]:
        """The mappings that `<<` merges, in order of precedence."""
        for key, value in node.value:
            if _is_merge(key):
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(source, yaml.MappingNode):
                        yield self.build(source, at) or {}
                    else:
                        self._problem(source, "`<<` must take in mappings only")

    def _scalar(self, node: yaml.ScalarNode, at: KeyPath) -> str | int | float | bool | None:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind == "str":
            return str(text)
        if kind == "bool" and text.lower() in ("true", "false"):
            return bool(text.lower() == "true")
        if kind in ("int", "float") and (_INT.match(text) or _FLOAT.match(text)):
            number = _number(text.replace("_", ""))
            if math.isfinite(number) and abs(number) <= MAX_WHOLE:
                is_whole = _INT.match(text) or ("." not in text and number.is_integer())
                return int(number) if is_whole else number
            rule = f"`{dotted(at)}` must be a finite number of at most {MAX_WHOLE}"
            self._problem(node, rule, value=quoted(text, is_quoted=False))
        elif kind != "null":
            self._problem(node, f"The tag `{node.tag:.60}` does not fit here", remedy="Leave the tag out.")
        return None

    def _problem(self, node: yaml.Node, rule: str, *, value: object = None, remedy: str | None = None) -> None:
        place = f"{self.path}:{node.start_mark.line + 1}"
        self.problems.append(StudyError(rule, value=value, place=place, remedy=remedy))


def _number(text: str) -> float:
    digits = text.lstrip("+-").lower()
    if digits in (".inf", ".nan"):
        return math.nan
    try:
        size = float(int(digits, 0) if digits.startswith(("0x", "0o")) else digits)
    except OverflowError:
        return math.inf
    return -size if text.startswith("-") else size


def _is_merge(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None
