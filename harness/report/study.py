"""The answer as a page: every configuration, the front, the best, the claims; and what to type next."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import format_params, plural, printable, si
from harness.analysis.noise import noise_line
from harness.analysis.results import StudyResults
from harness.report.claims import claims_view
from harness.report.conclusions import conclusions, conditions_text, configuration_line
from harness.report.configurations import FRONT_MARK, ConfigurationTables, format_objective
from harness.report.console import indented
from harness.report.data_notes import data_view
from harness.report.full_scale import full_scale_runs_view

MAX_ROWS = 30
"""Rows of the answer; the table of all trials has no such limit."""
MAX_REASONS = 8


def results_view(answer: StudyResults) -> RenderableType:
    """All that a study ends with."""
    front = [
        indented(f"{format_params(row.params)}: {format_objective(row, answer)}, {si(row.macs)} MACs")
        for row in answer.front
    ]
    parts: list[RenderableType] = [heading(answer), Text(), ConfigurationTables(answer, most=MAX_ROWS), Text()]
    parts += [*ended_view(answer), *reasons(answer)]
    if front:
        parts += [Text(f"Pareto front ({FRONT_MARK}) of {answer.metric} against MACs", style="bold"), *front, Text()]
    if answer.best is not None:
        parts += [Text("Best network", style="bold"), indented(configuration_line(answer.best, answer.metric))]
    parts += [*(indented(sentence) for sentence in conclusions(answer)), Text(), *claims_view(answer)]
    parts += data_view(answer.data)
    parts += [*full_scale_runs_view(answer), *noise_view(answer), Text(conditions_text(answer), style="dim")]
    return Group(*parts)


def ended_view(answer: StudyResults) -> list[RenderableType]:
    """Why the search ended before its trials were used up, or that it repeated itself."""
    return [] if answer.ended is None else [Text(f"The search ended: {printable(answer.ended)}."), Text()]


def noise_view(answer: StudyResults) -> list[RenderableType]:
    """Which noise the spreads and intervals hold; nothing where nothing was trained."""
    line = noise_line(answer.resampling)
    return [] if line is None else [Text(line, style="dim")]


def heading(answer: StudyResults) -> RenderableType:
    """The study in a line: what was sought, and how many configurations stand how."""
    states: dict[str, int] = {}
    for row in answer.rows:
        states[row.state] = states.get(row.state, 0) + 1
    said = [f"{n} {state}" for state, n in states.items()]
    said += [f"{plural(n, 'configuration')} ruled out by {key}" for key, n in answer.rejected.items()]
    text = Text(answer.study, style="bold")
    return text.append(f"  {answer.direction} {answer.metric}: {', '.join(said) or 'no trials yet'}", style="not bold")


def reasons(answer: StudyResults, *, most: int | None = MAX_REASONS) -> list[RenderableType]:
    """Why configurations are not complete, or lost a seed; one line each."""
    said = [
        indented(f"#{row.trials[-1]} {format_params(row.params)}: {row.state}, {printable(row.reason)}")
        for row in answer.rows
        if row.reason
    ]
    if not said:
        return []
    left = len(said) - len(said[:most])
    more = [indented(f"and {left} more")] if left else []
    return [Text("Not trained to the end, with all seeds", style="bold"), *said[:most], *more, Text()]


def next_lines(commands: Sequence[tuple[str, str]]) -> list[str]:
    """Commands and what they do, to be printed as they are: a console would break or cut what is longer than a line."""
    return ["", "Next", *(line for command, purpose in commands for line in (f"  # {purpose}", f"  {command}"))]
