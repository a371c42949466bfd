"""The verbs that train at full scale."""

import argparse
from pathlib import Path

from harness.cli.arguments import Verbs, add_place, natural, positive, verb

PRECISIONS = ("float32", "bfloat16", "float16")


def add_trainings(verbs: Verbs) -> None:
    """`train` and `recipes`."""
    about = "train a network at full scale, with a recipe of the paper's; print its cost and time first"
    train = verbs.add_parser("train", help=about, description=f"{about[0].upper()}{about[1:]}.")
    network = (
        "best-of STUDY.yaml: its choices on its full-scale base; or a preset, a network's file, a run's checkpoint"
    )
    train.add_argument("network", metavar="NETWORK", nargs="+", help=network)
    train.add_argument("--trial", type=natural, metavar="N", help="of best-of: this trial instead of the best")
    train.add_argument("--quick", action="store_true", help="of best-of: the file's quick profile")
    add_place(train)
    how = train.add_argument_group("how")
    recipe = "one of `harness recipes`, or a file (default: what the study names)"
    how.add_argument("--recipe", metavar="RECIPE", help=recipe)
    how.add_argument("--data", type=Path, metavar="DIR", help="folder of the images, as the recipe describes it")
    weights = "start from these weights, of this network; its last layer is made anew for other classes"
    how.add_argument("--weights", type=Path, metavar="FILE", help=weights)
    how.add_argument("--epochs", type=positive, metavar="N", help="in place of the recipe's")
    how.add_argument("--precision", choices=PRECISIONS, help="in place of the recipe's")
    how.add_argument("--micro-batch", type=positive, metavar="N", help="most images at once in a worker, likewise")
    how.add_argument("--seed", type=natural, metavar="N", help="in place of the recipe's")
    how.add_argument(
        "--dry-run", action="store_true", help="print cost and time, also without the images; train nothing"
    )
    how.add_argument("--fresh", action="store_true", help="forget what this training has left, and begin anew")
    add_workers(train)
    train.set_defaults(call=verb("train"))
    about = "list the recipes for training at full scale and downstream, or print one of them"
    recipes = verbs.add_parser("recipes", help=about, description=f"{about[0].upper()}{about[1:]}.")
    recipes.add_argument("name", metavar="RECIPE", nargs="?", help="print this one, to be changed in a copy")
    recipes.set_defaults(call=verb("recipes"))


def add_workers(verb: argparse.ArgumentParser) -> None:
    """How many processes train together, and where."""
    workers = verb.add_argument_group("workers")
    number = "processes that train together, with Ray Train (default: one for each GPU of this machine, else 1)"
    workers.add_argument("--workers", type=positive, metavar="N", help=number)
    workers.add_argument("--loaders", type=natural, metavar="N", help="processes that read images for each worker")
    workers.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="a Ray cluster that is running, as host:6379 or auto; it must see the folders",
    )
