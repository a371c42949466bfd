"""`harness train`: train a network at full scale, after printing its cost and estimated time."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.cli.arguments import Subparsers, add_command, add_training_options, add_workspace_options, natural


def add_parser(commands: Subparsers) -> ArgumentParser:
    """See `arguments.Command`."""
    about = "train a network at full scale with a recipe of the paper, after printing its cost and time"
    parser = add_command(commands, "train", about)
    network = (
        "best-of STUDY.yaml (the best choices of the study, on its full-scale base), a preset, such as replknet_31b, "
        "a network file, or the checkpoint of a run"
    )
    parser.add_argument("network", metavar="NETWORK", nargs="+", help=network)
    parser.add_argument("--trial", type=natural, metavar="N", help="with best-of: this trial instead of the best")
    parser.add_argument("--quick", action="store_true", help="with best-of: the quick profile of the study file")
    weights = "start from these weights of the same network; its last layer is initialized again for other classes"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=weights)
    add_workspace_options(parser)
    add_training_options(parser)
    return parser


def run(args: Namespace) -> int:
    """Train a network at full scale."""
    from harness.cli.full_scale import train

    return train(args)
