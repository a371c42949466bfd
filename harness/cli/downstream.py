"""`harness downstream`: train a network with a head on another task un-merged, then merge and evaluate it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from harness.analysis.network_forms import NetworkUse
from harness.cli.arguments import (
    Subparsers,
    add_command,
    add_network_options,
    add_training_options,
    positive,
    scale,
)

USE = NetworkUse(
    note="presets and network files have random weights; with --evaluate-only, weights or a folder that this command "
    "has written"
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "train a network with a head for segmentation or detection, then merge and evaluate it"
    parser = add_command(commands, "downstream", about)
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", dest="task", required=True)
    for name, (about, add_own) in TASKS.items():
        task = add_command(tasks, name, about)
        _add_common(task)
        add_own(task)
    return parser


def run(args: Namespace) -> int:
    """Train a network on another task, or evaluate one that was trained."""
    from harness.cli.full_scale_dense import downstream

    return downstream(args)


def _add_common(task: ArgumentParser) -> None:
    """Add the arguments that all tasks have."""
    add_network_options(task, USE)
    add_training_options(task)
    only = task.add_argument_group("evaluation")
    only.add_argument(
        "--evaluate-only", action="store_true", help="evaluate weights that this command has written; train nothing"
    )
    only.add_argument("--json", action="store_true", help="with --evaluate-only: print JSON")


def _add_segment(task: ArgumentParser) -> None:
    counted = task.add_argument_group("iteration-based recipes")
    counted.add_argument(
        "--iterations", type=positive, metavar="N", help="number of iterations, instead of the recipe's"
    )
    counted.add_argument("--validate-every", type=positive, metavar="N", help="iterations between two validations")
    views = task.add_argument_group("inference with --evaluate-only (default: as in the recipe)")
    ways = views.add_mutually_exclusive_group()
    ways.add_argument("--whole", action="store_true", help="on whole images")
    ways.add_argument(
        "--slide",
        type=positive,
        nargs=2,
        metavar=("SIDE", "STRIDE"),
        help="with a sliding window; its side and stride in pixels",
    )
    views.add_argument(
        "--scales", type=scale, nargs="+", metavar="S", help="at each of these scales; predictions are averaged"
    )
    views.add_argument("--flip", action="store_true", help="also on mirrored images; predictions are averaged")


def _add_detect(task: ArgumentParser) -> None:
    views = task.add_argument_group("inference with --evaluate-only (default: as in the recipe)")
    views.add_argument("--short", type=positive, metavar="N", help="shorter side of the resized images, in pixels")
    views.add_argument("--longest", type=positive, metavar="N", help="maximum of their longer side, in pixels")


TASKS: dict[str, tuple[str, Callable[[ArgumentParser], None]]] = {
    "segment": ("semantic segmentation of Cityscapes, ADE20K or shapes", _add_segment),
    "detect": ("object detection, with boxes and masks, of data in COCO's format or shapes", _add_detect),
}
"""Help text of each task, and the function that adds its own options."""
