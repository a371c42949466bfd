"""The effects of a search as a table and as sentences, with what is recorded of the same questions elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.analysis.formatting import DASH, format_metric, join_words, plural
from harness.config.effects import EffectEntry
from harness.errors import UserError
from harness.report.claims import SUMMARY_FILE, ClaimSummary, format_interval, read_claims_summary
from harness.report.console import indented, plain_table
from harness.storage.workspace import CLAIMS_FOLDER, Workspace

if TYPE_CHECKING:  # numpy comes with these
    from harness.analysis.effect_estimators import EffectResult
    from harness.analysis.effects import EffectsResult
    from harness.analysis.statistics.effects import EffectEstimate

COLUMNS = (
    ("effect", "95 % interval", "n", "space-filling alone", "as visited", "over", "importance"),
    ("effect", "95 % interval", "n", "as visited", "over"),
    ("effect", "95 % interval", "n"),
)
"""Columns of numbers, from the widest form of the table to the narrowest."""
UNLIMITED = 1_000
"""A width in columns that no table needs."""
Recorded = Mapping[str, ClaimSummary]
"""Recorded claims by the name that an entry gives, as `guideline_2_shortcut.interaction_replknet`."""


def read_recorded(result: "EffectsResult", workspace: Workspace) -> dict[str, ClaimSummary]:
    """The recorded claims that the study's entries name, as far as they are in the results folder."""
    entries = (effect.term.entry for effect in result.effects)
    names = {entry.recorded for entry in entries if entry is not None and entry.recorded is not None}
    known = {name: _recorded_claim(name, workspace) for name in sorted(names)}
    return {name: claim for name, claim in known.items() if claim is not None}


def _recorded_claim(name: str, workspace: Workspace) -> ClaimSummary | None:
    study, _, claim_name = name.partition(".")
    for folder in (workspace.results / CLAIMS_FOLDER / study, workspace.results / study):
        try:
            claims = read_claims_summary(folder / SUMMARY_FILE).claims
        except UserError:  # not recorded here
            continue
        return next((claim for claim in claims if claim.name == claim_name), None)
    return None


def effects_json(result: "EffectsResult", recorded: Recorded) -> dict[str, Any]:
    """The effects for JSON, with the recorded claims."""
    from harness.analysis.effect_values import effects_values

    claims = {
        name: {"verdict": claim.verdict_text, "metric": claim.metric, "effect": claim.effect, "n": claim.n}
        | {"interval": None if claim.interval is None else list(claim.interval)}
        for name, claim in recorded.items()
    }
    return {**effects_values(result), "recorded": claims}


def effects_view(result: "EffectsResult", recorded: Recorded | None = None) -> list[RenderableType]:
    """The effects as a table, the entries of the study file, and what the numbers mean."""
    title = Text("Effects", style="bold").append(f"  on {result.metric}, all else equal", style="not bold dim")
    named = [indented(line) for effect in result.effects for line in _entry_lines(effect, recorded or {})]
    parts: list[RenderableType] = [title, EffectsTable(result), Text(), *named, *([Text()] if named else [])]
    return [*parts, *(indented(line) for line in note_lines(result)), Text()]


class EffectsTable:
    """The table of effects, with as many columns as fit the console."""

    def __init__(self, result: "EffectsResult") -> None:
        self._result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The widest form that fits; the narrowest wraps."""
        for columns in COLUMNS:
            table = self._table(columns, no_wrap=columns != COLUMNS[-1])
            if Measurement.get(console, options.update_width(UNLIMITED), table).maximum <= options.max_width:
                break
        yield table

    def _table(self, columns: Sequence[str], *, no_wrap: bool) -> Table:
        result, subject = self._result, None
        table = plain_table(("choice", "compared"), columns, no_wrap=no_wrap)
        shares = dict(result.importances.shares) if result.importances else {}
        for effect in result.effects:
            cells = _cells(effect, result.metric)
            is_first = effect.term.subject != subject
            subject = effect.term.subject
            importance = shares.get(subject) if is_first else None
            cells["importance"] = "" if importance is None else f"{importance:.2f}"
            choice = subject if is_first else ""
            table.add_row(Text(choice), Text(effect.term.compared), *(cells[name] for name in columns))
        return table


def _cells(effect: "EffectResult", metric: str) -> dict[str, Text | str]:
    """The cells of an effect by column; an effect whose interval excludes 0 is bold."""
    is_apart = effect.estimate is not None and not _holds_zero(effect.estimate)
    return {
        "effect": Text(estimate_text(effect.estimate, metric), style="bold" if is_apart else ""),
        "95 % interval": interval_text(effect.estimate, metric),
        "n": counts_text(effect),
        "space-filling alone": interval_text(effect.alone, metric),
        "as visited": format_metric(effect.visited, metric),
        "over": f"{100 * effect.share:.0f} %",
    }


def estimate_text(estimate: "EffectEstimate | None", metric: str) -> str:
    """The effect, as text."""
    return DASH if estimate is None else format_metric(estimate.effect, metric)


def interval_text(estimate: "EffectEstimate | None", metric: str) -> str:
    """The interval as text; `exact` without an error."""
    if estimate is None:
        return DASH
    return "exact" if estimate.error == 0 else format_interval(*estimate.interval, metric)


def counts_text(effect: "EffectResult") -> str:
    """The space-filling configurations of each cell, such as `12, 9 of 11`."""
    return ", ".join(count.text for count in effect.counts) or DASH


def _holds_zero(estimate: "EffectEstimate") -> bool:
    low, high = estimate.interval
    return low <= 0 <= high


def _entry_lines(effect: "EffectResult", recorded: Recorded) -> Iterator[str]:
    entry = effect.term.entry
    if entry is not None and (entry.says or entry.paper or entry.recorded):
        guideline = f"Guideline {entry.guideline}, " if entry.guideline else ""
        yield f"{guideline}{effect.term.name}: {'; '.join(known_texts(entry, recorded))}"


def known_texts(entry: EffectEntry, recorded: Recorded) -> list[str]:
    """What a study file states of an effect: the expectation, the published value, the verdict of a grid."""
    texts = [entry.says.rstrip(".")] if entry.says else []
    if entry.paper:
        texts.append(f"paper: {entry.paper}")
    if entry.recorded:
        texts.append(f"grid {entry.recorded}: {recorded_text(recorded.get(entry.recorded))}")
    return texts


def recorded_text(claim: ClaimSummary | None) -> str:
    """The verdict of a recorded claim with its effect."""
    if claim is None:
        return "not recorded here"
    if claim.effect is None or claim.interval is None:
        return claim.verdict_text
    interval = format_interval(*claim.interval, claim.metric)
    return f"{claim.verdict_text}, {format_metric(claim.effect, claim.metric)} {interval} (n = {claim.n})"


def note_lines(result: "EffectsResult") -> Iterator[str]:
    """What the averages are over, what the intervals rest on and contain, and what is missing."""
    networks = "all" if result.is_whole else "a sample of"
    yield (
        f"Averaged over {networks} {result.sample:,} networks within rules and budgets, as far as the network with the "
        "other level and the same choices otherwise is one, too; `over` is their share."
    )
    yield from _reason_lines(result)
    if result.explained is None:
        return
    explained = f"{100 * max(0.0, result.explained):.0f} %"
    yield (
        f"Intervals rest on the {result.draws} of {plural(result.configurations, 'configuration')} that are "
        f"space-filling: drawn uniformly and trained to the end, whatever the sampler {result.sampler} proposed. The "
        f"model, fitted to the others, predicts {explained} of the variance of their values."
    )
    yield from _missing_lines(result)
    first, last = result.seeds[0], result.seeds[-1]
    seeds = f"the seed {first}" if first == last else f"the seeds {first} to {last}"
    yield (
        f"They contain the choice of configurations and what runs differ by at random. All configurations share "
        f"{seeds}, whose images are not part of them. Each is the interval of one effect: 1 in 20 misses its value."
    )
    yield (
        "As visited: the difference of the plain means of all configurations of the search, which is biased, because "
        "the sampler chose them by their results."
    )
    if result.importances is not None:
        best = "largest" if result.importances.direction == "maximize" else "smallest"
        yield (
            f"Importance: {result.importances.evaluator}; which axes decide what is among the {best} tenth of the "
            "values visited, of a sum of 1."
        )


def _reason_lines(result: "EffectsResult") -> Iterator[str]:
    """Why effects have no interval: levels with too few trials, and networks without counterparts."""
    from harness.analysis.statistics.effects import LEAST_IN_CELL

    short = dict.fromkeys(cell for effect in result.effects for cell in effect.short)
    if short:
        yield f"No interval where fewer than {LEAST_IN_CELL} space-filling trials have a value: {'; '.join(short)}."
    for effect in result.effects:
        if effect.reason is not None and not effect.short:
            yield f"No interval for {effect.term.name}: {effect.reason}."


def _missing_lines(result: "EffectsResult") -> Iterator[str]:
    """What is missing because of its outcome, or not finished."""
    if result.lost:
        states = join_words(f"{n} {state}" for state, n in result.lost.items())
        levels = f" Most are lost of: {'; '.join(result.lost_levels)}." if result.lost_levels else ""
        yield (
            f"{plural(sum(result.lost.values()), 'space-filling configuration')} ended without a value ({states}): the "
            f"effects are those among networks that can be trained.{levels}"
        )
    if result.diverged:
        yield f"{plural(result.diverged, 'space-filling configuration')} lost a seed that diverged; the others count."
    for limit, count in result.at_limit.items():
        yield (
            f"{plural(count, 'space-filling configuration')} {'is' if count == 1 else 'are'} {limit}: what they lack "
            "is not measured there, so that effects on them are too small."
        )
    if result.open:
        yield f"{plural(result.open, 'space-filling configuration')} not finished yet."
    if result.earlier:
        yield f"{plural(result.earlier, 'draw')} from the space before an axis grew: used by the model alone."
