"""The bench of the depth-wise convolution as a picture: time against the side of the kernel."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from harness.diagnostics.bench.dwconv_candidates import CHOSEN, CONV2D
from harness.diagnostics.bench.dwconv_results import Row
from harness.report.plots.style import new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = (4.2, 3.2)
Style = tuple[str, str, float]
"""Colour, dashes and width of a line."""
STYLES: dict[str, Style] = {
    "conv2d, default layout": ("black", "--", 1.2),
    "conv2d, channels-last": ("black", "-", 1.2),
    CHOSEN: ("tab:red", "-", 2.4),
}
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:cyan", "tab:olive", "tab:pink")
"""Of the other algorithms, which are solid and thin."""


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Write a PNG: a line of panels per precision and mode, a panel per side of the map, a line per contender."""
    lines = list(dict.fromkeys((row.precision, row.mode) for row in rows))
    sides = list(dict.fromkeys(row.side for row in rows))
    width, height = PANEL_INCHES
    figure = new_figure(width * len(sides), height * len(lines) + 1.2)
    panels = figure.subplots(len(lines), len(sides), squeeze=False)
    for (i, (precision, mode)), (j, side) in product(enumerate(lines), enumerate(sides)):
        some = [row for row in rows if (row.precision, row.mode, row.side) == (precision, mode, side)]
        _panel(panels[i][j], some, f"{precision}, {mode}, map {side}x{side}", styles(rows))
    first = rows[0]
    figure.suptitle(
        f"{first.layers} depth-wise layer{'s' if first.layers > 1 else ''} on ({first.batch}, {first.channels}, R, R), "
        f"{first.device}: medians, quartiles shaded",
        fontsize=10,
    )
    named = [dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True)) for panel in panels.flat]
    handles = {label: handle for each in named for label, handle in each.items()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save(figure, path)


def styles(rows: Sequence[Row]) -> dict[str, Style]:
    """Of every line in any panel."""
    others = [name for name in dict.fromkeys(row.algorithm for row in rows) if name not in (CONV2D, CHOSEN)]
    return STYLES | {name: (COLOURS[i % len(COLOURS)], "-", 0.9) for i, name in enumerate(others)}


def _panel(axes: "Axes", rows: Sequence[Row], title: str, by_name: dict[str, Style]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for name, line in _lines(rows).items():
        colour, dashes, width = by_name[name]
        kernels = [row.kernel for row in line]
        figures = [(row.median_ms or 0.0, row.q1_ms or 0.0, row.q3_ms or 0.0) for row in line]
        medians, firsts, thirds = zip(*figures, strict=True)
        axes.plot(kernels, medians, dashes, color=colour, linewidth=width, marker=".", label=name)
        axes.fill_between(kernels, firsts, thirds, color=colour, alpha=0.15, linewidth=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(sorted({row.kernel for row in rows}))
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("K, side of the kernel", fontsize=8)
    axes.set_ylabel("ms for the stack", fontsize=8)
    axes.grid(visible=True, alpha=0.3)
    axes.tick_params(labelsize=7)


def _lines(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By name, the rows of growing kernels: `conv2d` in each layout, all others in the one that is better there."""
    lines: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if row.median_ms is not None), key=lambda row: (row.kernel, row.median_ms)):
        is_conv2d = row.algorithm == CONV2D
        layout = {"default": "default layout", "channels_last": "channels-last"}[row.layout]
        line = lines.setdefault(f"{CONV2D}, {layout}" if is_conv2d else row.algorithm, [])
        if not line or line[-1].kernel != row.kernel:
            line.append(row)
    return lines
