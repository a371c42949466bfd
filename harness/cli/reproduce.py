"""`harness reproduce`: train a recorded run again and compare the two bitwise."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import (
    Subparsers,
    add_json_option,
    add_study_command,
    print_json,
    print_view,
    workspace_of,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_study_command(
        commands,
        "reproduce",
        "train a recorded run again and compare the two bitwise",
        file="a study file, or a summary.json or the folder that contains it",
        details="Prints `same bits`; or `not the same environment`, what differs, and the difference of the values; or "
        "SAME ENVIRONMENT AND OTHER BITS, the only outcome with exit code 1. The study is not changed.",
    )
    parser.add_argument(
        "which", metavar="TRIAL|RUN", nargs="?", help="number of a trial, or id of a run (default: the best trial)"
    )
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Train the run again and print the comparison; returns 1 for other bits in the same environment."""
    from harness.diagnostics.reproduce import EXIT_CODES, reproduce, reproduction_values, reproduction_view

    comparison = reproduce(args.file, workspace_of(args), args.which, is_quick=args.quick)
    if args.json:
        print_json(reproduction_values(comparison))
    else:
        print_view(reproduction_view(comparison))
    return EXIT_CODES[comparison.outcome]
