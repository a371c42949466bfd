"""`harness downstream`: a network with a head on another task, trained un-merged, merged last, and evaluated."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from harness.cli.arguments import (
    Subparsers,
    add_command,
    add_training_options,
    add_workspace_options,
    positive,
    scale,
)


def add_parser(commands: Subparsers) -> ArgumentParser:
    """See `arguments.Command`."""
    about = "train a network with a head on another task, un-merged; merge it last, and judge it"
    parser = add_command(commands, "downstream", about)
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", dest="task", required=True)
    for name, (about, add_own) in TASKS.items():
        task = add_command(tasks, name, about)
        _add_common(task)
        add_own(task)
    return parser


def run(args: Namespace) -> int:
    """Train a network on another task, or evaluate one that was."""
    from harness.cli.full_scale_dense import downstream

    return downstream(args)


def _add_common(task: ArgumentParser) -> None:
    """What every task has."""
    network = (
        "a preset or a network's file (random weights), a run's checkpoint, a file of weights, or the folder of a "
        "training at full scale; with --evaluate-only what such a command has written"
    )
    task.add_argument("network", metavar="NETWORK", help=network)
    add_workspace_options(task)
    add_training_options(task)
    only = task.add_argument_group("evaluation alone")
    only.add_argument("--evaluate-only", action="store_true", help="judge weights that this command has written")
    only.add_argument("--json", action="store_true", help="of --evaluate-only: print JSON")


def _add_segment(task: ArgumentParser) -> None:
    counted = task.add_argument_group("of recipes that count iterations")
    counted.add_argument("--iterations", type=positive, metavar="N", help="in place of the recipe's")
    counted.add_argument("--validate-every", type=positive, metavar="N", help="iterations between two validations")
    views = task.add_argument_group("how --evaluate-only looks at images (default: as the recipe)")
    ways = views.add_mutually_exclusive_group()
    ways.add_argument("--whole", action="store_true", help="at the whole image")
    ways.add_argument(
        "--slide", type=positive, nargs=2, metavar=("SIDE", "STRIDE"), help="through a sliding window, in pixels"
    )
    views.add_argument(
        "--scales", type=scale, nargs="+", metavar="S", help="at each of these scales; their mean counts"
    )
    views.add_argument("--flip", action="store_true", help="at mirrored images, too")


def _add_detect(task: ArgumentParser) -> None:
    views = task.add_argument_group("how --evaluate-only looks at images (default: as the recipe)")
    views.add_argument("--short", type=positive, metavar="N", help="at this shorter side, in pixels")
    views.add_argument("--longest", type=positive, metavar="N", help="where the longer side is no longer than this")


TASKS: dict[str, tuple[str, Callable[[ArgumentParser], None]]] = {
    "segment": ("say of every pixel what it shows: Cityscapes, ADE20K, shapes", _add_segment),
    "detect": ("find figures, with boxes and masks: data in COCO's format, shapes", _add_detect),
}
"""What each task is for, and its own options."""
