"""The rooms stand in the order of the table in docs/architecture.md, and heavy libraries come where they are due."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "harness"
TORCH = ("torch", "torchvision", "timm")
ON_DEMAND = ("ray", "optuna", "optuna_dashboard")
"""Imported inside functions everywhere: the verbs that read a study must not wait for them."""
UNORDERED = ("__init__", "__main__")


@dataclass(frozen=True)
class Room:
    """A row of the table."""

    name: str
    position: int
    torch: str


def read_rooms(text: str) -> dict[str, Room]:
    rows = re.findall(r"^\| `([a-z_]+)/?` \|.*\| *([^|]*?) *\|$", text, re.MULTILINE)
    return {name: Room(name, position, torch) for position, (name, torch) in enumerate(rows)}


ROOMS = read_rooms((REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8"))
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts)


def room_of(module: str) -> str:
    """The room of a dotted name: `harness.search.driver` is in `search`; the package itself is in `__init__`."""
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


def against_the_order(name: str, tree: ast.AST, rooms: dict[str, Room]) -> list[str]:
    """The imports of a module from rooms below its own."""
    own = rooms[room_of(name)]
    found = {}
    for imported, line in imports(tree):
        room = room_of(imported)
        if imported.split(".")[0] != "harness" or room in ("__version__", *UNORDERED):
            continue
        if room not in rooms:
            found[room] = f"{name}:{line} imports from `{room}`, which has no row in the table"
        elif rooms[room].position > own.position:
            found[room] = f"{name}:{line} imports from `{room}`, which stands below `{own.name}`"
    return list(found.values())


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_from_rooms_above_its_own_only(path: Path) -> None:
    name = module_name(path)
    if room_of(name) in UNORDERED:
        return
    assert room_of(name) in ROOMS, f"{name} has no row in the table of docs/architecture.md"
    wrong = against_the_order(name, ast.parse(path.read_text(encoding="utf-8")), ROOMS)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_torch_is_imported_where_the_table_allows_it(path: Path) -> None:
    name = module_name(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    room = ROOMS.get(room_of(name))
    if room is None or room.torch == "yes":
        return
    looked_at = on_import(tree) if room.torch else tree
    wrong = [f"{name}:{line} imports {found}" for found, line in imports(looked_at) if found.split(".")[0] in TORCH]
    assert not wrong, "\n".join(wrong)


def test_nothing_that_the_door_imports_imports_heavy_libraries() -> None:
    wrong = []
    waiting, seen = ["harness.cli", "harness.commands"], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in BY_NAME:
            continue
        seen.add(name)
        for imported, line in imports(on_import(ast.parse(BY_NAME[name].read_text(encoding="utf-8")))):
            waiting += [imported, imported.rpartition(".")[0]]
            if imported.split(".")[0] in (*TORCH, *ON_DEMAND):
                wrong.append(f"{name}:{line} imports {imported}")
    assert not wrong, "\n".join(wrong)
    assert {"harness.search.driver", "harness.store.store", "harness.report.answer"} <= seen


def test_every_row_of_the_table_is_a_room() -> None:
    missing = [name for name in ROOMS if not (PACKAGE / name).is_dir() and not (PACKAGE / f"{name}.py").is_file()]
    assert not missing
    assert len(ROOMS) > 20


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from harness.search import Driver", "harness.spec:1 imports from `search`, which stands below `spec`"),
        ("def f():\n    import harness.cli", "harness.spec:2 imports from `cli`, which stands below `spec`"),
        ("from harness import store", "harness.spec:1 imports from `store`, which stands below `spec`"),
        ("import harness.nowhere", "harness.spec:1 imports from `nowhere`, which has no row in the table"),
    ],
)
def test_an_import_against_the_order_is_named(source: str, complaint: str) -> None:
    assert against_the_order("harness.spec", ast.parse(source), ROOMS) == [complaint]


def test_imports_that_run_on_demand_are_told_from_those_that_do_not() -> None:
    source = "import ray\nif TYPE_CHECKING:\n import optuna\nclass A:\n import torch\n def f(self):\n  import timm"
    assert [name for name, _ in imports(on_import(ast.parse(source)))] == ["ray", "torch"]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("harness.cli", ("torch", "ray", "optuna", "pydantic", "sqlalchemy", "rich", "numpy", "yaml")),
        ("harness.commands", ("torch", "ray", "optuna")),
    ],
)
def test_the_door_opens_without(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(set({unwanted!r}) & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == []
