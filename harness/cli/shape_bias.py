"""`harness shape-bias`: the shape bias of a network on cue-conflict images."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness.analysis.network_forms import NETWORKS, NetworkForm, NetworkUse
from harness.cli.arguments import (
    Subparsers,
    add_command,
    add_json_option,
    add_network_options,
    named_network,
    print_json,
    print_view,
    resolution_of,
)

UNTRAINED = (
    "The shape bias of random weights means nothing: take trained ones, such as `harness weights import` writes."
)
USE = NetworkUse(
    NETWORKS - {NetworkForm.PRESET, NetworkForm.SPEC},
    {NetworkForm.PRESET: UNTRAINED, NetworkForm.SPEC: UNTRAINED},
    note="here not a preset or a network file, which have no trained weights",
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "measure the shape bias of an ImageNet-1K network on images whose shape and texture disagree"
    parser = add_command(commands, "shape-bias", about)
    add_network_options(parser, USE)
    stimuli = "a folder of images with names such as cat1-bicycle3.png: the shape first, then the texture"
    parser.add_argument("--stimuli", metavar="FOLDER", type=Path, required=True, help=stimuli)
    parser.add_argument("--resolution", type=int, metavar="N", help="side of the images (default: as published)")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print the share of decisions by shape, overall and per class."""
    from harness.analysis.networks import load_network
    from harness.measures.cue_conflict import classify_stimuli
    from harness.models.spec.published import resolutions
    from harness.report.shape_bias import cue_conflict_values, cue_conflict_view

    network = load_network(named_network(args, USE))
    decisions = classify_stimuli(network, args.stimuli, resolution_of(args) or resolutions(network.spec)[0])
    return print_json(cue_conflict_values(decisions)) if args.json else print_view(cue_conflict_view(decisions))
