"""What the results of a study are of: how many images, what is missing from the data set, and other data than now."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from harness.analysis.formatting import printable
from harness.report.console import indented


def data_view(lines: Sequence[str]) -> list[RenderableType]:
    """The lines below a heading; nothing for none."""
    return [Text("Data", style="bold"), *(indented(printable(line)) for line in lines), Text()] if lines else []
