"""Tables of results as values, before a view lays them out for a terminal; and as lines of Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class ResultTable(NamedTuple):
    """A table with a title: headings and rows of text; the first column is text, the others are numbers or notes."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def markdown_rows(headings: Sequence[str], rows: Iterable[Sequence[str]], *, rule: str = "---:") -> Iterator[str]:
    """The lines of a Markdown table; `rule` is that of all columns but the first, which is text."""
    for cells in (headings, ("---", *(rule for _ in headings[1:])), *rows):
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
