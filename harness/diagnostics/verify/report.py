"""The results of `harness verify`: a table per subject, the verdicts of all claims, and the totals."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.analysis.claims import ANALYSES
from harness.analysis.formatting import DASH, format_duration, format_metric, join_words, plural, printable
from harness.diagnostics.verify.findings import ClaimRow, Finding, Line, Section
from harness.report.claims import VERDICT_STYLES, format_interval, format_p
from harness.report.console import indented, plain_table

HOLDS, FAILS, EMPTY = "✓", "✗", "·"
FAILED_MARK = "†"
"""Mark after a verdict of an earlier environment."""
MAX_FAILED_SHOWN = 12
"""Number of failed findings of a check that are shown."""
MARK_STYLES = {HOLDS: "green", FAILS: "bold red", EMPTY: "dim"}


def section_view(section: Section) -> RenderableType:
    """A subject: one line per check, each followed by its findings that do not hold."""
    table = plain_table()
    table.show_header = False
    table.add_column(no_wrap=True)
    for style in (None, None, None, "dim"):
        table.add_column(style=style)
    for line in section.lines:
        _add_line(table, line)
    return Group(_heading(section.name, f"{section.about}, {format_duration(section.wall_s)}"), table, Text())


def verdicts_view(rows: Sequence[ClaimRow]) -> RenderableType:
    """Every recorded claim with its verdict, and the studies whose runs cannot be read."""
    table = plain_table(("study", "claim", "verdict"), ("effect", "95 % interval", "n", "p"))
    for name in ("unit", "paper", "device"):
        table.add_column(name)
    for row in rows:
        if row.fault is None:
            table.add_row(*_verdict(row))
    faults = [Text(f"{FAILS} {row.study}: {printable(row.fault)}", style="red") for row in rows if row.fault]
    environment_notes = [
        Text(f"  {row.study}, {row.name}: other environments: {printable(row.environments)}", style="dim")
        for row in rows
        if row.environments
    ]
    about = f"{plural(len(rows), 'recorded claim')}; a contradicted one is a finding, not a fault"
    noises = Counter(row.noise for row in rows if row.noise)
    notes = [Text(f"{plural(n, 'claim')}: {noise}", style="dim") for noise, n in noises.items()]
    return Group(_heading("claims", about), table, *environment_notes, *faults, *notes, Text(), *_records(rows))


def _records(rows: Sequence[ClaimRow]) -> Iterator[RenderableType]:
    """For each stored study: its file, its conditions, and whether it can be checked again here."""
    marks = sorted({row.environment for row in rows if row.environment})
    yield from (Text(f"{FAILED_MARK} {printable(mark)}", style="yellow") for mark in marks)
    for source, group in groupby((row for row in rows if row.check), key=lambda row: row.source):
        kept = list(group)
        yield Text(kept[0].study, style="bold").append(f"  stored in {printable(source)}", style="not bold dim")
        yield indented(f"recorded: {printable(kept[0].conditions)}")
        yield indented(f"can be checked again here: {printable(kept[0].check)}")
        for row in kept:
            if row.compared:
                yield indented(f"{row.name}: {printable(row.compared)}")
    if marks or any(row.check for row in rows):
        yield Text()


def sum_view(sections: Sequence[Section], wall_s: float, conditions: str) -> RenderableType:
    """The numbers of findings that hold and do not hold, with the conditions."""
    if not sections:
        return Text("no check was requested", style="bold").append(
            f"  {format_duration(wall_s)}, {conditions}", style="not bold dim"
        )
    failed = sum(section.failed for section in sections)
    held = sum(section.holding for section in sections)
    broken = [section.name for section in sections if section.failed]
    output = f"{plural(held, 'check')} hold{'s' if held == 1 else ''}, {failed:,} do{'es' if failed == 1 else ''} not"
    where = f" ({join_words(broken)})" if broken else ""
    style = "bold red" if failed else "bold"
    return Text(f"{output}{where}", style=style).append(
        f"  {format_duration(wall_s)}, {conditions}", style="not bold dim"
    )


def verify_values(
    sections: Sequence[Section], claims: Sequence[ClaimRow] | None, wall_s: float, conditions: str
) -> dict[str, Any]:
    """The results for JSON, with all findings; `claims` is null if they were not requested."""
    return {
        "holds": sum(section.holding for section in sections),
        "fails": sum(section.failed for section in sections),
        "wall_s": round(wall_s, 3),
        "conditions": conditions,
        "subjects": [_section_values(section) for section in sections],
        "claims": None if claims is None else [asdict(row) for row in claims],
    }


def _heading(name: str, about: str) -> Text:
    return Text(name, style="bold").append(f"  {about}", style="not bold dim")


def _add_line(table: Table, line: Line) -> None:
    if not line.findings:
        table.add_row(_mark(EMPTY), Text(line.title), "", Text("nothing to check on this machine", style="dim"), "")
        return
    expected, measured = _summary(line.findings)
    table.add_row(
        _mark(FAILS if line.failed else HOLDS), Text(line.title), expected, measured, Text(_sources(line.findings))
    )
    if len(line.findings) == 1:
        return
    for finding in line.failed[:MAX_FAILED_SHOWN]:
        subject, *values = _printed(finding)
        table.add_row("", Text(f"  {subject}", style="red"), *values, Text(finding.source))
    if left := len(line.failed[MAX_FAILED_SHOWN:]):
        table.add_row("", Text(f"  and {left} more", style="red"), "", "", "")


def _summary(findings: Sequence[Finding]) -> tuple[str, str]:
    """The expected and the found value of a single finding; for several, a short summary of both."""
    if len(findings) == 1:
        _, expected, measured = _printed(findings[0])
        return expected, measured
    if all(finding.is_error for finding in findings):
        return _errors(findings)
    held = sum(finding.holds for finding in findings)
    return f"{len(findings):,} to agree", "all do" if held == len(findings) else f"{held:,} do"


def _errors(findings: Sequence[Finding]) -> tuple[str, str]:
    """The bound and the largest error; if bounds differ, the largest error relative to its own bound."""
    bounds = sorted({finding.tolerance for finding in findings})
    parts = [float(finding.found) / finding.tolerance for finding in findings]
    largest = max(parts, key=lambda part: (part != part, part))
    if len(bounds) == 1:
        return f"{len(findings):,} within {bounds[0]:.0e}", f"up to {largest * bounds[0]:.0e}"
    return f"{len(findings):,} within {bounds[0]:.0e} to {bounds[-1]:.0e}", f"up to {largest:.1%} of that"


def _sources(findings: Sequence[Finding]) -> str:
    """The first two sources of the expected values, and the number of others."""
    sources = list(dict.fromkeys(finding.source for finding in findings))
    more = [f"and {len(sources) - 2} more"] if len(sources) > 2 else []
    return "; ".join([*sources[:2], *more])


def _printed(finding: Finding) -> tuple[str, str, str]:
    """The name, the expected and the found value of a finding, as text."""
    if finding.is_error:
        return finding.what, f"within {finding.tolerance:.0e}", _number(finding.found, "{:.1e}")
    bound = f" ± {finding.tolerance:g}" if finding.tolerance else ""
    return finding.what, f"{_number(finding.expected)}{bound}", _number(finding.found)


def _number(value: float | str, form: str = "{:.10g}") -> str:
    if isinstance(value, str):
        return printable(value)
    return f"{value:,}" if isinstance(value, int) else form.format(value)


def _mark(mark: str) -> Text:
    return Text(mark, style=MARK_STYLES[mark])


def _verdict(row: ClaimRow) -> Iterator[str | Text]:
    yield row.study
    yield Text(row.name if row.pairing == "seed" else f"{row.name}, {ANALYSES[row.pairing]}")
    verdict = f"at {row.limit}" if row.limit else row.verdict
    yield Text(f"{verdict} {FAILED_MARK}" if row.environment else verdict, style=VERDICT_STYLES.get(row.verdict, ""))
    yield format_metric(row.effect, row.unit)
    yield format_interval(row.low, row.high, row.unit)
    yield str(row.n)
    yield format_p(row.p)
    yield Text(row.unit)
    yield Text(row.paper or DASH)
    yield Text(row.device)


def _section_values(section: Section) -> dict[str, Any]:
    return {
        "subject": section.name,
        "about": section.about,
        "wall_s": round(section.wall_s, 3),
        "checks": [
            {
                "check": line.title,
                "holds": not line.failed,
                "findings": [asdict(finding) | {"holds": finding.holds} for finding in line.findings],
            }
            for line in section.lines
        ],
    }
