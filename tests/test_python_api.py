"""The names of `import harness`: one table, loaded at their first use, and described in docs/python_api.md."""

import ast
import contextlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness

REPOSITORY = Path(__file__).parent.parent
DOCUMENT = (REPOSITORY / "docs" / "python_api.md").read_text(encoding="utf-8")
EXAMPLE, *SIGNATURES = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


def imported_for_types() -> dict[str, str]:
    """What `if TYPE_CHECKING` imports in `harness/__init__.py`: where each name is defined."""
    tree = ast.parse(Path(harness.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_table_is_what_type_checkers_see() -> None:
    assert imported_for_types() == harness._HOMES
    assert sorted(harness._HOMES) == sorted(harness.__all__) and len(harness.__all__) == 21


def test_no_name_is_that_of_a_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(harness.__path__)}
    assert {"ops", "network", "presets"} <= modules
    assert not modules & set(harness.__all__)


def test_the_import_loads_the_standard_library_alone() -> None:
    code = (
        "import sys; before = set(sys.modules); import harness; assert 'run_study' in dir(harness); "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert printed.stdout.split() == ["harness"]


@pytest.mark.parametrize("name", ["network_cost", "load_study", "run_study", "load_results", "PRESETS"])
def test_what_needs_no_torch_loads_none(name: str) -> None:
    code = f"import sys, harness; harness.{name}; print(*{{'torch', 'ray', 'optuna'}} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert printed.stdout.split() == []


@pytest.mark.parametrize("name", harness.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    assert getattr(harness, name) is vars(harness)[name]
    assert f"harness.{name}" in DOCUMENT


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'harness' has no attribute 'run_studies'"):
        harness.run_studies  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("line", [line for block in SIGNATURES for line in block.splitlines()])
def test_signatures_are_as_documented(line: str) -> None:
    call = ast.parse(f"def {line.removeprefix('harness.')}: pass").body[0]
    assert isinstance(call, ast.FunctionDef)
    documented = call.args
    parameters = inspect.signature(getattr(harness, call.name)).parameters.values()
    by_place = [parameter for parameter in parameters if parameter.kind != inspect.Parameter.KEYWORD_ONLY]
    by_name = [parameter for parameter in parameters if parameter.kind == inspect.Parameter.KEYWORD_ONLY]
    assert [parameter.name for parameter in by_place] == [argument.arg for argument in documented.args]
    assert [parameter.name for parameter in by_name] == [argument.arg for argument in documented.kwonlyargs]
    stated = [ast.literal_eval(value) for value in (*documented.defaults, *documented.kw_defaults) if value is not None]
    defaults = [
        parameter.default for parameter in (*by_place, *by_name) if parameter.default is not inspect.Parameter.empty
    ]
    assert [str(value) if isinstance(value, Path) else value for value in defaults] == stated


def test_every_function_has_a_documented_signature() -> None:
    functions = {name for name in harness.__all__ if inspect.isfunction(getattr(harness, name))}
    assert functions <= set(re.findall(r"^harness\.(\w+)\(", "\n".join(SIGNATURES), re.MULTILINE))


def test_the_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(tmp_path):
        exec(compile(EXAMPLE, "python_api.md", "exec"), {})
    *rows, params = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 and all(row.startswith("{'K': [") for row in rows) and params.isdigit()
    assert (tmp_path / "results" / "kernels" / "summary.json").is_file()
    assert (tmp_path / "exports" / "kernels" / "README.md").is_file()
