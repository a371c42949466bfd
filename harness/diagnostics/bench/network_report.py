"""The bench of whole networks as tables, and its rows with their columns.

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

from harness.analysis.formatting import DASH, format_milliseconds
from harness.diagnostics.bench.base import ResultTable, grouped
from harness.diagnostics.bench.dwconv_report import format_percent, format_ratio

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


COLUMNS = tuple(NetworkResult.__slots__)


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
