"""The weights of large kernels as heat maps: a row per stage (RepLKNet, arXiv 2203.06717, figure 6)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.measures.kernel_weights import LargeKernel, Map, rescale_to_one
from harness.report.kernel_weights import size
from harness.report.plots.style import new_figure, save_figure
from harness.storage.load_network import LoadedNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

PANEL_INCHES = 1.9


def plot_kernels(path: Path, network: LoadedNetwork, kernels: Sequence[LargeKernel]) -> None:
    """Write a PNG: the first, middle and last layer of each stage, before and after the small kernel is added."""
    rows = [_chosen([kernel for kernel in kernels if kernel.stage == stage]) for stage in _stages(kernels)]
    panels_of = [[panel for kernel in row for panel in _panels(network, kernel)] for row in rows]
    columns = max(map(len, panels_of))
    figure = new_figure(PANEL_INCHES * max(3, columns), PANEL_INCHES * len(rows) + 0.7)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, panels in zip(grid, panels_of, strict=True):
        for axes in line[len(panels) :]:
            axes.set_axis_off()
        for axes, (title, weights) in zip(line, panels, strict=False):
            picture = _draw(axes, weights, title)
    figure.colorbar(picture, ax=grid, shrink=0.5, aspect=40).ax.tick_params(labelsize=6)
    figure.suptitle(f"{network.name}, {network.about}: |w| summed over channels, maximum 1", fontsize=9)
    save_figure(figure, path)


def _stages(kernels: Sequence[LargeKernel]) -> list[int]:
    return sorted({kernel.stage for kernel in kernels})


def _chosen(kernels: Sequence[LargeKernel]) -> list[LargeKernel]:
    """The first, the middle and the last kernel."""
    return [kernels[i] for i in sorted({0, len(kernels) // 2, len(kernels) - 1})]


def _panels(network: LoadedNetwork, kernel: LargeKernel) -> list[tuple[str, Map]]:
    """Title and map of each panel, in the order of the columns."""
    title = f"stage {kernel.stage}, block {kernel.block}\nK={size(network, kernel)}"
    if kernel.before is None:
        return [(title, kernel.after)]
    return [(f"{title}, before", kernel.before), (f"{title}, after", kernel.after)]


def _draw(axes: "Axes", map: Map, title: str) -> "AxesImage":
    axes.set_title(title, fontsize=6)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(rescale_to_one(map), cmap="magma", vmin=0, vmax=1, interpolation="nearest")
