"""What the commands share: their options, the kinds of numbers among these, and how results are printed.

The parsers are built for every `--help`, so modules that load slowly are imported inside functions, here and in the
commands' own files.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from harness import __version__
from harness.errors import UserError
from harness.training.full_scale.folder import WEIGHTS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from harness.storage.workspace import Workspace

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

STUDY = "a study file, as search_spaces/kernel_size.yaml"
NETWORK_HELP = (
    "a preset, as replknet_31b; a network's file; a run's checkpoint; a training's folder; or a file of weights"
)
PRECISIONS = ("float32", "bfloat16", "float16")
LEAST_SIDE, MOST_SIDE = 1, 4096
"""Of the images of a network, in pixels."""


class Command(Protocol):
    """A module of this package that is a command."""

    def add_parser(self, commands: Subparsers) -> argparse.ArgumentParser:
        """Add the command's parser, with its options."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Execute the command; returns the exit code. Raises `UserError` for what the caller can correct."""
        ...


# Parsers and options


def add_command(commands: Subparsers, name: str, about: str, *, details: str = "") -> argparse.ArgumentParser:
    """A command's parser; `about` is its line in the list of commands, and opens its own help."""
    description = f"{about[0].upper()}{about[1:]}.{details and f' {details}'}"
    return commands.add_parser(name, help=about, description=description)


def add_study_command(
    commands: Subparsers, name: str, about: str, *, file: str = STUDY, details: str = ""
) -> argparse.ArgumentParser:
    """The parser of a command on a study."""
    parser = add_command(commands, name, about, details=details)
    parser.add_argument("file", metavar="FILE", type=Path, help=file)
    add_workspace_options(parser)
    parser.add_argument("--quick", action="store_true", help="the file's quick profile, a study of its own")
    return parser


def add_version(parser: argparse.ArgumentParser) -> None:
    """The option `--version`."""
    parser.add_argument("--version", action="version", version=f"harness {__version__}")


def add_workspace_options(parser: argparse.ArgumentParser) -> None:
    """Where studies are kept."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="folder of all studies (default: results)"
    )
    parser.add_argument("--storage", metavar="URL", help="database (default: sqlite, studies.db in the results folder)")


def add_network_options(parser: argparse.ArgumentParser, *, several: bool = False, help: str = NETWORK_HELP) -> None:
    """The network, or several, and the database that knows its runs."""
    if several:
        parser.add_argument("networks", metavar="NETWORK", nargs="+", help=help)
    else:
        parser.add_argument("network", metavar="NETWORK", help=help)
    parser.add_argument("--storage", metavar="URL", help="database that knows the runs (default: beside their study)")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """The option `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_which_option(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Which of the weights in the folder of a training are meant."""
    which = "of a training's folder: the best epoch's weights, the last, or their moving average (default: best)"
    parser.add_argument("--which", choices=tuple(WEIGHTS), default=default, help=which)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """What all trainings at full scale take: recipe, images, changes of the recipe, and the processes that train."""
    how = parser.add_argument_group("how")
    how.add_argument("--recipe", metavar="RECIPE", help="one of `harness recipes`, or a file")
    how.add_argument("--data", type=Path, metavar="DIR", help="folder of the images, as the recipe describes it")
    how.add_argument("--epochs", type=positive, metavar="N", help="in place of the recipe's")
    how.add_argument("--precision", choices=PRECISIONS, help="in place of the recipe's")
    how.add_argument("--micro-batch", type=positive, metavar="N", help="most images at once in a worker, likewise")
    how.add_argument("--seed", type=natural, metavar="N", help="in place of the recipe's")
    how.add_argument(
        "--dry-run", action="store_true", help="print cost and time, also without the images; train nothing"
    )
    how.add_argument("--fresh", action="store_true", help="forget what this training has left, and begin anew")
    workers = parser.add_argument_group("workers")
    number = "processes that train together, with Ray Train (default: one for each GPU of this machine, else 1)"
    workers.add_argument("--workers", type=positive, metavar="N", help=number)
    workers.add_argument("--loaders", type=natural, metavar="N", help="processes that read images for each worker")
    workers.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="a Ray cluster that is running, as host:6379 or auto; it must see the folders",
    )


# Kinds of numbers


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """A whole number from 0 on."""
    return _at_least(0, text)


def odd(text: str) -> int:
    """An odd whole number from 1 on."""
    number = positive(text)
    if number % 2 == 0:
        raise argparse.ArgumentTypeError(f"must be odd, but got {number}")
    return number


def port(text: str) -> int:
    """The number of a port; 0 for any."""
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, but got {number}")
    return number


def scale(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text}")
    return number


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, but got {number}")
    return number


# Parsed arguments, and output


def workspace_of(args: argparse.Namespace) -> "Workspace":
    """Where the command line places studies."""
    from harness.storage.workspace import Workspace

    return Workspace(args.results, args.storage)


def study_options(args: argparse.Namespace) -> list[str]:
    """The given options that decide which study is meant and where studies are kept."""
    return [*(["--quick"] if args.quick else []), *workspace_of(args).options]


def resolution_of(args: argparse.Namespace) -> int | None:
    """The side of the images in pixels, if it is given. Raises `UserError` where no network could take it."""
    side: int | None = args.resolution
    if side is not None and not LEAST_SIDE <= side <= MOST_SIDE:
        raise UserError(
            f"`--resolution` must be from {LEAST_SIDE} to {MOST_SIDE}", value=side, remedy="The paper's are 224 to 384."
        )
    return side


def print_view(view: "RenderableType") -> int:
    """Print something made for people; returns exit code 0."""
    from harness.report.console import make_console

    make_console().print(view)
    return 0


def print_json(values: Any) -> int:
    """Print something made for programs; returns exit code 0."""
    from harness.report.summary import json_text

    print(json_text(values))
    return 0


def print_next(commands: Sequence[tuple[str, str]]) -> None:
    """Print commands that a person may want to type next, each below its purpose."""
    from harness.report.study import next_lines

    print("\n".join(next_lines(commands)))
