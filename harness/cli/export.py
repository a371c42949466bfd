"""`harness export`: write a network in formats of other programs, then load each file and compare its logits."""

import argparse
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.cli.arguments import (
    Subparsers,
    add_command,
    add_network_options,
    add_which_option,
    named_network,
    print_view,
    resolution_of,
)
from harness.export.formats import FORMATS

EXPORTS_FOLDER = Path("exports")
FAILED = 1


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "export a merged network with a model card; each file is loaded again and its logits are compared"
    parser = add_command(commands, "export", about)
    add_network_options(parser)
    parser.add_argument("--to", type=Path, metavar="DIR", help="new or empty folder (default: exports/NAME)")
    formats = (
        f"one or more of {', '.join(FORMATS)}, separated by spaces or commas (default: all that the network supports)"
    )
    parser.add_argument("--format", type=_formats, nargs="+", metavar="FORMAT", help=formats)
    side = "side of the images (default: as in its training, else as published)"
    parser.add_argument("--resolution", type=int, metavar="N", help=side)
    unmerged = "export the training form, with its small kernels and batch norms"
    parser.add_argument("--unmerged", action="store_true", help=unmerged)
    add_which_option(parser, default=None)
    return parser


def _formats(text: str) -> tuple[str, ...]:
    """Parse format names separated by commas."""
    names = tuple(name for name in text.split(",") if name)
    for name in names or (text,):
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(FORMATS)}, but got {name!r}")
    return names


def run(args: Namespace) -> int:
    """Write the network in all requested formats, or in none; returns 1 if a file computes other logits."""
    from harness.analysis.networks import load_network
    from harness.export.comparison import rows_table
    from harness.export.export import write_formats
    from harness.export.exportable import exportable
    from harness.export.formats import chosen_formats
    from harness.storage.load_network import WeightsOrigin

    network = load_network(named_network(args), which=args.which)
    product = exportable(network, args.storage, resolution_of(args), is_merged=not args.unmerged)
    names = None if args.format is None else [name for names in args.format for name in names]
    formats, notes = chosen_formats(product, names)
    folder = args.to or EXPORTS_FOLDER / network.name.replace("/", "-")
    if network.origin == WeightsOrigin.RANDOM:
        notes.append("the weights are random: the export is useful only for measuring speed")
    for note in notes:
        _print_progress(note)
    results = write_formats(product, formats, folder, tell=_print_progress)
    print_view(rows_table(results))
    faults = [result for result in results if result.error]
    for result in faults:
        print(f"error: {result.format} of {network.name} {result.error}", file=sys.stderr)
    if faults:
        print("Nothing was written.", file=sys.stderr)
        return FAILED
    print(f"written: {folder}")
    return 0


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
