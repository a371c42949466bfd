"""Shared by all commands: options, argument types, and functions that print results.

The parsers are built for every `--help`, so modules that load slowly are imported inside functions, here and in the
modules of the commands.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from harness import __version__
from harness.analysis.network_forms import ANY_NETWORK, NetworkUse
from harness.errors import UserError
from harness.executors import EXECUTORS
from harness.training.full_scale.folder import WEIGHTS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from harness.analysis.networks import NetworkQuery, NetworkRef
    from harness.cli.study_run import RunOptions
    from harness.storage.workspace import Workspace

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

STUDY = "a study file, such as search_spaces/kernel_size.yaml"
PRECISIONS = ("float32", "bfloat16", "float16")
LEAST_SIDE, MOST_SIDE = 1, 4096
"""Bounds on the side of a network's images, in pixels."""


# Parsers and options


def add_command(commands: Subparsers, name: str, about: str, *, details: str = "") -> argparse.ArgumentParser:
    """Add a command's parser; `about` is its line in the list of commands and the first sentence of its help."""
    description = f"{about[0].upper()}{about[1:]}.{details and f' {details}'}"
    return commands.add_parser(name, help=about, description=description)


def add_study_command(
    commands: Subparsers, name: str, about: str, *, file: str = STUDY, details: str = ""
) -> argparse.ArgumentParser:
    """Add the parser of a command that takes a study."""
    parser = add_command(commands, name, about, details=details)
    parser.add_argument("file", metavar="FILE", type=Path, help=file)
    add_workspace_options(parser)
    parser.add_argument(
        "--quick", action="store_true", help="use the quick profile of the file, which is a separate study"
    )
    return parser


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add the option `--version`."""
    parser.add_argument("--version", action="version", version=f"harness {__version__}")


def add_workspace_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the place where studies are stored."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="folder of all studies (default: results)"
    )
    parser.add_argument("--storage", metavar="URL", help="database (default: sqlite, studies.db in the results folder)")


def add_network_options(
    parser: argparse.ArgumentParser,
    use: NetworkUse = ANY_NETWORK,
    *,
    several: bool = False,
    second: tuple[str, str] = ("STUDY", "the study file after best-of"),
    has_quick: bool = True,
) -> None:
    """Add the argument for one or several networks, and the options that select a network; see `named_network`.

    `second` is the name and the help of the word after a single network. `has_quick` is False for a command whose own
    `--quick` means something else.
    """
    if several:
        parser.add_argument("networks", metavar="NETWORK", nargs="+", help=use.help)
    else:
        parser.add_argument("network", metavar="NETWORK", help=use.help)
        parser.add_argument("second", metavar=second[0], nargs="?", help=second[1])
    parser.add_argument("--trial", type=natural, metavar="N", help="with best-of: this trial instead of the best")
    if has_quick:
        help = "use the quick profile of the study file, which is a separate study"
        parser.add_argument("--quick", action="store_true", help=help)
    add_workspace_options(parser)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_which_option(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Add the option that selects one of the weights files in the folder of a training."""
    description = (
        "for the folder of a training: the weights of the best epoch, of the last epoch, or their moving average "
        "(default: best)"
    )
    parser.add_argument("--which", choices=tuple(WEIGHTS), default=default, help=description)


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the workers that train the runs of a study; see `run_options`."""
    workers = parser.add_argument_group("workers")
    workers.add_argument(
        "--executor",
        choices=tuple(EXECUTORS),
        default="ray",
        help="train in Ray workers, as trials of Ray Tune, or inline in this process (default: ray)",
    )
    add_workers_option(workers)
    workers.add_argument(
        "--ray-address", metavar="ADDRESS", help="address of a running Ray cluster, such as host:6379 or auto"
    )
    workers.add_argument(
        "--tune-config",
        metavar="FILE.py:NAME",
        help="a `ray.tune.RunConfig` for `--executor tune`: its callbacks, loggers and storage",
    )


def add_workers_option(parser: "argparse._ActionsContainer") -> None:
    """Add the option `--workers` of a command that trains runs."""
    parser.add_argument(
        "--workers",
        type=positive_or_auto,
        metavar="N",
        help="number of workers; auto, the default, is as many as fit, also on nodes that join a cluster later",
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all trainings at full scale: recipe, images, changes of the recipe, and workers."""
    how = parser.add_argument_group("training")
    how.add_argument("--recipe", metavar="RECIPE", help="a name from `harness recipes`, or a recipe file")
    how.add_argument("--data", type=Path, metavar="DIR", help="folder of the images, laid out as the recipe describes")
    how.add_argument("--epochs", type=positive, metavar="N", help="number of epochs, instead of the recipe's")
    how.add_argument("--precision", choices=PRECISIONS, help="numerical precision, instead of the recipe's")
    how.add_argument(
        "--micro-batch",
        type=positive,
        metavar="N",
        help="maximum number of images per forward pass of a worker, instead of the recipe's",
    )
    how.add_argument("--seed", type=natural, metavar="N", help="random seed, instead of the recipe's")
    how.add_argument(
        "--dry-run", action="store_true", help="print cost and estimated time, even without the images; train nothing"
    )
    how.add_argument("--fresh", action="store_true", help="delete the files of this training and start again")
    workers = parser.add_argument_group("workers")
    number = "number of workers; several use Ray Train (default: one for each GPU of this machine, else 1)"
    workers.add_argument("--workers", type=positive, metavar="N", help=number)
    workers.add_argument("--loaders", type=natural, metavar="N", help="data-loading processes of each worker")
    workers.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="address of a running Ray cluster, such as host:6379 or auto; it must have access to the folders",
    )


# Argument types


def positive(text: str) -> int:
    """An integer of at least 1."""
    return _at_least(1, text)


def positive_or_auto(text: str) -> int | None:
    """An integer of at least 1, or None for `auto`."""
    return None if text == "auto" else positive(text)


def natural(text: str) -> int:
    """An integer of at least 0."""
    return _at_least(0, text)


def odd(text: str) -> int:
    """An odd integer of at least 1."""
    number = positive(text)
    if number % 2 == 0:
        raise argparse.ArgumentTypeError(f"must be odd, but got {number}")
    return number


def port(text: str) -> int:
    """A port number; 0 for any free port."""
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, but got {number}")
    return number


def scale(text: str) -> float:
    """A finite number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text}")
    return number


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, but got {number}")
    return number


# Parsed arguments and output


def workspace_of(args: argparse.Namespace) -> "Workspace":
    """The workspace that the command line names."""
    from harness.storage.workspace import Workspace

    return Workspace(args.results, args.storage)


def run_options(args: argparse.Namespace, workspace: "Workspace") -> "RunOptions":
    """The options for training runs in this workspace, with the workers that the command line asks for."""
    from harness.cli.study_run import RunOptions

    return RunOptions(
        workspace=workspace,
        executor=args.executor,
        workers=args.workers,
        ray_address=args.ray_address,
        tune_config=args.tune_config,
    )


def study_options(args: argparse.Namespace) -> list[str]:
    """The options of this command line that select the study and the place where studies are stored."""
    return [*(["--quick"] if args.quick else []), *workspace_of(args).options]


def named_network(args: argparse.Namespace, use: NetworkUse = ANY_NETWORK) -> "NetworkRef":
    """The network that this command line names with one word, or with `best-of` and a study file."""
    from harness.analysis.networks import resolve_network

    words = [args.network] if args.second is None else [args.network, args.second]
    return resolve_network(words, network_query(args), use)


def network_query(args: argparse.Namespace, *, has_quick: bool = True) -> "NetworkQuery":
    """The options of this command line that select a network."""
    from harness.analysis.networks import NetworkQuery

    return NetworkQuery(workspace_of(args), has_quick and args.quick, args.trial)


def resolution_of(args: argparse.Namespace) -> int | None:
    """The side of the images in pixels, or None without the option. Raises `UserError` if it is out of range."""
    side: int | None = args.resolution
    if side is not None and not LEAST_SIDE <= side <= MOST_SIDE:
        raise UserError(
            f"`--resolution` must be from {LEAST_SIDE} to {MOST_SIDE}", value=side, remedy="The paper's are 224 to 384."
        )
    return side


def print_view(view: "RenderableType") -> int:
    """Print a view for people; returns exit code 0."""
    from harness.report.console import make_console

    make_console().print(view)
    return 0


def print_json(values: Any) -> int:
    """Print values as JSON for programs; returns exit code 0."""
    from harness.analysis.formatting import json_text

    print(json_text(values))
    return 0


def print_next(commands: Sequence[tuple[str, str]]) -> None:
    """Print suggested next commands, each below its purpose; a rich console would wrap or cut long lines."""
    print("\nNext")
    for command, purpose in commands:
        print(f"  # {purpose}\n  {command}")
