"""`harness erf`: compare the effective receptive fields of networks, as a table and as heat maps."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.cli.arguments import (
    Subparsers,
    add_command,
    add_json_option,
    add_network_options,
    network_query,
    positive,
    print_json,
    print_view,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "compare the effective receptive fields of networks"
    parser = add_command(commands, "erf", about)
    add_network_options(parser, several=True)
    parser.add_argument("--images", type=positive, default=32, metavar="N", help="number of images (default: 32)")
    parser.add_argument(
        "--resolution", type=int, metavar="N", help="side of the images (default: 4 times the training resolution)"
    )
    data = "a folder of images, or shapes (default: the validation images of the run, else shapes)"
    parser.add_argument("--data", metavar="FOLDER", help=data)
    parser.add_argument("--output", type=Path, metavar="DIR", help="draw heat maps (PNG) into this folder")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print the receptive fields, and draw them."""
    from harness.analysis.networks import load_network, resolve_networks
    from harness.measures.erf_comparison import compare_fields
    from harness.report.plots.heat_maps import plot_field, plot_fields
    from harness.report.plots.style import file_names
    from harness.report.receptive_field import fields_values, fields_view

    networks = [load_network(network) for network in resolve_networks(args.networks, network_query(args))]
    fields = list(compare_fields(networks, images=args.images, resolution=args.resolution, data=args.data))
    if args.output is not None:
        for field, name in zip(fields, file_names("erf", [network.name for network in networks]), strict=True):
            plot_field(args.output / name, field)
            print(f"written: {args.output / name}", file=sys.stderr)
        if len(fields) > 1:
            plot_fields(args.output / "erf.png", fields)
            print(f"written: {args.output / 'erf.png'}", file=sys.stderr)
    return print_json(fields_values(fields)) if args.json else print_view(fields_view(fields))
