"""A sampler from outside: `module.py:name` next to the study file, or `package.module:name` of an installed package.

The code of a plug-in decides what a study proposes, so its digest is part of the study's identity. Here a plug-in is
found and its digest is taken, without executing its file and without Optuna; `harness.search.plugin` builds the
sampler.
"""

import ast
import importlib.util
import os
import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath

from harness.errors import StudyError, did_you_mean
from harness.system.code_revision import digest_files

PLUGIN = re.compile(r"(?P<where>[\w./-]+):(?P<name>[A-Za-z_]\w*)")
FORMS = (
    "Write `module.py:name` for a file next to the study file, or `package.module:name`, as "
    "`optuna.samplers:TPESampler`."
)


@dataclass(frozen=True, slots=True)
class SamplerPlugin:
    """A function or class that returns one of Optuna's samplers for a seed."""

    text: str
    """As in the study file."""
    module: str
    """Path of a file as the study file has it, or name of a module."""
    name: str
    code: Path
    """The file with the code."""
    source: bytes = field(repr=False)
    """Its content when the study file was read; a file next to the study file is executed and copied as it was then."""
    digest: str
    """Digest of the code; of an installed package after its name and version."""

    @property
    def is_file(self) -> bool:
        """Whether it is a file next to the study file."""
        return self.module.endswith(".py")


def find_plugin(text: str, folder: Path) -> SamplerPlugin:
    """The plug-in that a study file in this folder names. Raises `StudyError` if there is none."""
    match = PLUGIN.fullmatch(text)
    if match is None:
        raise StudyError("a plug-in sampler must be a module and a name in it", value=text, remedy=FORMS)
    module, name = match["where"], match["name"]
    if module.endswith(".py"):
        code, prefix = _file(module, folder), ""
        files = [code]
    else:
        code, prefix = _module(module)
        files = [code] if prefix else _own_package(module, code)
    digest, source = _digest(files), code.read_bytes()
    _require_name(ast.parse(source), name, code)
    return SamplerPlugin(text, module, name, code, source, f"{prefix}{digest}")


def _file(module: str, folder: Path) -> Path:
    path = PurePosixPath(module)
    if path.is_absolute() or ".." in path.parts:
        rule = "the file of a plug-in sampler must be in the folder of the study file, or below it"
        raise StudyError(rule, value=module, remedy="Move it there, so that it can be kept with the results.")
    code = folder / path
    if not code.is_file():
        rule = "the file of a plug-in sampler must exist in the folder of the study file"
        raise StudyError(rule, value=module, remedy=FORMS)
    return code


def _module(module: str) -> tuple[Path, str]:
    """The file of an importable module, and the name and version of its package before the digest; empty if unknown."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:  # importing the packages above it executes their code
        rule = f"the module of a plug-in sampler must be one that can be imported, but {type(error).__name__}: {error}"
        raise StudyError(rule, value=module, remedy=f"Install its package. {FORMS}") from error
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        rule = "the module of a plug-in sampler must be one that Python can import, with its source"
        raise StudyError(rule, value=module, remedy=f"Install its package. {FORMS}")
    package = module.partition(".")[0]
    for distribution in (package, *metadata.packages_distributions().get(package, ())):
        try:
            return Path(spec.origin), f"{distribution} {metadata.version(distribution)} "
        except metadata.PackageNotFoundError:
            continue
    return Path(spec.origin), ""


def _own_package(module: str, code: Path) -> list[Path]:
    """All modules of a package that is not installed, and so has no version."""
    depth = module.count(".") if code.name != "__init__.py" else module.count(".") + 1
    root = code.parents[depth - 1] if depth else code
    return sorted(root.rglob("*.py")) if root.is_dir() else [code]


def _digest(files: list[Path]) -> str:
    try:
        return digest_files(files, Path(os.path.commonpath([file.parent for file in files])))
    except SyntaxError as error:
        rule = f"a plug-in sampler must be valid Python, but {error.msg} (line {error.lineno})"
        raise StudyError(rule, value=files[0].name, remedy="Put it right.") from error


def _require_name(tree: ast.Module, name: str, code: Path) -> None:
    """Raise `StudyError` if a module neither defines, imports nor assigns this name."""
    names = _names(tree)
    if name not in names and "*" not in names and "__getattr__" not in names:
        rule = f"a plug-in sampler must be a function or a class of {code.name}"
        raise StudyError(rule, value=name, remedy=did_you_mean(name, sorted(names), "Names"))


def _names(tree: ast.Module) -> set[str]:
    """The names that a module has after its import."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names
