"""`harness presets`: list all presets with their cost and the published values."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import Subparsers, add_command, add_json_option, print_json, print_view, resolution_of


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_command(commands, "presets", "list all presets with their cost and the values of their papers")
    parser.add_argument("--resolution", type=int, metavar="N", help="side of the images (default: as published)")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print all presets."""
    from harness.report.network import presets_values, presets_view

    resolution = resolution_of(args)
    return print_json(presets_values(resolution)) if args.json else print_view(presets_view(resolution))
