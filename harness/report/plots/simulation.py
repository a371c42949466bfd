"""Plot of simulated searches: regret against computing, a curve for each policy with its quartiles."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from harness.report.plots.claims import FONT, PALE, SMALL_FONT
from harness.report.plots.style import new_figure, save_figure
from harness.report.simulation import UNITS, grid_epochs, table_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.search.rehearsal import RehearsalResult

WIDTH_INCHES, HEIGHT_INCHES, LINE_CHARACTERS = 8.0, 4.6, 130
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colors of Okabe and Ito, which color-blind people can distinguish."""
LINES = ("-", "--", "-.", ":")


def plot_simulation(path: Path, result: "RehearsalResult") -> None:
    """Write the plot as a PNG file."""
    save_figure(draw_simulation_figure(result), path)


def draw_simulation_figure(result: "RehearsalResult") -> "Figure":
    """Median regret of each policy after each share of the full grid's epochs; shaded: its quartiles."""
    figure = new_figure(WIDTH_INCHES, HEIGHT_INCHES)
    axes = figure.subplots()
    shares = [100 * epochs / grid_epochs(result) for epochs in result.checkpoints]
    for i, outcome in enumerate(result.outcomes):
        color = COLORS[i % len(COLORS)]
        lows, medians, highs = zip(*(outcome.at(point) for point in range(len(shares))), strict=True)
        axes.fill_between(shares, lows, highs, color=color, alpha=0.12, linewidth=0)
        axes.plot(shares, medians, LINES[i % len(LINES)], color=color, linewidth=1.8, label=outcome.name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.set_xlabel("epochs, as a percentage of the full grid's", fontsize=FONT)
    axes.set_ylabel(f"regret in {UNITS[result.rehearsal.metric]} of {result.rehearsal.metric}", fontsize=FONT)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=SMALL_FONT)
    axes.grid(visible=True, alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=FONT, frameon=False)
    figure.suptitle(f"{result.rehearsal.table.study}: {table_text(result)}", fontsize=FONT + 0.5, parse_math=False)
    note = (
        f"Line: median of {result.repetitions} repetitions, with {result.rehearsal.workers} simulated workers; shaded: "
        "quartiles. Regret: the best mean of the table minus that of the recommended network."
    )
    figure.supxlabel(textwrap.fill(note, LINE_CHARACTERS), fontsize=SMALL_FONT - 1, color=PALE)
    return figure
