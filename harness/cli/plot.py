"""`harness plot`: plot the claims of a study from its `summary.json`."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.cli.arguments import Subparsers, add_command


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "plot the claims of a study from its summary.json, as `claims.png` in the same folder"
    parser = add_command(commands, "plot", about)
    parser.add_argument(
        "summaries", metavar="SUMMARY", type=Path, nargs="+", help="a summary.json, or the folder that contains it"
    )
    return parser


def run(args: Namespace) -> int:
    """Plot the claims of stored summaries, each plot in the folder of its summary."""
    from harness.analysis.summary import CLAIMS_PLOT_FILE
    from harness.report.claims import SUMMARY_FILE, read_claims_summary
    from harness.report.plots.claims import plot_claims

    for path in args.summaries:
        summary = path / SUMMARY_FILE if path.is_dir() else path
        picture = summary.with_name(CLAIMS_PLOT_FILE)
        plot_claims(picture, read_claims_summary(summary))
        print(f"written: {picture}", file=sys.stderr)
    return 0
