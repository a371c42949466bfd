"""The verb `verify`: make the checks and show each subject when it is done, then the claims; CI reads the exit code."""

import time
from argparse import Namespace
from collections.abc import Iterable, Sequence

from harness.cli.run import options_of
from harness.diagnostics.verify import ClaimRow, Section
from harness.diagnostics.verify.full_scale import claim_studies
from harness.diagnostics.verify.report import section_view, sum_view, verdicts_view, verify_values
from harness.report.console import make_console
from harness.report.study import next_lines
from harness.report.summary import json_text
from harness.system.command_line import near, verb

CLAIMS = "claims"
"""The subject that is no check: what the recorded studies say of their claims."""
ANY_STUDY = [("harness run STUDY.yaml", "judge the claims of a study file that has some, under its key `claims`")]
HOLDS, FAILS = 0, 1
"""Exit codes; a claim that is contradicted is a finding, and no fault."""


def verify(args: Namespace, recorded: Iterable[ClaimRow]) -> int:
    """Check what needs no training, and show the claims that are recorded."""
    from harness.diagnostics.verify.checks import CHECKS, conditions, sections

    start, wanted = time.perf_counter(), args.only or [*CHECKS, CLAIMS]
    claims = tuple(recorded) if CLAIMS in wanted else None
    made: list[Section] = []
    for section in sections([name for name in CHECKS if name in wanted], is_full=args.full):
        made.append(section)
        if not args.json:
            make_console().print(section_view(section))
    wall_s = time.perf_counter() - start
    if args.json:
        print(json_text(verify_values(made, claims, wall_s, conditions())))
    else:
        _show_claims(args, claims)
        make_console().print(sum_view(made, wall_s, conditions()))
    has_fault = any(row.fault for row in claims or ())
    return FAILS if has_fault or any(section.failed for section in made) else HOLDS


def _show_claims(args: Namespace, claims: Sequence[ClaimRow] | None) -> None:
    """The verdicts, or the commands that would give some."""
    if claims is None:
        return
    if claims:
        make_console().print(verdicts_view(claims))
        return
    print(f"claims  no claim study is recorded in {args.results}; these would give verdicts:")
    commands = [
        (verb("run", near(path), options_of(args)), f"judge the claims of {path.stem}") for path in claim_studies()
    ]
    print("\n".join([*next_lines(commands or ANY_STUDY), ""]))
