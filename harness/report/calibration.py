"""A calibration as tables for a terminal and for Markdown, as plain values, and the recipe to paste."""

import math
import textwrap
from collections.abc import Iterator
from datetime import date
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.calibration import CandidateResult, Contrast, DecisionCost
from harness.analysis.claims import ANALYSES
from harness.analysis.formatting import DASH, format_duration, format_metric, format_params, plural
from harness.analysis.statistics.decision_pairs import POWER, Range
from harness.analysis.statistics.power import MOST_PAIRS
from harness.config.calibrate import WIDTH
from harness.config.calibration_candidates import CandidateRecipe
from harness.config.yaml_file import write_yaml
from harness.report.console import plain_table
from harness.report.tables import ResultTable, markdown_rows
from harness.search.calibration import (
    CalibrationEvent,
    CalibrationResult,
    CandidateLeftOut,
    CandidateMeasured,
    CandidateStarted,
    StageStarted,
)

INFINITE = "∞"
HEADER_WIDTH = 110
"""Columns of the sentence for the header of a study file."""
SIGNS = (
    "The sign of an effect decides nothing here: candidates are ranked by the computing until the claims are decided, "
    "either way. If it differs between candidates, the verdict depends on the recipe."
)


def change_text(recipe: CandidateRecipe) -> str:
    """The change of a candidate, as `batch_size=32 optimizer.lr=0.3`."""
    return format_params(recipe.change.values) if recipe.change.values else "as written"


def event_line(event: CalibrationEvent) -> str | None:
    """An event as a permanent line; None for one that is only a status."""
    match event:
        case StageStarted():
            return (
                f"stage {event.number}: {plural(event.candidates, 'candidate')} with {plural(event.seeds, 'seed')} each"
            )
        case CandidateStarted():
            return None
        case CandidateLeftOut():
            return (
                f"{change_text(event.recipe)}: left out, its runs would take {event.core_hours:.2g} core-hours "
                f"and {event.left:.2g} are left"
            )
        case CandidateMeasured():
            return f"[{event.position}/{event.candidates}] {change_text(event.result.recipe)}: {_summary(event.result)}"


def calibration_view(result: CalibrationResult) -> RenderableType:
    """The tables, the recommendation and the recipe to paste, for a terminal."""
    parts: list[RenderableType] = [Text(result.plan.file.study.study, style="bold"), Text()]
    for table in tables_of(result):
        numbers, notes = table.headings[1:-1], table.headings[-1:]
        rich = plain_table(table.headings[:1], numbers)
        rich.add_column(notes[0], no_wrap=True)
        for row in table.rows:
            rich.add_row(*map(Text, row))
        parts += [Text(table.title), rich, Text()]
    parts += [Text(line) for line in notes_of(result)]
    if result.best is not None:
        parts += [
            Text(),
            Text("Recipe to paste", style="bold"),
            Text(recipe_text(result.best)),
            Text(header_text(result)),
        ]
    return Group(*parts)


def calibration_markdown(result: CalibrationResult) -> str:
    """The same as Markdown."""
    lines = [f"# Calibration of {result.plan.file.study.study}", ""]
    for table in tables_of(result):
        lines += [f"{table.title}:", "", *markdown_rows(table.headings, table.rows, rule="---"), ""]
    for note in notes_of(result):
        lines += [note, ""]
    if result.best is not None:
        lines += ["```yaml", recipe_text(result.best).rstrip(), "```", "", header_text(result), ""]
    return "\n".join(lines)


def tables_of(result: CalibrationResult) -> Iterator[ResultTable]:
    """A table of all claims together, if there are several, one of each claim, and of each further metric."""
    own = [contrast for contrast in result.contrasts if contrast.is_own]
    if len(own) > 1:
        rows = [
            (change_text(each.recipe), str(each.seeds), _range(each.core_minutes), each.note) for each in result.results
        ]
        yield ResultTable(
            "All claims; shared runs are counted once", ("recipe", "n", "core-min to decide", "note"), rows
        )
    for contrast in own:
        yield _claim_table(result, contrast)
    for contrast in result.contrasts:
        if not contrast.is_own:
            yield _claim_table(result, contrast)


def _claim_table(result: CalibrationResult, contrast: Contrast) -> ResultTable:
    arms = " / ".join(contrast.weights)
    kind = "" if contrast.is_own else ", from the same runs"
    how = "" if contrast.is_paired else f", {ANALYSES['none']}"
    title = f"{contrast.claim} by {contrast.metric}{kind} (arms {arms}{how})"
    headings = (
        "recipe",
        "n",
        "top1 % of arms",
        "effect ± sd",
        "effect/sd",
        "core-min/pair",
        "core-min to decide",
        "note",
    )
    rows = []
    for each in result.results:
        cost = next((cost for cost in each.costs if cost.contrast == contrast), None)
        rows.append(_row(each, cost, contrast))
    if not contrast.is_own:
        rows = [row for row in rows if row[3] != DASH]
    return ResultTable(title, headings, rows)


def _row(each: CandidateResult, cost: DecisionCost | None, contrast: Contrast) -> tuple[str, ...]:
    accuracies = " / ".join(format_metric(each.accuracies.get(arm), "top1") for arm in contrast.weights)
    if cost is None:
        return (change_text(each.recipe), "0", accuracies, DASH, DASH, DASH, DASH, each.note)
    effect, sd = (format_metric(value, contrast.metric) for value in (cost.pairs.mean, cost.pairs.sd))
    return (
        change_text(each.recipe),
        str(cost.pairs.n),
        accuracies,
        f"{'+' if cost.pairs.mean > 0 else ''}{effect} ± {sd}",
        DASH if cost.size is None else _range(cost.size),
        _number(cost.pair_minutes),
        _range(cost.core_minutes),
        each.note,
    )


def notes_of(result: CalibrationResult) -> Iterator[str]:
    """What the numbers are, and what they are not."""
    looks = "the study's own looks, or further ones where these have too little power"
    yield (
        f"core-min to decide: expected core-minutes until a claim's plan decides with a power of {100 * POWER:g} % "
        f"({looks}), with the 95 % interval that follows from the effect/sd; {INFINITE}: that no decision is made "
        f"within {MOST_PAIRS} pairs cannot be excluded. The estimate of the best of several candidates is too good. "
        "Core-minutes are wall times: other work on the machine that disturbed some candidates ranks them wrongly."
    )
    yield SIGNS
    yield from _data_notes(result)
    if result.left_out:
        names = ", ".join(map(change_text, result.left_out))
        yield f"Not trained, for lack of budget: {names}."
    yield from _comparison_notes(result)
    yield f"All runs took {_number(result.core_minutes)} core-minutes ({format_duration(60 * result.core_minutes)})."
    if result.best is None:
        yield (
            "No recipe is recommended: under each, an arm is at a limit, runs lack a value, or no decision is expected."
        )


def _comparison_notes(result: CalibrationResult) -> Iterator[str]:
    """Whether the recommended recipe is shown to be better than the one as written."""
    best, own = result.best, result.own
    if best is None or own is None or own is best or own.limit is not None or own.lost:
        return
    if best.core_minutes.high >= own.core_minutes.low:
        yield (
            f"The intervals of {change_text(best.recipe)} and of the recipe as written overlap: that it needs less "
            "is an estimate, and not shown."
        )


def _data_notes(result: CalibrationResult) -> Iterator[str]:
    recipe = result.plan.file.study.proxy
    if recipe.resample == "none":
        yield (
            "All seeds have the same images (`resample: none`), so these runs have those of the claims: their verdicts "
            "are about these images only."
        )
    elif recipe.dataset != "shapes":
        yield (
            "The seeds are no claim's, but their splits are of the same images as the claims': a verdict is about this "
            "data set."
        )


def recipe_text(best: CandidateResult) -> str:
    """The `proxy:` block with the change, as YAML; and how to change the base if its width is another."""
    document, width = best.recipe.document, best.recipe.change.width
    comment = None
    if width != 1:
        channels = ", ".join(f"{arm}: C={list(spec.C)}" for arm, spec in best.recipe.networks.items())
        comment = f"{WIDTH} {width:g}: the networks have other channels, to be written as C of the base ({channels})"
    return write_yaml({"proxy": document.data.get("proxy", {})}, comment)


def header_text(result: CalibrationResult) -> str:
    """The sentence for the header of the study file, as a comment."""
    best, own = result.best, result.own
    assert best is not None
    claims = ", ".join(contrast.claim for contrast in result.contrasts if contrast.is_own)
    before = "" if own is None or own is best else f"; the recipe as it was written needs {_range(own.core_minutes)}"
    text = (
        f"Recipe from `harness calibrate`, {date.today():%Y-%m-%d}: of {len(result.results)} recipes, "
        f"{change_text(best.recipe)} decides {claims} for the least computing, {_range(best.core_minutes)} "
        f"core-minutes (n = {best.seeds} pairs of seeds that no claim uses){before}."
    )
    return textwrap.fill(text, HEADER_WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def calibration_values(result: CalibrationResult) -> dict[str, Any]:
    """The calibration as plain values for JSON; infinite numbers are null."""
    plan, best = result.plan, result.best
    return {
        "study": plan.file.study.study,
        "pairing": plan.file.study.search.pairing,
        "stages": list(plan.stages),
        "core_minutes": result.core_minutes,
        "power": POWER,
        "most_pairs": MOST_PAIRS,
        "recommended": None if best is None else best.recipe.name,
        "proxy": None if best is None else best.recipe.document.data.get("proxy", {}),
        "candidates": [_candidate_values(each) for each in result.results],
        "left_out": [dict(recipe.change.values) for recipe in result.left_out],
    }


def _candidate_values(each: CandidateResult) -> dict[str, Any]:
    return {
        "study": each.recipe.name,
        "change": dict(each.recipe.change.values),
        "seeds": each.seeds,
        "top1": dict(each.accuracies),
        "run_core_minutes": dict(each.run_minutes),
        "core_minutes_to_decision": each.core_minutes._asdict(),
        "limit": each.limit,
        "runs_without_value": each.lost,
        "is_eligible": each.is_eligible,
        "claims": [
            {
                "claim": cost.contrast.claim,
                "metric": cost.contrast.metric,
                "pairs": cost.pairs.n,
                "effect": cost.pairs.mean,
                "sd": cost.pairs.sd,
                "effect_over_sd": None if cost.size is None else cost.size._asdict(),
                "pairs_to_decision": cost.needed._asdict(),
                "core_minutes_per_pair": cost.pair_minutes,
                "core_minutes_to_decision": cost.core_minutes._asdict(),
            }
            for cost in each.costs
        ],
    }


def _summary(result: CandidateResult) -> str:
    effects = ", ".join(
        f"{cost.contrast.claim} {'+' if cost.pairs.mean > 0 else ''}"
        f"{format_metric(cost.pairs.mean, cost.contrast.metric)}"
        f" ± {format_metric(cost.pairs.sd, cost.contrast.metric)}"
        for cost in result.own
    )
    note = f"; {result.note}" if result.note else ""
    minutes = _range(result.core_minutes)
    return f"{effects or 'no value'} (n = {result.seeds}), {minutes} core-minutes to decide{note}"


def _range(values: Range) -> str:
    return f"{_number(values.value)} [{_number(values.low)}, {_number(values.high)}]"


def _number(value: float) -> str:
    """A number with three digits; the sign for infinity."""
    if math.isnan(value):
        return DASH
    return INFINITE if math.isinf(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
