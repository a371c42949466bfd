"""Networks in files: presets by name, spec files, mappings of fields; to `NetworkSpec` and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import SpecError, StudyError, did_you_mean
from harness.presets import PRESETS
from harness.space import plain_fields
from harness.spec import FIELDS, NetworkSpec
from harness.study.problems import Problems
from harness.study.source import KeyPath, dotted, read_document, shown, write_yaml


def load_spec(path: Path) -> NetworkSpec:
    """The network that a spec file describes. Raises `StudyError` with the lines of what is wrong."""
    document = read_document(path)
    problems = Problems(document)
    spec = spec_of_mapping(document.data, (), problems)
    problems.raise_if_any()
    assert spec is not None, "a mapping that gives no network leaves a problem"
    return spec


def dump_spec(spec: NetworkSpec, comment: str | None = None) -> str:
    """The network as the text of a spec file, all fields written out, below a comment."""
    return write_yaml(plain_fields(spec), comment)


def resolve(named: str | Mapping[str, Any], at: KeyPath, problems: Problems) -> NetworkSpec | None:
    """The network that a `base` key means; None, with its problems noted, where it means none."""
    if not isinstance(named, str):
        return spec_of_mapping(named, at, problems)
    if named in PRESETS:
        return PRESETS[named]
    if Path(named).suffix not in (".yaml", ".yml"):
        rule = f"`{dotted(at)}` must be a preset, the path of a spec file (.yaml), or a mapping of fields"
        problems.add(at, rule, value=shown(named), remedy=did_you_mean(named, PRESETS, "Presets"))
        return None
    path = problems.document.path.parent / named
    if not path.is_file():
        rule = f"`{dotted(at)}` must lead from this file's folder to a spec file"
        problems.add(at, rule, value=shown(named), remedy=f"There is no file {path}.")
        return None
    try:
        return load_spec(path)
    except StudyError as error:
        problems.add_error(at, error)
        return None


def spec_of_mapping(values: Mapping[str, Any], at: KeyPath, problems: Problems) -> NetworkSpec | None:
    """The network of a mapping of fields that stands at a path."""
    unknown = [name for name in values if name not in FIELDS]
    for name in unknown:
        problems.add((*at, name), f"`{name:.60}` is no field of a network", remedy=did_you_mean(name, FIELDS, "Fields"))
    missing = [name for name in ("B", "C", "K") if name not in values]
    for name in missing:
        problems.add(at, f"`{dotted((*at, name))}` is required: one value per stage, or one for all")
    if unknown or missing:
        return None
    try:
        return NetworkSpec.from_mapping(values)
    except SpecError as error:
        problems.add_error(at, error)
        return None
