"""The answer as tables: every configuration, the front, the best, and what to type next."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from harness.report.answer import Answer, Row
from harness.report.claims import claims_view
from harness.report.layout import indented, plain_table
from harness.report.verdict import conditions, summary_of, verdict
from harness.report.words import (
    DASH,
    amount,
    counted,
    label,
    mean_and_spread,
    milliseconds,
    printable,
    value,
)

MOST_ROWS = 30
"""Rows of the answer; the table of all trials has no such limit."""
MOST_REASONS = 8
FRONT = "●"

PERCENTAGES = ("top1",)


def answer_view(answer: Answer) -> RenderableType:
    """All that a study ends with."""
    front = [indented(f"{label(row.params)}: {_value(row, answer)}, {amount(row.macs)} MACs") for row in answer.front]
    parts: list[RenderableType] = [heading(answer), Text(), configurations(answer, most=MOST_ROWS), Text()]
    parts += reasons(answer)
    if front:
        parts += [Text(f"Pareto front ({FRONT}) of {answer.metric} against MACs", style="bold"), *front, Text()]
    if answer.best is not None:
        parts += [Text("Best network", style="bold"), indented(summary_of(answer.best, answer.metric))]
    parts += [*(indented(sentence) for sentence in verdict(answer)), Text(), *claims_view(answer)]
    parts += [Text(conditions(answer), style="dim")]
    return Group(*parts)


def heading(answer: Answer) -> RenderableType:
    """The study in a line: what was sought, and how many configurations stand how."""
    states: dict[str, int] = {}
    for row in answer.rows:
        states[row.state] = states.get(row.state, 0) + 1
    said = [f"{n} {state}" for state, n in states.items()]
    said += [f"{counted(n, 'configuration')} ruled out by {key}" for key, n in answer.rejected.items()]
    text = Text(answer.study, style="bold")
    return text.append(f"  {answer.direction} {answer.metric}: {', '.join(said) or 'no trials yet'}", style="not bold")


def configurations(answer: Answer, *, most: int | None = None) -> RenderableType:
    """One row per configuration, best first."""
    table = plain_table()
    table.add_column("", no_wrap=True)
    table.add_column("#", justify="right", no_wrap=True)
    for name in answer.axes:
        table.add_column(Text(name), no_wrap=True)
    unit = " %" if answer.metric in PERCENTAGES else ""
    for name in (f"{answer.metric}{unit}", "n", "params", "MACs", "ms", "s/run"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("")
    for row in answer.rows[:most]:
        style = "bold" if row is answer.best else "" if row.state == "complete" else "dim"
        table.add_row(*cells(row, answer), style=style)
    left = len(answer.rows) - (most or len(answer.rows))
    return Group(table, Text(f"and {left} more", style="dim")) if left > 0 else table


def cells(row: Row, answer: Answer) -> list[str | Text]:
    """The cells of a row, in the order of the columns."""
    return [
        FRONT if row.is_on_front else "",
        str(row.trials[0]),
        *(Text(value(row.params[name])) if name in row.params else DASH for name in answer.axes),
        _value(row, answer),
        str(len(row.values)),
        amount(row.params_count),
        amount(row.macs),
        milliseconds(row.latency_ms),
        DASH if row.wall_s is None else f"{row.wall_s:.0f}" if row.wall_s >= 10 else f"{row.wall_s:.1f}",
        "" if row.state == "complete" else Text(row.state),
    ]


def reasons(answer: Answer, *, most: int | None = MOST_REASONS) -> list[RenderableType]:
    """Why configurations are not complete, or lost a seed; one line each."""
    said = [
        indented(f"#{row.trials[-1]} {label(row.params)}: {row.state}, {printable(row.reason)}")
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


def _value(row: Row, answer: Answer) -> str:
    return mean_and_spread(row.mean, row.spread, answer.metric)
