"""`harness evaluate`: top-1 and top-5 accuracy of a network on validation images."""

import argparse
from argparse import ArgumentParser, Namespace

from harness.cli.arguments import (
    PRECISIONS,
    Subparsers,
    add_command,
    add_json_option,
    add_network_options,
    add_which_option,
    natural,
    positive,
    print_json,
    print_view,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "evaluate a network on validation images: top-1 and top-5 in training form, merged, or both"
    parser = add_command(commands, "evaluate", about)
    add_network_options(parser)
    add_which_option(parser, default="best")
    data = (
        "a folder with one folder of images per class, a folder of CIFAR, or shapes "
        "(default: the images on which the network was validated)"
    )
    parser.add_argument("--data", metavar="DIR", help=data)
    ways = "match the classes of the images by name or by position (default: name)"
    parser.add_argument("--labels", choices=("name", "position"), default="name", help=ways)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--merged", action="store_true", help="evaluate the merged form")
    forms.add_argument("--both", action="store_true", help="evaluate both forms and compare them")
    _add_preprocessing(parser.add_argument_group("preprocessing (default: as in its training, else as published)"))
    means = parser.add_argument_group("resources")
    means.add_argument("--device", choices=("cpu", "cuda"), help="device (default: the GPU if there is one)")
    means.add_argument("--loaders", type=natural, metavar="N", help="number of data-loading processes")
    add_json_option(parser)
    return parser


def _add_preprocessing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--resolution", type=int, metavar="N", help="side of the images in pixels")
    group.add_argument("--crop", type=float, metavar="SHARE", help="side of the crop relative to the resized image")
    modes = "crop the center, or take the whole image, squashed to a square or padded with a border"
    group.add_argument("--crop-mode", choices=("center", "squash", "border"), help=modes)
    group.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="interpolation for resizing")
    group.add_argument("--mean", type=float, nargs="+", metavar="X", help="mean of each channel, for images in [0, 1]")
    group.add_argument("--std", type=float, nargs="+", metavar="X", help="standard deviation of each channel")
    group.add_argument("--batch", type=positive, metavar="N", help="batch size")
    group.add_argument("--precision", choices=PRECISIONS, help="numerical precision of the network")


def run(args: Namespace) -> int:
    """Print the accuracy of a network."""
    from harness.cli.network_accuracy import evaluate
    from harness.report.evaluation import evaluation_values, evaluation_view

    accuracy = evaluate(args)
    return print_json(evaluation_values(accuracy)) if args.json else print_view(evaluation_view(accuracy))
