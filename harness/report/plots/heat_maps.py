"""Heat maps of effective receptive fields, one in detail or several side by side, and of the weights of large kernels.

The latter have a row per stage (RepLKNet, arXiv 2203.06717, figure 6).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.formatting import join_words, plural
from harness.measures.erf_comparison import FieldResult
from harness.measures.kernel_weights import LargeKernel, rescale_to_one
from harness.measures.receptive_field import FIELD_DEFINITIONS, SHARES, Map, area_shares, radii
from harness.report.kernel_weights import size
from harness.report.plots.style import new_figure, save_figure
from harness.report.receptive_field import kernel_sizes
from harness.storage.load_network import LoadedNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


PANEL_INCHES, SMALL_INCHES, KERNEL_INCHES = 3.6, 2.0, 1.9
MAX_COLUMNS = 5
LINE_STYLES = {20: "-", 30: "--", 50: "-.", 99: ":"}
"""Line styles of the squares, by t."""


def plot_field(path: Path, result: FieldResult) -> None:
    """Write a PNG: a row of panels per definition, with the map, its logarithm, and the squares of r(t)."""
    figure = new_figure(2 * PANEL_INCHES + 0.6, len(FIELD_DEFINITIONS) * PANEL_INCHES + 1.1)
    panels = figure.subplots(len(FIELD_DEFINITIONS), 2, squeeze=False)
    for line, (name, definition) in zip(panels, FIELD_DEFINITIONS.items(), strict=True):
        field = result.fields[name]
        for axes, map, scale in zip(line, (field.raw, field.log), ("raw", "log10(map + 1)"), strict=True):
            picture = _panel(axes, map, f"{definition.title}: {scale}", font=9)
            shares = ", ".join(f"{100 * share:.1f} (t={t})" for t, share in area_shares(map).items())
            axes.set_xlabel(f"r in %: {shares}" if map.any() else "zero everywhere: no field", fontsize=7)
    figure.colorbar(picture, ax=panels, shrink=0.5, aspect=40).ax.tick_params(labelsize=7)
    images = plural(result.fields["paper"].images, "image")
    figure.suptitle(
        f"{result.subject.name}, {result.subject.about}\n{images} at {result.side} px, {result.about}", fontsize=10
    )
    save_figure(figure, path)


def plot_fields(path: Path, results: Sequence[FieldResult]) -> None:
    """Write a PNG: the logarithm of each network's map by the paper's equations, in the given order, five per row."""
    columns = min(MAX_COLUMNS, len(results))
    lines = -(-len(results) // columns)
    figure = new_figure(SMALL_INCHES * columns + 0.5, (SMALL_INCHES + 0.45) * lines + 0.6)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(results) :]:
        axes.set_axis_off()
    for axes, result in zip(panels.flat, results, strict=False):
        field = result.fields["paper"]
        picture = _panel(axes, field.log, f"{result.subject.name}\nK={kernel_sizes(result)}", font=6.5)
        shares = ", ".join(f"{100 * share:.1f}" for share in area_shares(field.log).values())
        axes.set_xlabel(
            "zero everywhere: no field" if field.has_no_gradient else f"{shares} % at {result.side} px", fontsize=6
        )
    figure.colorbar(picture, ax=panels, shrink=0.5, aspect=40).ax.tick_params(labelsize=6)
    figure.suptitle(
        "Effective receptive fields by the paper's equations, log10(map + 1); below, the areas of the squares that\n"
        f"contain more than {join_words(map(str, SHARES))} % of it, in percent of the image's area",
        fontsize=8,
    )
    save_figure(figure, path)


def _panel(axes: "Axes", map: Map, title: str, *, font: float) -> "AxesImage":
    """Draw the map with a maximum of 1, and the squares that contain more than t of it."""
    from matplotlib.patches import Rectangle

    height, width = map.shape
    for t, reach in radii(map).items():
        corner, side = (width // 2 - reach - 0.5, height // 2 - reach - 0.5), 2 * reach + 1
        square = Rectangle(
            corner, side, side, fill=False, edgecolor="white", linewidth=font / 10, linestyle=LINE_STYLES[t]
        )
        axes.add_patch(square)
    picture = _draw(axes, map / (map.max() or 1.0), title, font=font)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    return picture


def _draw(axes: "Axes", map: Map, title: str, *, font: float) -> "AxesImage":
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=font)
    return axes.imshow(map, cmap="magma", vmin=0, vmax=1, interpolation="nearest")


def plot_kernels(path: Path, network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> None:
    """Write a PNG: the first, middle and last layer of each stage, before and after the small kernel is added."""
    stages = sorted({kernel.stage for kernel in kernels})
    rows = [_chosen([kernel for kernel in kernels if kernel.stage == stage]) for stage in stages]
    panels_of = [[panel for kernel in row for panel in _panels(network, kernel)] for row in rows]
    columns = max(map(len, panels_of))
    figure = new_figure(KERNEL_INCHES * max(3, columns), KERNEL_INCHES * len(rows) + 0.7)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, panels in zip(grid, panels_of, strict=True):
        for axes in line[len(panels) :]:
            axes.set_axis_off()
        for axes, (title, weights) in zip(line, panels, strict=False):
            picture = _draw(axes, rescale_to_one(weights), title, font=6)
    figure.colorbar(picture, ax=grid, shrink=0.5, aspect=40).ax.tick_params(labelsize=6)
    figure.suptitle(f"{network.name}, {network.about}: |w| summed over channels, maximum 1", fontsize=9)
    save_figure(figure, path)


def _chosen(kernels: Sequence[LargeKernel]) -> list[LargeKernel]:
    """The first, the middle and the last kernel."""
    return [kernels[i] for i in sorted({0, len(kernels) // 2, len(kernels) - 1})]


def _panels(network: LoadedNetwork, kernel: LargeKernel) -> list[tuple[str, Map]]:
    """Title and map of each panel, in the order of the columns."""
    title = f"stage {kernel.stage}, block {kernel.block}\nK={size(network, kernel)}"
    if kernel.before is None:
        return [(title, kernel.after)]
    return [(f"{title}, before", kernel.before), (f"{title}, after", kernel.after)]
