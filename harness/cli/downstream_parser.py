"""The verb `downstream` and its tasks."""

import argparse
from collections.abc import Callable
from pathlib import Path

from harness.cli.arguments import Verbs, add_place, natural, positive, scale, verb
from harness.cli.train_parser import PRECISIONS, add_workers


def add_downstream(verbs: Verbs) -> None:
    """`downstream segment` and `downstream detect`."""
    about = "train a network with a head on another task, un-merged; merge it last, and judge it"
    downstream = verbs.add_parser("downstream", help=about, description=f"{about[0].upper()}{about[1:]}.")
    tasks = downstream.add_subparsers(title="tasks", metavar="TASK", dest="task", required=True)
    for name, (what, add_own) in TASKS.items():
        task = tasks.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        _add_common(task)
        add_own(task)
        task.set_defaults(call=verb("downstream"))


def _add_common(task: argparse.ArgumentParser) -> None:
    """What every task has."""
    network = (
        "a preset or a network's file (random weights), a run's checkpoint, a file of weights, or the folder of a "
        "training at full scale; with --evaluate-only what such a command has written"
    )
    task.add_argument("network", metavar="NETWORK", help=network)
    add_place(task)
    how = task.add_argument_group("how")
    how.add_argument("--recipe", metavar="RECIPE", help="one of `harness recipes`, or a file")
    how.add_argument("--data", type=Path, metavar="DIR", help="folder of the images, as the recipe describes it")
    how.add_argument("--epochs", type=positive, metavar="N", help="in place of the recipe's")
    how.add_argument("--precision", choices=PRECISIONS, help="in place of the recipe's")
    how.add_argument("--micro-batch", type=positive, metavar="N", help="most images at once in a worker, likewise")
    how.add_argument("--seed", type=natural, metavar="N", help="in place of the recipe's")
    how.add_argument(
        "--dry-run", action="store_true", help="print what would be trained, also without the images; train nothing"
    )
    how.add_argument("--fresh", action="store_true", help="forget what this training has left, and begin anew")
    how.add_argument("--evaluate-only", action="store_true", help="judge weights that this verb has written")
    how.add_argument("--json", action="store_true", help="of --evaluate-only: print JSON")
    add_workers(task)


def _add_segment(task: argparse.ArgumentParser) -> None:
    counted = task.add_argument_group("of recipes that count iterations")
    counted.add_argument("--iterations", type=positive, metavar="N", help="in place of the recipe's")
    counted.add_argument("--validate-every", type=positive, metavar="N", help="iterations between two validations")
    looks = task.add_argument_group("how --evaluate-only looks at images (default: as the recipe)")
    ways = looks.add_mutually_exclusive_group()
    ways.add_argument("--whole", action="store_true", help="at the whole image")
    ways.add_argument(
        "--slide", type=positive, nargs=2, metavar=("SIDE", "STRIDE"), help="through a sliding window, in pixels"
    )
    looks.add_argument(
        "--scales", type=scale, nargs="+", metavar="S", help="at each of these scales; their mean counts"
    )
    looks.add_argument("--flip", action="store_true", help="at mirrored images, too")


def _add_detect(task: argparse.ArgumentParser) -> None:
    looks = task.add_argument_group("how --evaluate-only looks at images (default: as the recipe)")
    looks.add_argument("--short", type=positive, metavar="N", help="at this shorter side, in pixels")
    looks.add_argument("--longest", type=positive, metavar="N", help="where the longer side is no longer than this")


TASKS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "segment": ("say of every pixel what it shows: Cityscapes, ADE20K, shapes", _add_segment),
    "detect": ("find figures, with boxes and masks: data in COCO's format, shapes", _add_detect),
}
"""What each task is for, and its own options."""
