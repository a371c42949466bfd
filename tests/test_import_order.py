"""The packages are in the order of the table in docs/architecture.md; torch, Ray and Optuna load only where needed."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "harness"
TORCH = ("torch", "torchvision", "timm")
ON_DEMAND = ("ray", "optuna", "optuna_dashboard")
"""Imported inside functions everywhere: the commands that read a study must not wait for them."""
LAZY = (
    "harness.cli.study_run",
    "harness.cli.calibration_run",
    "harness.cli.full_scale",
    "harness.cli.full_scale_dense",
    "harness.cli.network_accuracy",
)
"""What the larger commands import when they run."""
UNORDERED = ("__init__", "__main__")


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    position: int
    torch: str
    """`yes`, `no` or `in functions`."""
    exceptions: Mapping[str, str]
    """The same for some of the package's modules and subpackages."""

    def torch_of(self, module: str) -> str:
        """Where a module of the package may import torch; the longest name of the exceptions decides."""
        inside = module.removeprefix(f"harness.{self.name}").removeprefix(".")
        names = [name for name in self.exceptions if f"{inside}.".startswith(f"{name}.")]
        return self.exceptions[max(names, key=len)] if names else self.torch


def read_table(text: str) -> dict[str, Row]:
    rows = re.findall(r"^\| `([a-z_]+)/?` \|.*\| *([^|]*?) *\|$", text, re.MULTILINE)
    return {name: Row(name, position, *read_torch(torch)) for position, (name, torch) in enumerate(rows)}


def read_torch(text: str) -> tuple[str, dict[str, str]]:
    """`yes; no in `spec`, `cost``: the rule for a package, and for some of its modules."""
    default, *others = (part.strip() for part in text.split(";"))
    exceptions: dict[str, str] = {}
    for part in others:
        value, _, names = part.rpartition(" in ")
        exceptions |= dict.fromkeys(re.findall(r"`([\w.]+)`", names), value)
    return default or "no", exceptions


TABLE = read_table((REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8"))
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts)


def package_of(module: str) -> str:
    """What follows `harness` in a dotted name: `search` for `harness.search.driver`, `__init__` for `harness`
    itself."""
    _, _, rest = module.partition(".")
    return rest.split(".")[0] or "__init__"


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


BY_NAME = {module_name(path): path for path in MODULES}


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every import below a node, as (dotted name, line); of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"line {node.lineno}: imports are absolute"
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def on_import(tree: ast.Module) -> ast.Module:
    """What is executed when a module is imported: without the bodies of functions, and of `if TYPE_CHECKING`."""

    class Prune(ast.NodeTransformer):
        def visit_FunctionDef(self, _: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, _: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            is_for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if is_for_types else self.generic_visit(node)

    pruned = Prune().visit(tree)
    assert isinstance(pruned, ast.Module)
    return pruned


def against_the_order(name: str, tree: ast.AST, table: dict[str, Row]) -> list[str]:
    """The imports of a module from packages after its own."""
    importer = table[package_of(name)]
    wrong = {}
    for imported, line in imports(tree):
        package = package_of(imported)
        if imported.split(".")[0] != "harness" or package in ("__version__", *UNORDERED):
            continue
        if package not in table:
            wrong[package] = f"{name}:{line} imports from `{package}`, which has no row in the table"
        elif table[package].position > importer.position:
            wrong[package] = f"{name}:{line} imports from `{package}`, which comes after `{importer.name}`"
    return list(wrong.values())


def test_modules_import_only_from_their_own_package_and_earlier_ones() -> None:
    ordered = {
        name: ast.parse(path.read_bytes()) for name, path in BY_NAME.items() if package_of(name) not in UNORDERED
    }
    unknown = [name for name in ordered if package_of(name) not in TABLE]
    assert not unknown, f"without a row in the table of docs/architecture.md: {', '.join(unknown)}"
    wrong = [line for name, tree in ordered.items() for line in against_the_order(name, tree, TABLE)]
    assert len(ordered) > 300 and not wrong, "\n".join(wrong)


def torch_imports(name: str, tree: ast.Module) -> Iterator[str]:
    """The imports of torch that the table does not allow."""
    row = TABLE.get(package_of(name))
    allowed = "no" if row is None else row.torch_of(name)
    if allowed == "yes":
        return
    for imported, line in imports(on_import(tree) if allowed == "in functions" else tree):
        if imported.split(".")[0] in TORCH:
            yield f"{name}:{line} imports {imported}"


def test_torch_is_imported_where_the_table_allows_it() -> None:
    wrong = [line for name, path in BY_NAME.items() for line in torch_imports(name, ast.parse(path.read_bytes()))]
    assert not wrong, "\n".join(wrong)


def test_the_commands_import_no_heavy_libraries() -> None:
    wrong = []
    waiting, names = ["harness.cli", *LAZY], set[str]()
    while waiting:
        name = waiting.pop()
        if name in names or name not in BY_NAME:
            continue
        names.add(name)
        for imported, line in imports(on_import(ast.parse(BY_NAME[name].read_text(encoding="utf-8")))):
            waiting += [imported, *parents(imported)]
            if imported.split(".")[0] in (*TORCH, *ON_DEMAND):
                wrong.append(f"{name}:{line} imports {imported}")
    assert not wrong, "\n".join(wrong)
    assert {"harness.search.driver", "harness.storage.store", "harness.analysis.results", "harness.training"} <= names


def parents(name: str) -> list[str]:
    """The packages around a dotted name, which are imported before it."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def test_every_row_of_the_table_is_a_package_or_a_module() -> None:
    missing = [name for name in TABLE if not (PACKAGE / name).is_dir() and not (PACKAGE / f"{name}.py").is_file()]
    assert not missing
    assert len(TABLE) == 16


def test_every_exception_of_the_table_is_a_module() -> None:
    names = [f"harness.{row.name}.{name}" for row in TABLE.values() for name in row.exceptions]
    assert [name for name in names if name not in BY_NAME] == []
    assert names


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from harness.search import Driver", "harness.data.coco:1 imports from `search`, which comes after `data`"),
        ("def f():\n    import harness.cli", "harness.data.coco:2 imports from `cli`, which comes after `data`"),
        ("from harness import storage", "harness.data.coco:1 imports from `storage`, which comes after `data`"),
        ("import harness.nowhere", "harness.data.coco:1 imports from `nowhere`, which has no row in the table"),
    ],
)
def test_an_import_against_the_order_is_named(source: str, complaint: str) -> None:
    assert against_the_order("harness.data.coco", ast.parse(source), TABLE) == [complaint]


def test_imports_that_run_on_demand_are_distinguished_from_those_that_do_not() -> None:
    source = "import ray\nif TYPE_CHECKING:\n import optuna\nclass A:\n import torch\n def f(self):\n  import timm"
    assert [name for name, _ in imports(on_import(ast.parse(source)))] == ["ray", "torch"]


@pytest.mark.parametrize(
    ("text", "module", "allowed"),
    [
        ("yes; no in `spec`, `timm.hook`", "harness.models", "yes"),
        ("yes; no in `spec`, `timm.hook`", "harness.models.spec.network", "no"),
        ("yes; no in `spec`, `timm.hook`", "harness.models.timm.hook", "no"),
        ("yes; no in `spec`, `timm.hook`", "harness.models.specific", "yes"),
        ("in functions; yes in `run_job`", "harness.models.run_job", "yes"),
        ("in functions; yes in `run_job`", "harness.models.inline", "in functions"),
        ("", "harness.models.x", "no"),
    ],
)
def test_exceptions_of_the_table_are_for_their_modules(text: str, module: str, allowed: str) -> None:
    assert Row("models", 0, *read_torch(text)).torch_of(module) == allowed


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("harness.cli", ("torch", "ray", "optuna", "pydantic", "sqlalchemy", "rich", "numpy", "yaml")),
        *((module, ("torch", "ray", "optuna")) for module in LAZY),
    ],
)
def test_the_commands_load_without(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(set({unwanted!r}) & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.split() == []
