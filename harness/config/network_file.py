"""Conversion of presets, spec files and mappings of fields to `NetworkSpec` and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.config.axes import BASE
from harness.config.problems import FileErrors
from harness.config.space import plain_fields
from harness.config.study import Study, WeightedValues
from harness.config.yaml_file import KeyPath, dotted, quoted, read_document, write_yaml
from harness.errors import SpecError, StudyError, did_you_mean
from harness.models.spec.network import FIELDS, NetworkSpec
from harness.models.spec.presets import PRESETS


def load_network_spec(path: Path) -> NetworkSpec:
    """The network that a spec file describes. Raises `StudyError` with the line of each fault."""
    document = read_document(path)
    problems = FileErrors(document)
    spec = spec_of_mapping(document.data, (), problems)
    problems.raise_if_any()
    assert spec is not None, "an invalid mapping is reported as a problem"
    return spec


def is_study_file(path: Path) -> bool:
    """Whether a YAML file is a study file, by its keys. Raises `StudyError` for a file that is not YAML."""
    return not {"study", "base", "axes"}.isdisjoint(read_document(path).data)


def dump_network_spec(spec: NetworkSpec, comment: str | None = None) -> str:
    """The text of a spec file with all fields of the network, after a comment."""
    return write_yaml(plain_fields(spec), comment)


def resolve_bases(study: Study, problems: FileErrors) -> tuple[NetworkSpec | None, dict[str, NetworkSpec]]:
    """The network whose values apply where no axis decides, and the networks of the axis `base` by name.

    With an axis `base`, the former is the first of the latter. None, with problems reported, if one is invalid.
    """
    listed, data = study.axes.get(BASE), problems.document.data
    listed = listed.values if isinstance(listed, WeightedValues) else listed
    for name in study.bases if listed is None else ():
        problems.add(("bases", name), "`bases` must be listed by an axis `base`")
    if listed is None and study.base is not None:
        return resolve(study.base, ("base",), problems), {}
    if listed is None and data.get(BASE) is None and BASE not in data["axes"]:
        problems.add((), "`base` is required", remedy=Study.model_fields["base"].description)
    if listed is not None and study.base is not None:
        problems.add(("base",), "`base` must be left out where it is an axis")
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        if listed is not None:
            problems.add(("axes", BASE), "`axes.base` must be a list of names of networks", value=quoted(listed))
        return None, {}
    bases: dict[str, NetworkSpec | None] = {}
    for i, name in enumerate(listed):
        at: KeyPath = ("bases", name) if name in study.bases else ("axes", BASE, i)
        bases[name] = resolve(study.bases.get(name, name), at, problems)
    sound = {name: spec for name, spec in bases.items() if spec is not None}
    return (sound[listed[0]], sound) if len(sound) == len(bases) else (None, {})


def resolve(named: str | Mapping[str, Any], at: KeyPath, problems: FileErrors) -> NetworkSpec | None:
    """The network of a `base` key; None, with its problems reported, if it is invalid."""
    if not isinstance(named, str):
        return spec_of_mapping(named, at, problems)
    if named in PRESETS:
        return PRESETS[named]
    if Path(named).suffix not in (".yaml", ".yml"):
        rule = f"`{dotted(at)}` must be a preset, the path of a spec file (.yaml), or a mapping of fields"
        problems.add(at, rule, value=quoted(named), remedy=did_you_mean(named, PRESETS, "Presets"))
        return None
    path = problems.document.path.parent / named
    if not path.is_file():
        rule = f"`{dotted(at)}` must lead from this file's folder to a spec file"
        problems.add(at, rule, value=quoted(named), remedy=f"There is no file {path}.")
        return None
    try:
        return load_network_spec(path)
    except StudyError as error:
        problems.add_error(at, error)
        return None


def spec_of_mapping(values: Mapping[str, Any], at: KeyPath, problems: FileErrors) -> NetworkSpec | None:
    """The network of the mapping of fields at a path; None, with its problems reported, if it is invalid."""
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
