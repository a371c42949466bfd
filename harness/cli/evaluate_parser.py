"""The verb that says how accurate a network is."""

import argparse

from harness.cli.arguments import Verbs, add_place, natural, positive, verb
from harness.cli.train_parser import PRECISIONS
from harness.training.full_scale.folder import WEIGHTS


def add_evaluation(verbs: Verbs) -> None:
    """`evaluate`."""
    about = "show a network validation images: top-1 and top-5, in training form, merged, or in both"
    evaluate = verbs.add_parser("evaluate", help=about, description=f"{about[0].upper()}{about[1:]}.")
    network = "a preset, a network's file, a run's checkpoint, a file of weights, or the folder of a training"
    evaluate.add_argument("network", metavar="NETWORK", help=network)
    evaluate.add_argument(
        "--which",
        choices=tuple(WEIGHTS),
        default="best",
        help="of a training's folder: the best weights, the last ones, or the last moving average (default: best)",
    )
    data = "folder with a folder of images per class, or of CIFAR; or shapes (default: what it was validated on)"
    evaluate.add_argument("--data", metavar="DIR", help=data)
    ways = "how images are given their labels: by the names of their classes, or by their order (default: name)"
    evaluate.add_argument("--labels", choices=("name", "position"), default="name", help=ways)
    forms = evaluate.add_mutually_exclusive_group()
    forms.add_argument("--merged", action="store_true", help="evaluate the merged form")
    forms.add_argument("--both", action="store_true", help="evaluate both forms, and say how they differ")
    _add_viewing(evaluate.add_argument_group("how images are shown (default: as in its training; else as published)"))
    means = evaluate.add_argument_group("means")
    means.add_argument("--device", choices=("cpu", "cuda"), help="what computes (default: the GPU where there is one)")
    means.add_argument("--loaders", type=natural, metavar="N", help="processes that read images")
    add_place(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(call=verb("evaluate"))


def _add_viewing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--resolution", type=int, metavar="N", help="side of the images in pixels")
    group.add_argument("--crop", type=float, metavar="SHARE", help="side of the cut relative to the resized image's")
    modes = "the middle; or the whole image, squashed to a square or with a border"
    group.add_argument("--crop-mode", choices=("center", "squash", "border"), help=modes)
    group.add_argument("--interpolation", choices=("bilinear", "bicubic"), help="how images are resized")
    group.add_argument("--mean", type=float, nargs="+", metavar="X", help="taken off each channel in [0, 1]")
    group.add_argument("--std", type=float, nargs="+", metavar="X", help="by what each channel is divided then")
    group.add_argument("--batch", type=positive, metavar="N", help="images at once")
    group.add_argument("--precision", choices=PRECISIONS, help="of the network's arithmetic")
