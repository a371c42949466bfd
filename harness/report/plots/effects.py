"""Forest plot of the effects of a search: those that the study names, then one row for each axis and pair."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.effect_estimators import EffectResult
from harness.analysis.effect_terms import TermKind
from harness.analysis.effects import EffectsResult
from harness.report.effects import Recorded, counts_text, estimate_text, interval_text, recorded_text
from harness.report.plots.claims import FONT, INK, PALE, SMALL_FONT, finish_axes, side_text
from harness.report.plots.style import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, ROW_INCHES, LINE_INCHES, HEAD_INCHES = 11.0, 0.36, 0.15, 1.5
TEXT_CHARACTERS, PAGE_CHARACTERS = 62, 175
APART, UNCLEAR, GRID = "#0072b2", "#595959", "#009e73"
"""Colors of Okabe and Ito, as in the plot of claims: intervals without 0, with 0, and a grid's claim."""
NOTE = (
    "Dot and bar: the effect and its 95 % interval, filled if 0 is outside; thin bar: from the space-filling trials "
    "alone; cross: the difference of plain means over all that the search visited, biased by its sampler; diamond: the "
    "claim that a grid recorded of the same question, in its own networks. n: space-filling configurations by level."
)


def plot_effects(path: Path, result: EffectsResult, recorded: Recorded) -> None:
    """Write the plot as a PNG file."""
    save_figure(draw_effects_figure(result, recorded), path)


def draw_effects_figure(result: EffectsResult, recorded: Recorded) -> "Figure":
    """One row for each effect, with its texts on both sides."""
    rows = plotted_effects(result)
    texts = [_left_text(effect, recorded) for effect in rows]
    lines = [text.count("\n") for text in texts]
    heights = [ROW_INCHES + LINE_INCHES * count for count in lines]
    figure = new_figure(WIDTH_INCHES, HEAD_INCHES + sum(heights))
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.8)
    top = 0.0
    for effect, text, height in zip(rows, texts, heights, strict=True):
        middle = top + height / 2
        _draw_effect(axes, effect, middle, result.metric, recorded)
        side_text(axes, middle, text)
        side_text(axes, middle, _right_text(effect, result.metric), is_right=True)
        top += height
    axes.set_ylim(top, 0)
    axes.grid(visible=True, axis="x", alpha=0.3, linewidth=0.6)
    finish_axes(axes, f"effect on {result.metric}, all else equal, averaged over the space")
    trials = "" if result.explained is None else f", {result.draws} of {result.configurations} space-filling"
    figure.suptitle(f"{result.study}: what each choice is worth{trials}", fontsize=FONT + 0.5, parse_math=False)
    figure.supxlabel(textwrap.fill(NOTE, PAGE_CHARACTERS), fontsize=SMALL_FONT - 1, color=PALE)
    return figure


def plotted_effects(result: EffectsResult) -> list[EffectResult]:
    """The named effects by guideline, then the main one of every other axis or pair, as far as they have estimates."""
    named = [effect for effect in result.effects if effect.term.entry is not None]
    named.sort(key=lambda effect: (effect.term.entry and effect.term.entry.guideline) or 9)
    halved = {effect.term.subject for effect in result.effects if effect.term.kind == TermKind.HALVES}
    others = [
        effect
        for effect in result.effects
        if effect.term.entry is None and (effect.term.kind != TermKind.LEVELS or effect.term.subject not in halved)
    ]
    return [*named, *(effect for effect in others if effect.estimate is not None)]


def _left_text(effect: EffectResult, recorded: Recorded) -> str:
    entry = effect.term.entry
    guideline = f"Guideline {entry.guideline}, " if entry is not None and entry.guideline else ""
    lines = [f"{guideline}{effect.term.name}"]
    if entry is not None:
        lines += [entry.says] if entry.says else []
        lines += [f"Paper: {entry.paper}"] if entry.paper else []
        lines += [f"Grid: {recorded_text(recorded.get(entry.recorded))}"] if entry.recorded else []
    return "\n".join(textwrap.fill(line, TEXT_CHARACTERS) for line in lines)


def _right_text(effect: EffectResult, metric: str) -> str:
    if effect.estimate is None:
        return f"no interval: too few (n = {counts_text(effect)})"
    n = f"  n = {counts_text(effect)}" if effect.counts else ""
    return f"{estimate_text(effect.estimate, metric)} {interval_text(effect.estimate, metric)}{n}"


def _draw_effect(axes: "Axes", effect: EffectResult, height: float, metric: str, recorded: Recorded) -> None:
    if effect.alone is not None:
        axes.plot(effect.alone.interval, [height + 0.09] * 2, color=PALE, linewidth=0.9)
    if effect.visited is not None:
        axes.plot(effect.visited, height + 0.09, "x", color=PALE, markersize=4.5)
    estimate = effect.estimate
    if estimate is not None:
        low, high = estimate.interval
        color = UNCLEAR if low <= 0 <= high else APART
        face = "white" if low <= 0 <= high else color
        axes.plot([low, high], [height] * 2, "-|", color=color, linewidth=2.2, markersize=8)
        axes.plot(estimate.effect, height, "o", color=color, markerfacecolor=face, markersize=6.5, markeredgewidth=1.5)
    entry = effect.term.entry
    claim = recorded.get(entry.recorded) if entry is not None and entry.recorded else None
    if claim is not None and claim.effect is not None and claim.metric == metric:
        if claim.interval is not None:
            axes.plot(claim.interval, [height - 0.09] * 2, color=GRID, linewidth=1.2)
        axes.plot(claim.effect, height - 0.09, "D", color=GRID, markersize=4)
