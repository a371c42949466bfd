"""Effective receptive fields as heat maps."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.looking.fields import Seen
from harness.looking.pictures import new_figure, save
from harness.measures.receptive_field import DEFINITIONS, Map, area_shares, reaches
from harness.report.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

PANEL_INCHES = 3.6
LINES = {20: "-", 30: "--", 50: "-.", 99: ":"}
"""Of the squares, by t."""


def plot_field(path: Path, seen: Seen) -> None:
    """Write a PNG: a line of panels per definition, the map as it is and its logarithm, squares of r(t) around it."""
    figure = new_figure(2 * PANEL_INCHES + 0.6, len(DEFINITIONS) * PANEL_INCHES + 1.1)
    panels = figure.subplots(len(DEFINITIONS), 2, squeeze=False)
    for line, (name, definition) in zip(panels, DEFINITIONS.items(), strict=True):
        field = seen.fields[name]
        _panel(line[0], field.raw, f"{definition.title}: raw")
        picture = _panel(line[1], field.log, f"{definition.title}: log10(map + 1)")
    figure.colorbar(picture, ax=panels, shrink=0.5, aspect=40).ax.tick_params(labelsize=7)
    images = counted(seen.fields["paper"].images, "image")
    figure.suptitle(f"{seen.subject.name}, {seen.subject.about}\n{images} at {seen.side} px, {seen.about}", fontsize=10)
    save(figure, path)


def _panel(axes: "Axes", map: Map, title: str) -> "AxesImage":
    """The map with a maximum of 1, the squares that hold more than t of it, and what share of the area these are."""
    from matplotlib.patches import Rectangle

    height, width = map.shape
    for t, reach in reaches(map).items():
        corner, side = (width // 2 - reach - 0.5, height // 2 - reach - 0.5), 2 * reach + 1
        square = Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=0.9, linestyle=LINES[t])
        axes.add_patch(square)
    shares = ", ".join(f"{100 * share:.1f} (t={t})" for t, share in area_shares(map).items())
    axes.set_xlabel(f"r in %: {shares}" if map.any() else "zero everywhere: no field", fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=9)
    picture = axes.imshow(map / (map.max() or 1.0), cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    return picture
