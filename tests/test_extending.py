"""What docs/extending.md shows works as shown, and changes the files that its table names and no others."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from worked_examples import Block, apply_changes, apply_difference, play, read_sections

REPOSITORY = Path(__file__).parent.parent
PAGE = REPOSITORY / "docs" / "extending.md"
SECTIONS = read_sections(PAGE.read_text(encoding="utf-8"))
ROW = re.compile(r"^\| (\[?[a-z][^|]*?) \| ([^|]*?) \| ([^|]*?) \|$", re.MULTILINE)
ROWS = {
    re.sub(r"[\[\]]|\(#.*?\)", "", what): (new, edited) for what, new, edited in ROW.findall(PAGE.read_text("utf-8"))
}
"""New files and edited ones, by what is added."""
WORKED = {re.search(r"\(#(.*?)\)", what)[1]: what for what, *_ in ROW.findall(PAGE.read_text("utf-8")) if "(#" in what}  # type: ignore[index]
"""The linked rows, by the anchor of their section."""
WALKING: dict[str, list[str]] = {
    "A kind of large kernel": [
        "tests/models/test_large_kernels.py::test_the_tables_by_kind_agree",
        "tests/models/test_large_kernels.py::test_a_stride_of_two_is_every_second_pixel[separable]",
        "tests/models/test_large_kernels.py::test_merging_leaves_no_branch_and_may_be_repeated[separable]",
        "tests/models/test_large_kernels.py::test_every_parameter_learns[separable]",
        "tests/models/test_blocks.py::test_every_block_has_the_same_members_in_the_same_order[separable.SeparableConv]",
        "tests/models/test_blocks.py::test_cost_takes_arguments_of_the_constructor[separable.SeparableConv]",
        "tests/measures/test_kernel_weights.py::test_maps_are_what_an_impulse_becomes[separable]",
    ],
    "A measure": [
        "tests/measures/test_measures.py::test_the_recipe_accepts_the_names_of_the_table",
        "tests/measures/test_measures.py::test_every_measure_yields_finite_figures_and_leaves_the_network_alone"
        "[calibration]",
        "tests/config/test_metrics.py::test_metrics_of_the_machine_are_identified_by_their_names[calibration]",
        "tests/report/test_measure_columns.py::test_every_measure_has_columns",
        "tests/report/test_measure_columns.py::test_columns_are_figures_that_runs_have",
    ],
    "A data set": [
        "tests/data/test_data_cache.py::test_a_training_at_full_scale_takes_every_data_set",
        "tests/data/test_data_cache.py::test_the_size_of_a_data_set_is_in_its_row_unless_its_folder_decides",
        "tests/data/test_data_cache.py::test_an_unknown_data_set_is_refused_with_the_known_ones",
    ],
    "A segmentation head": [
        "tests/models/test_segmentation_heads.py::test_recipes_take_every_head",
        "tests/models/test_segmentation_heads.py::test_what_was_trained_unmerged_is_merged_last_without_a_change"
        "[segformer]",
    ],
    "A sampler": [
        "tests/search/test_samplers.py::test_the_tables_and_the_study_file_have_the_same_samplers",
        "tests/search/test_samplers.py::test_axes_of_one_value_do_no_harm[halton]",
        "tests/config/test_search_methods.py::test_every_sampler_has_a_dry_run[halton]",
    ],
    "A command": [
        "tests/cli/test_commands.py::test_every_command_is_a_module_with_a_parser_and_an_action",
        "tests/test_import_order.py::test_the_commands_import_no_heavy_libraries",
    ],
    "An export format": [
        "tests/export/test_export.py::test_every_format_has_a_file_of_its_own",
        "tests/test_import_order.py::test_the_commands_import_no_heavy_libraries",
    ],
}
"""The tests that a new row is part of, by section; the order of imports is tested of every new file."""


def anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def copied(folder: Path) -> Path:
    """A copy of the repository, as far as the tests need it."""
    for name in ("harness", "tests", "docs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def paths_in(cell: str) -> Iterator[str]:
    """The paths of a cell, without the names in them."""
    yield from re.findall(r"`([\w./<>]+/[\w./<>]+\.\w+)`", cell)


def names_in(cell: str) -> Iterator[tuple[str, str]]:
    """Names with the file that should contain them: `A` and `B` in `path`."""
    for part in cell.split(";"):
        for path in paths_in(part):
            yield from ((name, path) for name in re.findall(r"`(\w+)`", part))


@pytest.fixture(scope="module")
def process_environment() -> dict[str, str]:
    """This process's environment without what pytest sets for its workers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COLUMNS"))}
    return kept | {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("section", SECTIONS)
def test_an_example_changes_the_files_that_its_row_names(
    section: str, tmp_path: Path, process_environment: dict[str, str]
) -> None:
    repository = copied(tmp_path / "copy")
    before = contents(repository)
    apply_changes(SECTIONS[section], repository)
    changed = {name for name, content in contents(repository).items() if before.get(name) != content}
    assert_table_names(changed, *ROWS[re.sub(r"[\[\]]|\(#.*?\)", "", WORKED[anchor(section)])])
    for checked in (("check",), ("format", "--check")):
        ruff = [sys.executable, "-m", "ruff", *checked, "--quiet", "--no-cache", *sorted(changed)]
        assert_succeeds(ruff, repository, process_environment)


@pytest.mark.long
def test_the_examples_work_as_shown(tmp_path: Path, process_environment: dict[str, str]) -> None:
    """With all of their changes in one copy, in one process: none is in the way of another."""
    repository, work = copied(tmp_path / "copy"), tmp_path / "work"
    for section in SECTIONS.values():
        apply_changes(section, repository)
    order = [f"tests/test_import_order.py::{name}" for name in ORDER]
    work.mkdir()
    environment = process_environment | {"PYTHONPATH": str(repository), "TMPDIR": str(tmp_path)}
    program = [sys.executable, str(repository / "tests/helpers/worked_examples.py")]
    tests = [test for section in SECTIONS for test in WALKING[section]]
    assert_succeeds([*program, str(PAGE), str(work), *dict.fromkeys(tests), *order], repository, environment)


ORDER = (
    "test_modules_import_only_from_their_own_package_and_earlier_ones",
    "test_torch_is_imported_where_the_table_allows_it",
)


def assert_table_names(changed: set[str], new: str, edited: str) -> None:
    """These files are the ones that a row names, and no others."""
    patterns = [f"harness/{path}" for cell in (new, edited) for path in paths_in(cell)]
    assert [name for name in changed if not any(fits(pattern, name) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fits(pattern, name) for name in changed)] == []


def fits(pattern: str, name: str) -> bool:
    """Whether a path is that of the table, in which `<name>` is any name."""
    return re.fullmatch(re.sub(r"<\w+>", r"\\w+", re.escape(pattern)), name) is not None


def assert_succeeds(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


def test_every_linked_row_has_a_section_that_is_tested() -> None:
    assert {anchor(section) for section in SECTIONS} == WORKED.keys()
    assert SECTIONS.keys() == WALKING.keys()


@pytest.mark.parametrize("what", ROWS)
def test_the_table_names_what_is_there(what: str) -> None:
    new, edited = ROWS[what]
    folders = [path.rpartition("/")[0] for path in paths_in(new)]
    assert folders or new == "none"
    assert [folder for folder in folders if not _is_there(folder)] == []
    for path in paths_in(edited):
        assert (REPOSITORY / "harness" / path).is_file(), path
    for name, path in names_in(edited):
        assert re.search(rf"\b{name}\b", (REPOSITORY / "harness" / path).read_text("utf-8")), f"{name} in {path}"


def _is_there(folder: str) -> bool:
    return (REPOSITORY / "harness" / folder).is_dir() or (REPOSITORY / folder).is_dir()


def test_the_table_is_read() -> None:
    assert len(ROWS) > 15 and len(WORKED) == 7
    names = {name for _, edited in ROWS.values() for name, _ in names_in(edited)}
    assert {"KERNEL_KINDS", "MEASURES", "DATASETS", "COMMANDS", "FORMATS", "EXECUTORS", "CHECKS"} <= names


@pytest.mark.parametrize("difference", [" x = 1\n+y = 2\n", " x = 3\n+y = 2\n"])
def test_a_difference_fits_one_place_or_none(difference: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nz = 1\nx = 1\n")
    with pytest.raises(AssertionError, match=r"a\.py has [02] places"):
        apply_difference(f"--- a.py\n+++ a.py\n@@\n{difference}", tmp_path)
    apply_difference("--- a.py\n+++ a.py\n@@\n-z = 1\n+z = 2\n x = 1\n", tmp_path)
    assert (tmp_path / "a.py").read_text() == "x = 1\nz = 2\nx = 1\n"


def test_an_output_that_differs_is_a_fault() -> None:
    blocks = [Block("", "pycon", ">>> 1 + 1\n3\n"), Block("", "console", "$ harness presets --resolution 0\nfine\n")]
    sums, command = play(blocks)
    assert "Got:\n    2" in sums and "`--resolution` must be from 1" in command
    assert list(play([Block("", "pycon", ">>> 1 + 1\n2\n")])) == []
