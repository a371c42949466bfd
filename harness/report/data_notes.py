"""Notes on the data of a study: number of images, images missing from the data set, and changes of the data."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from harness.analysis.formatting import printable
from harness.report.console import indented


def data_view(lines: Sequence[str]) -> list[RenderableType]:
    """The lines below a heading; empty without lines."""
    return [Text("Data", style="bold"), *(indented(printable(line)) for line in lines), Text()] if lines else []
