"""Plot of the claims of a study: the values of all runs, and below them the effect and the verdict of each claim."""

import statistics
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.claims import ANALYSES
from harness.analysis.formatting import PREFIXES, format_mean_and_spread, format_metric, format_params, plural
from harness.analysis.objective import spread_of
from harness.analysis.statistics import Verdict
from harness.config.expectation import ExpectationKind
from harness.report.claims import ArmSummary, ClaimsSummary, ClaimSummary, format_interval, format_p
from harness.report.plots.style import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 10.0
ARM_INCHES, CLAIM_INCHES = 0.3, 0.5
AROUND_INCHES, HEAD_INCHES = 0.55, 1.1
"""Space for ticks and text, per panel and for the whole page."""
FONT, SMALL_FONT = 8, 7
NAME_CHARACTERS, LINE_CHARACTERS, PAGE_CHARACTERS = 48, 105, 165
INK, PALE = "#333333", "#8c8c8c"
VerdictMark = tuple[str, str, bool]
"""Color, mark, and whether the mark is filled."""
VERDICT_MARKS: dict[Verdict, VerdictMark] = {
    Verdict.SUPPORTED: ("#0072b2", "o", True),
    Verdict.CONTRADICTED: ("#d55e00", "X", True),
    Verdict.EQUIVALENT: ("#009e73", "s", True),
    Verdict.UNDECIDED: ("#595959", "o", False),
}
"""Colors of Okabe and Ito, which color-blind people can distinguish; and marks that differ without color."""
CLAIMS_PLOT_NOTE = (
    "Runs: one dot each, in every row the seeds from top to bottom; bar: mean and standard deviation. Claims: the dots "
    "are the contrast by seed, mark and bar the effect and its 95 % interval over all looks. Dashed: the bound of the "
    "claim. Gray: differences from it that are too small to matter, or the range in which the effect is expected."
)


def plot_claims(path: Path, summary: ClaimsSummary) -> None:
    """Write the plot as a PNG file."""
    save_figure(draw_claims_figure(summary), path)


def draw_claims_figure(summary: ClaimsSummary) -> "Figure":
    """A panel per metric with the values of all arms by seed, followed by a panel per claim."""
    panels = _arms(summary)
    heights = [ARM_INCHES * len(arms) for arms in panels.values()] + [CLAIM_INCHES] * len(summary.claims)
    figure = new_figure(WIDTH_INCHES, HEAD_INCHES + sum(heights) + AROUND_INCHES * len(heights))
    lines = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (metric, arms) in zip(lines, panels.items(), strict=False):
        _draw_runs(axes, metric, arms)
    for axes, claim in zip(lines[len(panels) :], summary.claims, strict=True):
        _draw_claim(axes, claim)
    figure.suptitle(_title(summary), fontsize=FONT + 0.5, parse_math=False)
    figure.supxlabel(textwrap.fill(CLAIMS_PLOT_NOTE, PAGE_CHARACTERS), fontsize=SMALL_FONT - 1, color=PALE)
    return figure


def _arms(summary: ClaimsSummary) -> dict[str, dict[str, ArmSummary]]:
    """The arms of all contrasts that have values, each once, by metric and by name."""
    chosen = [arm.choices for claim in summary.claims for arm in claim.arms]
    differing = {name for one in chosen for name in one if any(other.get(name) != one[name] for other in chosen)}
    panels: dict[str, dict[str, ArmSummary]] = {}
    for claim in summary.claims:
        for arm in (arm for arm in claim.arms if arm.values):
            choices = {name: value for name, value in arm.choices.items() if name in differing}
            panels.setdefault(claim.metric, {}).setdefault(format_params(choices or arm.choices), arm)
    return {metric: arms for metric, arms in panels.items() if len(arms) > 1}  # the claim shows those of a single arm


def _title(summary: ClaimsSummary) -> str:
    """The study, the number of claims by verdict, n, and the conditions."""
    verdicts = Counter(claim.verdict_text for claim in summary.claims)
    ns = sorted({claim.n for claim in summary.claims})
    n = f"n = {ns[0]}" + (f" to {ns[-1]}" if len(ns) > 1 else "")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    head = f"{summary.study}: {plural(len(summary.claims), 'claim')}, {counts}; {n}"
    below = [
        line for text in (summary.noise_line, summary.conditions) for line in textwrap.wrap(text, PAGE_CHARACTERS - 25)
    ]
    return "\n".join([head, *below, *([summary.mark] if summary.mark else [])])


def _draw_runs(axes: "Axes", metric: str, arms: Mapping[str, ArmSummary]) -> None:
    """A row per arm: its runs as dots, the same seed at the same height, with mean and standard deviation."""
    seeds = sorted({seed for arm in arms.values() for seed in arm.seeds})
    step = 0.6 / len(seeds)
    for row, (name, arm) in enumerate(arms.items()):
        mean = statistics.fmean(arm.values)
        spread = spread_of(arm.values)
        heights = [row + step * (seeds.index(seed) - (len(seeds) - 1) / 2) for seed in arm.seeds]
        if spread is not None:
            axes.plot([mean - spread, mean + spread], [row, row], color=PALE, linewidth=5, alpha=0.35)
        axes.plot(mean, row, "|", color=INK, markersize=13, markeredgewidth=1.4)
        axes.plot(arm.values, heights, ".", color=INK, markersize=5, alpha=0.7)
        side_text(axes, row, textwrap.fill(name, NAME_CHARACTERS))
        side_text(axes, row, f"{format_mean_and_spread(mean, spread, metric)}  n = {len(arm.values)}", is_right=True)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    finish_axes(axes, f"{metric}, every run")
    axes.grid(visible=True, axis="x", alpha=0.3, linewidth=0.6)


def _draw_claim(axes: "Axes", claim: ClaimSummary) -> None:
    """Effect and interval against 0, the bound and the band that does not matter; the contrast of each seed below."""
    color, mark, is_filled = VERDICT_MARKS[claim.verdict]
    axes.axvline(0, color=INK, linewidth=0.8)
    for bound in filter(None, claim.expected.bounds):
        axes.axvline(bound, color=INK, linewidth=0.8, linestyle="--")
    if band := _band(claim):
        axes.axvspan(*band, color="0.9", linewidth=0, zorder=0)
    axes.plot(claim.values, [-0.5] * len(claim.values), ".", color=PALE, markersize=5, alpha=0.8)
    if claim.effect is not None:
        if claim.interval is not None:
            axes.plot(claim.interval, [0.3, 0.3], "-|", color=color, linewidth=2.2, markersize=9)
        face = color if is_filled else "white"
        axes.plot(claim.effect, 0.3, mark, color=color, markerfacecolor=face, markersize=7.5, markeredgewidth=1.6)
    else:
        why = textwrap.fill(claim.missing or "no seed that all arms have completed", LINE_CHARACTERS // 2)
        axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", fontsize=FONT, parse_math=False)
    side_text(axes, 0.45, claim.name, fontweight="bold")
    side_text(axes, -0.45, claim.verdict_text, color=color, fontweight="bold")
    for height, text in zip((0.45, -0.45), _result_texts(claim), strict=True):
        side_text(axes, height, text, is_right=True)
    axes.set_xlim(*_limits(claim))
    axes.set_ylim(-1, 1)
    paper = f" Paper: {claim.paper}." if claim.paper else ""
    why = f" Exploratory: {claim.exploratory.reason}." if claim.exploratory else ""
    how = "" if claim.pairing == "seed" else f", {ANALYSES[claim.pairing]}"
    finish_axes(axes, f"{claim.says} ({claim.metric}, expected {claim.expect}{how}).{paper}{why}")


def _result_texts(claim: ClaimSummary) -> tuple[str, str]:
    """Two texts: effect and interval; n and p."""
    if claim.effect is None:
        return "not evaluated", "n = 0"
    between = f" {format_interval(*claim.interval, claim.metric)}" if claim.interval else ", no interval"
    p = format_p(claim.p)
    return (
        f"{format_metric(claim.effect, claim.metric)}{between}",
        f"n = {claim.n}, p {p}" if p.startswith("<") else f"n = {claim.n}, p = {p}",
    )


def _band(claim: ClaimSummary) -> tuple[float, float] | None:
    """The differences from the bound that do not matter, or the range of `within`."""
    bound = claim.expected.bound
    if claim.expected.kind == ExpectationKind.WITHIN:
        return -bound, bound
    return None if claim.ignore is None else (bound - claim.ignore, bound + claim.ignore)


def _limits(claim: ClaimSummary) -> tuple[float, float]:
    """The limits of the axis: all values that are drawn, including 0, with a margin."""
    drawn = [0.0, *claim.expected.bounds, *claim.values, *(claim.interval or ()), *(_band(claim) or ())]
    margin = 0.05 * (max(drawn) - min(drawn)) or 1.0
    return min(drawn) - margin, max(drawn) + margin


def side_text(axes: "Axes", height: float, text: str, *, is_right: bool = False, **style: Any) -> None:
    """Add a text to the left or right of the panel, at this height in data coordinates."""
    axes.annotate(
        text,
        (1.0 if is_right else 0.0, height),
        (8 if is_right else -8, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left" if is_right else "right",
        va="center",
        fontsize=FONT,
        parse_math=False,
        annotation_clip=False,
        **style,
    )


def finish_axes(axes: "Axes", below: str) -> None:
    """Style the horizontal axis and set the text below it; remove the other axis and the frame."""
    axes.set_yticks([])
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", labelsize=SMALL_FONT)
    axes.xaxis.set_major_formatter(lambda x, _: _tick(x))
    axes.set_xlabel(textwrap.fill(below, LINE_CHARACTERS), loc="left", fontsize=SMALL_FONT, color=INK, parse_math=False)


def _tick(x: float) -> str:
    """The exact value of a tick, with a prefix from ten thousand on; a rounded value would be wrong at its place."""
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if abs(x) >= max(size, 1e4)), (1.0, ""))
    return f"{x / size:g}{prefix}"
