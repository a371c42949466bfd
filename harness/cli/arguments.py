"""What the verbs' grammars share: where studies are kept, how a verb is called, and kinds of numbers."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_verb(
    verbs: Verbs, name: str, about: str, *, file: str = "a study file, as search_spaces/kernel_size.yaml"
) -> argparse.ArgumentParser:
    """A verb on a study."""
    parser = verbs.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    parser.add_argument("file", metavar="FILE", type=Path, help=file)
    add_place(parser)
    parser.add_argument("--quick", action="store_true", help="the file's quick profile, a study of its own")
    parser.set_defaults(call=verb(name))
    return parser


def add_place(verb: argparse.ArgumentParser) -> None:
    """Where studies are kept."""
    verb.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="folder of all studies (default: results)"
    )
    verb.add_argument("--storage", metavar="URL", help="database (default: sqlite, studies.db in the results folder)")


def verb(name: str) -> Callable[[argparse.Namespace], int]:
    """The function of `harness.cli.studies` for a verb, imported when it is called."""

    def call(args: argparse.Namespace) -> int:
        from harness.cli import studies

        return studies.VERBS[name](args)

    return call


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {number}")
    return number


def natural(text: str) -> int:
    """A whole number from 0 on."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, but got {number}")
    return number


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
