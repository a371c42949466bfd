"""`harness kernels`: how the weights of a network's large kernels are distributed, before and after merging."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.cli.arguments import (
    Subparsers,
    add_command,
    add_json_option,
    add_network_options,
    named_network,
    print_json,
    print_view,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "show how the weights of large kernels are distributed, before and after merging"
    parser = add_command(commands, "kernels", about)
    add_network_options(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="draw heat maps (PNG) into this folder")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print the distribution of the weights, and draw it with `--output`."""
    from harness.analysis.networks import load_network
    from harness.measures.kernel_weights import large_kernels
    from harness.report.kernel_weights import kernels_values, kernels_view
    from harness.report.plots.heat_maps import plot_kernels
    from harness.report.plots.style import file_names
    from harness.system.device_slot import computing

    network = load_network(named_network(args))
    with computing():
        kernels = list(large_kernels(network.model))
    if args.output is not None:
        path = args.output / file_names("kernels", [network.name])[0]
        plot_kernels(path, network, kernels)
        print(f"written: {path}", file=sys.stderr)
    return print_json(kernels_values(network, kernels)) if args.json else print_view(kernels_view(network, kernels))
