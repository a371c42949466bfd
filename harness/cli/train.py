"""`harness train`: a network at full scale, its cost and time first."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.cli.arguments import Subparsers, add_command, add_training_options, add_workspace_options, natural


def add_parser(commands: Subparsers) -> ArgumentParser:
    """See `arguments.Command`."""
    about = "train a network at full scale, with a recipe of the paper's; print its cost and time first"
    parser = add_command(commands, "train", about)
    network = (
        "best-of STUDY.yaml: its choices on its full-scale base; or a preset, a network's file, a run's checkpoint"
    )
    parser.add_argument("network", metavar="NETWORK", nargs="+", help=network)
    parser.add_argument("--trial", type=natural, metavar="N", help="of best-of: this trial instead of the best")
    parser.add_argument("--quick", action="store_true", help="of best-of: the file's quick profile")
    weights = "start from these weights, of this network; its last layer is made anew for other classes"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=weights)
    add_workspace_options(parser)
    add_training_options(parser)
    return parser


def run(args: Namespace) -> int:
    """Train a network at full scale."""
    from harness.cli.full_scale import train

    return train(args)
