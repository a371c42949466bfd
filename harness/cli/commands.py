"""Table of all commands, and the parser of the command line."""

import argparse
import difflib
import re
from types import ModuleType
from typing import NoReturn

from harness.cli import (
    aa,
    bench,
    best,
    completion,
    dashboard,
    downstream,
    erf,
    evaluate,
    export,
    kernels,
    plot,
    presets,
    recipes,
    reproduce,
    run,
    schema,
    shape_bias,
    show,
    status,
    train,
    verify,
    weights,
)
from harness.cli.arguments import add_version

COMMANDS: dict[str, ModuleType] = {
    "run": run,
    "status": status,
    "show": show,
    "best": best,
    "presets": presets,
    "dashboard": dashboard,
    "schema": schema,
    "reproduce": reproduce,
    "aa": aa,
    "plot": plot,
    "verify": verify,
    "weights": weights,
    "export": export,
    "erf": erf,
    "kernels": kernels,
    "shape-bias": shape_bias,
    "train": train,
    "recipes": recipes,
    "downstream": downstream,
    "evaluate": evaluate,
    "bench": bench,
    "completion": completion,
}
"""The module of each command; see `arguments.Command`. `harness --help` lists them in this order."""


class CommandParser(argparse.ArgumentParser):
    """Argument parser that suggests a correction for a mistyped command, choice or option."""

    def error(self, message: str) -> NoReturn:
        """Print usage, the message and a suggestion; exits with code 2."""
        super().error(message + _suggestion(message, _options(self)))


def build_parser(run_name: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of the command line; `run_name` is the name of the command `run` in its help."""
    parser = CommandParser(
        prog="harness",
        description="Architecture studies of large-kernel networks: a study file describes what to compare, `harness "
        "run` trains it and prints the results. `harness COMMAND --help` explains a command.",
    )
    add_version(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = module.add_parser(commands)
        command.set_defaults(call=module.run)
        if name == "run" and run_name is not None:
            command.prog = run_name
    return parser


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser and of its commands: argparse does not report which command an unknown one belongs to."""
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    commands = [command for action in subparsers for command in action.choices.values()]
    return [*parser._option_string_actions, *(option for command in commands for option in _options(command))]


def _suggestion(message: str, options: list[str]) -> str:
    """`. Did you mean ...?` if the message names a value that is close to a valid one, else an empty string."""
    if chosen := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
        value, valid = chosen[1], re.findall(r"'([^']*)'", chosen[2])
    elif unknown := re.search(r"unrecognized arguments: .*?(--[a-z-]+)", message):
        value, valid = unknown[1], options
    else:
        return ""
    close = difflib.get_close_matches(value, valid, n=1)
    return f". Did you mean `{close[0]}`?" if close else ""
