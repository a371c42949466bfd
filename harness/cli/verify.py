"""`harness verify`: run all checks that need no training, then show the verdicts of all recorded claims."""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cli.arguments import (
    Subparsers,
    add_command,
    add_json_option,
    add_workspace_options,
    print_json,
    print_next,
    print_view,
    study_options,
    workspace_of,
)

if TYPE_CHECKING:
    from harness.diagnostics.verify.findings import ClaimRow, Section

CLAIMS = "claims"
"""The subject without checks: the verdicts of the claims of recorded studies."""
SUBJECTS = ("counts", "closed_form", "merge", "operator", "specs", "full_scale", CLAIMS)
RUN_STUDY_COMMAND = [
    ("harness run STUDY.yaml", "evaluate the claims of a study file, which are under its key `claims`")
]
HOLDS, FAILS = 0, 1
"""Exit codes; a contradicted claim is a finding, not a fault."""


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_command(
        commands,
        "verify",
        "run all checks that need no training, then show the verdicts of all recorded claims",
        details="A check that fails, and a claim study whose runs cannot be read, give exit code 1; a claim that is "
        "contradicted is a finding, not a fault.",
    )
    parser.add_argument(
        "--only", choices=SUBJECTS, nargs="+", metavar="SUBJECT", help=f"one or more of {', '.join(SUBJECTS)}"
    )
    parser.add_argument(
        "--full", action="store_true", help="also run the slow checks: 31L and XL in float64, 8 GB of memory"
    )
    add_workspace_options(parser)
    add_json_option(parser)
    parser.set_defaults(quick=False)
    return parser


def run(args: Namespace) -> int:
    """Check each subject, showing it as soon as it is done, then show the claims."""
    from harness.diagnostics.verify.checks import CHECKS, run_checks, verification_conditions
    from harness.diagnostics.verify.recorded_claims import all_recorded_claims
    from harness.diagnostics.verify.report import section_view, sum_view, verify_values

    start, subjects = time.perf_counter(), args.only or [*CHECKS, CLAIMS]
    claims = tuple(all_recorded_claims(workspace_of(args))) if CLAIMS in subjects else None
    sections: list[Section] = []
    for section in run_checks([name for name in CHECKS if name in subjects], is_full=args.full):
        sections.append(section)
        if not args.json:
            print_view(section_view(section))
    wall_s = time.perf_counter() - start
    if args.json:
        print_json(verify_values(sections, claims, wall_s, verification_conditions()))
    else:
        _show_claims(args, claims)
        print_view(sum_view(sections, wall_s, verification_conditions()))
    has_fault = any(row.fault for row in claims or ())
    return FAILS if has_fault or any(section.failed for section in sections) else HOLDS


def _show_claims(args: Namespace, claims: "Sequence[ClaimRow] | None") -> None:
    """Print the verdicts; without any, the commands that would produce some."""
    from harness.diagnostics.verify.full_scale import claim_studies
    from harness.diagnostics.verify.report import verdicts_view
    from harness.system.command_line import command_line, short_path

    if claims is None:
        return
    if claims:
        print_view(verdicts_view(claims))
        return
    print(f"claims  no claim study is recorded in {args.results}; these commands would produce verdicts:")
    commands = [
        (command_line("run", short_path(path), study_options(args)), f"evaluate the claims of {path.stem}")
        for path in claim_studies()
    ]
    print_next(commands or RUN_STUDY_COMMAND)
    print()
