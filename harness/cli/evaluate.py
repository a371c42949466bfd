"""`harness evaluate`: top-1 and top-5 of a network on validation images."""

import argparse
from argparse import ArgumentParser, Namespace

from harness.cli.arguments import (
    PRECISIONS,
    Subparsers,
    add_command,
    add_json_option,
    add_which_option,
    add_workspace_options,
    natural,
    positive,
    print_json,
    print_view,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """See `arguments.Command`."""
    about = "show a network validation images: top-1 and top-5, in training form, merged, or in both"
    parser = add_command(commands, "evaluate", about)
    network = "a preset, a network's file, a run's checkpoint, a file of weights, or the folder of a training"
    parser.add_argument("network", metavar="NETWORK", help=network)
    add_which_option(parser, default="best")
    data = "folder with a folder of images per class, or of CIFAR; or shapes (default: what it was validated on)"
    parser.add_argument("--data", metavar="DIR", help=data)
    ways = "how images are given their labels: by the names of their classes, or by their order (default: name)"
    parser.add_argument("--labels", choices=("name", "position"), default="name", help=ways)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--merged", action="store_true", help="evaluate the merged form")
    forms.add_argument("--both", action="store_true", help="evaluate both forms, and say how they differ")
    _add_preprocessing(
        parser.add_argument_group("how images are shown (default: as in its training; else as published)")
    )
    means = parser.add_argument_group("means")
    means.add_argument("--device", choices=("cpu", "cuda"), help="what computes (default: the GPU where there is one)")
    means.add_argument("--loaders", type=natural, metavar="N", help="processes that read images")
    add_workspace_options(parser)
    add_json_option(parser)
    return parser


def _add_preprocessing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--resolution", type=int, metavar="N", help="side of the images in pixels")
    group.add_argument("--crop", type=float, metavar="SHARE", help="side of the cut relative to the resized image's")
    modes = "the middle; or the whole image, squashed to a square or with a border"
    group.add_argument("--crop-mode", choices=("center", "squash", "border"), help=modes)
    group.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="how images are resized")
    group.add_argument("--mean", type=float, nargs="+", metavar="X", help="taken off each channel in [0, 1]")
    group.add_argument("--std", type=float, nargs="+", metavar="X", help="by what each channel is divided then")
    group.add_argument("--batch", type=positive, metavar="N", help="images at once")
    group.add_argument("--precision", choices=PRECISIONS, help="of the network's arithmetic")


def run(args: Namespace) -> int:
    """Print how accurate a network is."""
    from harness.cli.network_accuracy import evaluate
    from harness.report.evaluation import evaluation_values, evaluation_view

    accuracy = evaluate(args)
    return print_json(evaluation_values(accuracy)) if args.json else print_view(evaluation_view(accuracy))
