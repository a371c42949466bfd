"""The results of a study as a page: all configurations, the Pareto front, the best, the claims, and next commands.

With the results as values, the page is a study's summary: `summary.json` for programs, `summary.txt` for people.
"""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.text import Text

from harness.analysis.conclusions import best_title, conclusions, conditions_text, configuration_line
from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.formatting import format_params, json_text, plural, printable, si
from harness.analysis.pareto_conclusions import objectives_text
from harness.analysis.results import StudyResults, noise_line
from harness.report.claims import claims_view
from harness.report.configurations import FRONT_MARK, ConfigurationTables, format_objective
from harness.report.console import indented
from harness.report.effects import effects_view
from harness.report.full_scale import full_scale_runs_view
from harness.report.trust import answer_view
from harness.system.atomic_write import atomic_write_text

MAX_ROWS = 30
"""Maximum number of rows on the page of results; the table of all trials has no such limit."""
MAX_REASONS = 8
SUMMARY_WIDTH = 160
"""Width of the summary as text, in columns."""


def results_view(results: StudyResults) -> RenderableType:
    """The page of results with which a study ends."""
    front = [indented(f"{format_params(row.params)}: {_on_front(row, results)}") for row in results.front]
    parts: list[RenderableType] = [heading(results), Text(), ConfigurationTables(results, most=MAX_ROWS), Text()]
    parts += [*enqueued_view(results), *ended_view(results), *reasons(results)]
    if front:
        of = f"{results.metric} against MACs" if results.pareto is None else results.pareto.text
        parts += [Text(f"Pareto front ({FRONT_MARK}) of {of}", style="bold"), *front, Text()]
    if results.best is not None:
        parts += [Text(best_title(results), style="bold"), indented(configuration_line(results.best, results.metric))]
    parts += [*(indented(sentence) for sentence in conclusions(results)), Text(), *claims_view(results)]
    parts += effects_view(results.effects) if results.effects is not None else []
    parts += answer_view(results.trust) if results.trust is not None else []
    parts += data_view(results.data)
    parts += [*full_scale_runs_view(results), *noise_view(results), Text(conditions_text(results), style="dim")]
    return Group(*parts)


def _on_front(row: ConfigurationResult, results: StudyResults) -> str:
    """A configuration of the front as text: its objectives, or the one with its MACs."""
    if results.pareto is None:
        return f"{format_objective(row, results)}, {si(row.macs)} MACs"
    return objectives_text(results.pareto, row)


def ended_view(results: StudyResults) -> list[RenderableType]:
    """Why the search ended before its trials were used up, if it did; and the budget of the study, if it has one."""
    lines = [] if results.ended is None else [Text(f"The search ended: {printable(results.ended)}.")]
    if results.budget is not None and not results.is_out_of_budget:
        lines.append(Text(f"Of the budget, {results.budget.text} are used."))
    numbers = {len(row.seeds) for row in results.complete}
    of_same_seeds = len(numbers) <= 1 or min(numbers) >= results.search.get("seeds", 0)
    if results.is_out_of_budget and results.race is None and not of_same_seeds:
        lines.append(
            Text(
                f"Configurations have {min(numbers)} to {max(numbers)} seeds: their means are not of the same seeds, "
                "so the best one may have had the luckier ones."
            )
        )
    return [*lines, Text()] if lines else []


def enqueued_view(results: StudyResults) -> list[RenderableType]:
    """The configurations that the study file lists, by their first trial; empty without any."""
    listed = sorted((row.trials[0], row.enqueued_as) for row in results.rows if row.enqueued_as)
    names = "; ".join(f"#{trial} {name}" for trial, name in listed)
    return [Text(f"Enqueued by the study file: {printable(names)}."), Text()] if listed else []


def noise_view(results: StudyResults) -> list[RenderableType]:
    """The sources of noise that the spreads and intervals cover; empty if nothing was trained."""
    line = noise_line(results.resampling)
    return [] if line is None else [Text(line, style="dim")]


def heading(results: StudyResults) -> RenderableType:
    """The study as one line: its objective, and the number of configurations by state."""
    lines = [f"{n} {state}" for state, n in Counter(row.state for row in results.rows).items()]
    lines += [f"{plural(n, 'configuration')} ruled out by {key}" for key, n in results.rejected.items()]
    text = Text(results.study, style="bold")
    return text.append(f"  {results.objectives_text}: {', '.join(lines) or 'no trials yet'}", style="not bold")


def reasons(results: StudyResults, *, most: int | None = MAX_REASONS) -> list[RenderableType]:
    """Why configurations are not complete or lost a seed, one line each."""
    parts = [
        indented(f"#{row.trials[-1]} {format_params(row.params)}: {row.state}, {printable(row.reason)}")
        for row in results.rows
        if row.reason
    ]
    if not parts:
        return []
    left = len(parts) - len(parts[:most])
    more = [indented(f"and {left} more")] if left else []
    return [Text("Not complete, over budget, or without all seeds", style="bold"), *parts[:most], *more, Text()]


def data_view(lines: Sequence[str]) -> list[RenderableType]:
    """The lines below a heading; empty without lines."""
    return [Text("Data", style="bold"), *(indented(printable(line)) for line in lines), Text()] if lines else []


def write_summary(folder: Path, results: StudyResults) -> None:
    """Write `summary.json` and `summary.txt` into the study's folder, each atomically."""
    atomic_write_text(folder / "summary.json", json_text(results.to_dict()) + "\n", is_shared=True)
    text = io.StringIO()
    Console(file=text, width=SUMMARY_WIDTH, markup=False, highlight=False, emoji=False).print(results_view(results))
    lines = "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
    atomic_write_text(folder / "summary.txt", lines, is_shared=True)
