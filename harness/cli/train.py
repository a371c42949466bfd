"""`harness train`: train a network at full scale, after printing its cost and estimated time."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.analysis.network_forms import NETWORKS, NetworkForm, NetworkUse
from harness.cli.arguments import Subparsers, add_command, add_network_options, add_training_options

USE = NetworkUse(
    NETWORKS - {NetworkForm.TRAINING, NetworkForm.WEIGHTS},
    {
        NetworkForm.TRAINING: "Give its network, and its weights to start from them: `{0}/network.yaml --weights "
        "{0}/best.safetensors`.",
        NetworkForm.WEIGHTS: "Give its network, and the weights to start from them: `NETWORK --weights {0}`.",
    },
    note="without its weights; best-of on the study's full-scale base; here not a training or a weights file, which "
    "`--weights` takes",
    is_full_scale=True,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "train a network at full scale with a recipe of the paper, after printing its cost and time"
    parser = add_command(commands, "train", about)
    add_network_options(parser, USE)
    weights = "start from these weights of the same network; its last layer is initialized again for other classes"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=weights)
    add_training_options(parser)
    return parser


def run(args: Namespace) -> int:
    """Train a network at full scale."""
    from harness.cli.full_scale import train

    return train(args, USE)
