"""The benches of the depth-wise convolution and of whole networks as tables, and a plot of time against kernel size.

The columns of a row of the bench of networks:

network                    a preset, a network file, or a network of timm
kernels                    `harness`: our operator; `conv2d`: the same network with `nn.Conv2d`; `timm`: theirs
layout                     of images and weights: `default` or `channels_last`
device, precision          device and numerical precision; half precision by autocast
resolution, batch          side of the images, and batch size
mode                       `inference` (merged, nothing recorded) or `training` (forward, loss, backward, SGD step)
n                          samples; 0 if it ran out of memory; the rates are then empty
images_per_s               batch over the median time
slow_images_per_s,         the same at the third and the first quartile of the time
fast_images_per_s
gain                       images_per_s over that of the same network with `conv2d` in its faster layout
depthwise_share            share of the time in depth-wise convolutions larger than 5x5; for ours, in the
                               faster layout
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING

from harness.analysis.formatting import DASH, format_milliseconds
from harness.diagnostics.bench.base import CHOSEN, CONV2D, BenchResult, grouped
from harness.diagnostics.bench.dwconv_results import (
    LARGE,
    PAPER_GAIN,
    PAPER_GROWTH,
    DwconvResult,
    best_ms,
    gains,
    growth,
    large_kernel_gains,
    memory,
    targets,
)
from harness.report.plots.style import new_figure, save_figure
from harness.report.tables import ResultTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DWCONV_NOTE = (
    "Milliseconds for the whole stack: the median of n samples taken in turns, ± half the distance of the quartiles. "
    "`conv2d` is nn.Conv2d in both layouts; the others are shown in their faster layout. `harness` is what our blocks "
    "call, `tuned` the same with autotune on. The gain is that of `harness` over the faster nn.Conv2d. `of product` is "
    "MACs in bounds per second against a matrix product, `of copy` the minimum traffic against a copy, both on the "
    "same device in the same run: the larger of the two is what bounds `harness`. Maps that stay in a cache can exceed "
    "100 % of a copy."
)
PANEL_INCHES = (4.2, 3.2)
Style = tuple[str, str, float]
"""Color, dashes and width of a line."""
STYLES: dict[str, Style] = {
    "conv2d, default layout": ("black", "--", 1.2),
    "conv2d, channels-last": ("black", "-", 1.2),
    CHOSEN: ("tab:red", "-", 2.4),
}
COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:cyan", "tab:olive", "tab:pink")
"""Colors of the other algorithms, whose lines are solid and thin."""
NETWORK_NOTE = (
    "Images per second at the median time of n passes taken in turns, each network in its faster layout; ± is half the "
    "distance of the quartiles. `harness` is our operator, `conv2d` the same network with nn.Conv2d. The gain is over "
    "`conv2d`. `depth-wise` is the share of the time in depth-wise kernels larger than 5x5; the paper has 49.5 % with "
    "PyTorch's operator and 12.3 % with its own, in inference."
)
OURS = "replknet_31b"
SWIN = "swin_base"
PAPER_OVER_SWIN = {224: 295.5 / 226.2, 384: 97.0 / 67.9}
"""RepLKNet-31B over Swin-B in inference, by resolution (arXiv 2203.06717, table 6, RTX 2080 Ti)."""
GAIN = 2.0
"""The target on a GPU for RepLKNet-31B over itself with `nn.Conv2d`; the other is the paper's over Swin-B at 384."""


def dwconv_tables(results: Sequence[DwconvResult], device: str) -> Iterator[ResultTable]:
    """All tables in the order in which they are shown; `device` is `cpu` or `cuda`."""
    parts = grouped(results, "block", "precision", "mode")
    for name, part in parts.items():
        title = ", ".join(name)
        yield _times(title, part)
        yield _ours(f"{title}: {CHOSEN}", part)
    yield _means(parts)
    yield _compared_with_paper({name[1:]: part for name, part in parts.items() if name[0] == "table 1"})
    yield _memory(results)
    held = [_target(target) for target in targets(results, device)]
    yield ResultTable("Targets", ("ratio", "value", "target", ""), held)


def _times(title: str, results: Sequence[DwconvResult]) -> ResultTable:
    names = [name for name in grouped(results, "algorithm") if name not in (CONV2D, CHOSEN)]
    lines = []
    for shape, some in grouped(results, "shape").items():
        by_algorithm = grouped(some, "algorithm")
        conv2d = {result.layout: result.median_ms for result in by_algorithm[CONV2D]}
        best = [best_ms(by_algorithm.get(name, [])) for name in (*names, CHOSEN)]
        lines.append((str(shape), *map(format_milliseconds, (conv2d["default"], conv2d["channels_last"], *best))))
    return ResultTable(title, ("shape", "conv2d", "channels-last", *names, CHOSEN), lines)


def _ours(title: str, results: Sequence[DwconvResult]) -> ResultTable:
    """The candidate that our blocks use, in its faster layout."""
    all_gains, lines = gains(results), []
    for shape, some in grouped(results, "shape").items():
        ours = [result for result in some if result.algorithm == CHOSEN]
        lines.append((str(shape), *_details(ours, all_gains.get(shape))))
    return ResultTable(title, ("shape", "ms", "±", "n", "gain", "in bounds", "of product", "of copy"), lines)


def _details(results: Sequence[DwconvResult], gain: float | None) -> tuple[str, ...]:
    result = min(results, key=lambda result: result.median_ms or float("inf"))
    in_bounds = format_percent(result.macs_in_bounds / result.macs)
    if result.median_ms is None or result.q1_ms is None or result.q3_ms is None:
        return ("no memory", DASH, "0", DASH, in_bounds, DASH, DASH)
    spread = format_percent((result.q3_ms - result.q1_ms) / 2 / result.median_ms)
    shares = format_percent(result.share_of_product), format_percent(result.share_of_copy)
    return (format_milliseconds(result.median_ms), spread, str(result.n), format_ratio(gain), in_bounds, *shares)


def _means(parts: dict[tuple[str, str, str], list[DwconvResult]]) -> ResultTable:
    headings = ("", "shapes", "default", "channels-last", "better layouts", "least", f"least, K<{LARGE}")
    lines = []
    for name, part in parts.items():
        in_each = [large_kernel_gains(gains(part, layout)) for layout in ("default", "channels_last", None)]
        small = [gain for shape, gain in gains(part).items() if shape.kernel < LARGE]
        means = [format_ratio(geometric_mean(ratios)) if ratios else DASH for ratios in in_each]
        leasts = [format_ratio(min(ratios)) if ratios else DASH for ratios in (in_each[-1], small)]
        lines.append((", ".join(name), str(len(in_each[-1])), *means, *leasts))
    return ResultTable(f"Gain at K>={LARGE}: geometric means, and the least in the better layouts", headings, lines)


def _compared_with_paper(parts: dict[tuple[str, str], list[DwconvResult]]) -> ResultTable:
    headings = ("", CHOSEN, "paper's", CONV2D, "paper's PyTorch", "gain at K=31", "paper's gain")
    lines = []
    for (precision, mode), part in parts.items():
        for side, some in grouped(part, "side").items():
            at_31 = gains([result for result in some if result.kernel == 31])
            papers = (*PAPER_GROWTH.get(side, (None, None)), PAPER_GAIN.get(side))
            theirs, pytorch, gain = papers if mode == "forward" else (None, None, None)
            ratios = (growth(some, CHOSEN), theirs, growth(some, CONV2D), pytorch, *(at_31.values() or (None,)), gain)
            lines.append((f"R={side}, {precision}, {mode}", *map(format_ratio, ratios)))
    return ResultTable("Growth of the time from K=3 to K=31, and the paper's in Table 1", headings, lines)


def _memory(results: Sequence[DwconvResult]) -> ResultTable:
    most = memory(results)
    names, modes = (tuple(dict.fromkeys(key[i] for key in most)) for i in (0, 1))
    lines = [(name, *(format_ratio(most.get((name, mode))) for mode in modes)) for name in names]
    return ResultTable(
        "Largest extra memory of a layer, over its input, its output and their gradients", ("", *modes), lines
    )


def _target(result: BenchResult) -> tuple[str, ...]:
    aim = f"{result.sign} {format_ratio(result.target)}"
    return (result.name, format_ratio(result.median), aim, "met" if result.is_met else "missed")


def format_ratio(ratio: float | None) -> str:
    """A ratio as text, such as 0.31x, 6.95x, 20.4x."""
    return DASH if ratio is None else f"{format_milliseconds(ratio)}x"


def format_percent(share: float | None) -> str:
    """A share in percent as text, such as 12.3 %."""
    return DASH if share is None else f"{100 * share:.1f} %"


def plot(path: Path, results: Sequence[DwconvResult]) -> None:
    """Write a PNG: a row of panels per precision and mode, a panel per side of the map, a line per candidate."""
    lines, sides = grouped(results, "precision", "mode"), grouped(results, "side")
    width, height = PANEL_INCHES
    figure = new_figure(width * len(sides), height * len(lines) + 1.2)
    panels = figure.subplots(len(lines), len(sides), squeeze=False)
    for (i, (precision, mode)), (j, side) in product(enumerate(lines), enumerate(sides)):
        some = [result for result in lines[precision, mode] if result.side == side]
        _panel(panels[i][j], some, f"{precision}, {mode}, map {side}x{side}", styles(results))
    first = results[0]
    figure.suptitle(
        f"{first.layers} depth-wise layer{'s' if first.layers > 1 else ''} on ({first.batch}, {first.channels}, R, R), "
        f"{first.device}: medians, quartiles shaded",
        fontsize=10,
    )
    named = [dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True)) for panel in panels.flat]
    handles = {label: handle for by_label in named for label, handle in by_label.items()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save_figure(figure, path)


def styles(results: Sequence[DwconvResult]) -> dict[str, Style]:
    """The style of each line, by its label."""
    names = [name for name in grouped(results, "algorithm") if name not in (CONV2D, CHOSEN)]
    return STYLES | {name: (COLORS[i % len(COLORS)], "-", 0.9) for i, name in enumerate(names)}


def _panel(axes: "Axes", results: Sequence[DwconvResult], title: str, by_name: dict[str, Style]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for name, line in _lines(results).items():
        color, dashes, width = by_name[name]
        kernels = [result.kernel for result in line]
        quartiles = [(result.median_ms or 0.0, result.q1_ms or 0.0, result.q3_ms or 0.0) for result in line]
        medians, firsts, thirds = zip(*quartiles, strict=True)
        axes.plot(kernels, medians, dashes, color=color, linewidth=width, marker=".", label=name)
        axes.fill_between(kernels, firsts, thirds, color=color, alpha=0.15, linewidth=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(sorted({result.kernel for result in results}))
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("K, side of the kernel", fontsize=8)
    axes.set_ylabel("ms for the stack", fontsize=8)
    axes.grid(visible=True, alpha=0.3)
    axes.tick_params(labelsize=7)


def _lines(results: Sequence[DwconvResult]) -> dict[str, list[DwconvResult]]:
    """By label, the rows sorted by kernel size: `conv2d` in each layout, all others in the faster layout."""
    lines: dict[str, list[DwconvResult]] = {}
    measured = (result for result in results if result.median_ms is not None)
    for result in sorted(measured, key=lambda result: (result.kernel, result.median_ms)):
        is_conv2d = result.algorithm == CONV2D
        layout = {"default": "default layout", "channels_last": "channels-last"}[result.layout]
        line = lines.setdefault(f"{CONV2D}, {layout}" if is_conv2d else result.algorithm, [])
        if not line or line[-1].kernel != result.kernel:
            line.append(result)
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkResult:
    """One network with one operator and layout; see the module's docstring."""

    network: str
    kernels: str
    layout: str
    device: str
    precision: str
    resolution: int
    batch: int
    mode: str
    n: int
    images_per_s: float | None
    slow_images_per_s: float | None
    fast_images_per_s: float | None
    gain: float | None
    depthwise_share: float | None


NETWORK_COLUMNS = tuple(NetworkResult.__slots__)


def network_tables(results: Sequence[NetworkResult], device: str) -> Iterator[ResultTable]:
    """All tables in the order in which they are shown; `device` is `cpu` or `cuda`."""
    parts = grouped(results, "mode", "resolution", "batch", "precision")
    for (mode, resolution, batch, precision), some in parts.items():
        title = f"{mode} at {resolution}x{resolution}, batch {batch}, {precision}"
        headings = ("network", "kernels", "layout", "images/s", "±", "n", "gain", "depth-wise")
        yield ResultTable(title, headings, [_line(result) for result in best_layouts(some)])
    if ratios := list(_ratios(results, is_aim=device == "cuda")):
        yield ResultTable(f"{OURS} over others, in images per second", ("", "ratio", "paper's", "target", ""), ratios)


def best_layouts(results: Sequence[NetworkResult]) -> list[NetworkResult]:
    """The row of the faster layout, for each network and operator."""
    groups = grouped(results, "network", "kernels").values()
    return [max(group, key=lambda result: result.images_per_s or 0.0) for group in groups]


def _line(result: NetworkResult) -> tuple[str, ...]:
    layout = result.layout.replace("_", "-")
    if result.images_per_s is None or result.slow_images_per_s is None or result.fast_images_per_s is None:
        return (result.network, result.kernels, layout, "no memory", DASH, "0", DASH, DASH)
    spread = format_percent((result.fast_images_per_s - result.slow_images_per_s) / 2 / result.images_per_s)
    rate, share = format_milliseconds(result.images_per_s), format_percent(result.depthwise_share)
    return (result.network, result.kernels, layout, rate, spread, str(result.n), format_ratio(result.gain), share)


def _ratios(results: Sequence[NetworkResult], *, is_aim: bool) -> Iterator[tuple[str, ...]]:
    """The ratios of RepLKNet-31B to Swin-B, with the paper's, and to itself with `nn.Conv2d`."""
    for (mode, resolution, precision), part in grouped(results, "mode", "resolution", "precision").items():
        where = f"{mode} at {resolution}, {precision}"
        some = best_layouts(part)
        ours = next((result for result in some if (result.network, result.kernels) == (OURS, "harness")), None)
        swin = next((result for result in some if result.network.startswith(SWIN)), None)
        if ours and swin and ours.images_per_s and swin.images_per_s:
            paper = PAPER_OVER_SWIN.get(resolution) if mode == "inference" else None
            aim = paper if is_aim and resolution == 384 else None
            yield _ratio(f"{swin.network}, {where}", ours.images_per_s / swin.images_per_s, aim, paper)
        if ours and ours.gain:
            yield _ratio(f"itself with nn.Conv2d, {where}", ours.gain, GAIN if is_aim else None)


def _ratio(about: str, ratio: float, aim: float | None, paper: float | None = None) -> tuple[str, ...]:
    met = "" if aim is None else "met" if ratio >= aim else "missed"
    return (about, format_ratio(ratio), format_ratio(paper), DASH if aim is None else f"≥ {format_ratio(aim)}", met)
