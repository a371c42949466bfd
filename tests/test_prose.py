"""Texts of the package and its documents are plain English: the idioms that were removed do not come back."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
FILES = [
    *sorted((REPOSITORY / "harness").rglob("*.py")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "results").rglob("README.md")),
    *sorted((REPOSITORY / "search_spaces").glob("*.yaml")),
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
IDIOMS = {
    "stands": r"\bstand(s|ing)?\b|\bstood\b",
    "by lot": r"\bby lot\b",
    "goes on": r"\b(goes|go|going|went) on\b",
    "in words": r"\bin words\b",
    "so many": r"\bso many\b",
    "to the bit": r"\bto the bit\b",
    "is told": r"\b(is|are|was|were) told\b",
    "nobody": r"\bnobody\b",
    "room, door, crew, hands": r"\b(rooms?|doors?|crews?|hands)\b",
    "says, knows, hears": r"\b(says|said|knows|hears)\b",
    "beside": r"\bbeside\b",
    "whoever": r"\bwhoever\b",
    "anew": r"\banew\b",
}
"""Each with what to write instead in `docs/glossary.md`, or as PyTorch's documentation would."""
KEPT = ("--beside", "says:", '"says"', "`says`", "claim.says", "paper says")
"""An option, a key of claims, and what a paper states."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings and comments of a module, the comments of a study, or the lines of a document; with their lines."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        yield from ((number, line.partition("#")[2]) for number, line in enumerate(source.splitlines(), 1))
        return
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    kinds = (tokenize.STRING, tokenize.COMMENT)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    yield from ((token.start[0], token.string) for token in tokens if token.type in kinds)


def comments_and_docstrings(source: str) -> Iterator[tuple[int, str]]:
    """The comments and the strings that are statements, with their lines; a test compares other strings with output."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    yield from ((token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def violations(path: Path, texts: Iterator[tuple[int, str]]) -> list[str]:
    name = path.relative_to(REPOSITORY)
    return [f"{name}:{line}: {', '.join(idioms(text))}" for line, text in texts if idioms(text)]


def idioms(text: str) -> list[str]:
    for kept in KEPT:
        text = text.replace(kept, "")
    return [name for name, pattern in IDIOMS.items() if re.search(pattern, text, re.IGNORECASE)]


def test_texts_have_none_of_the_idioms() -> None:
    lines = [line for path in FILES for line in violations(path, texts(path))]
    assert len(FILES) > 400 and not lines, "\n".join(lines)


def test_comments_and_docstrings_of_tests_have_none_of_the_idioms() -> None:
    by_file = {path: comments_and_docstrings(path.read_text(encoding="utf-8")) for path in TESTS}
    lines = [line for path, found in by_file.items() for line in violations(path, found)]
    assert len(TESTS) > 200 and not lines, "\n".join(lines)


def test_of_a_test_only_comments_and_docstrings_are_checked() -> None:
    source = '"""One."""\n\n\ndef f() -> None:\n    """Two."""\n    assert "three" in g()  # four\n'
    assert sorted(comments_and_docstrings(source)) == [(1, "One."), (5, "Two."), (6, "# four")]


@pytest.mark.parametrize(
    "text", ["The number by lot.", "It goes on in words", "what a file says", "ROOMS", "stood there"]
)
def test_an_idiom_is_found(text: str) -> None:
    assert idioms(text)


def test_keys_of_study_files_are_no_idioms() -> None:
    assert not idioms('the key "says" of a claim, `says`') and not idioms("understand, otherwise, handsome")
