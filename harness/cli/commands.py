"""Table of all commands, and the parser of the command line."""

import argparse
import difflib
import re
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from harness.cli.arguments import add_version

COMMANDS = (
    "run",
    "status",
    "show",
    "best",
    "import",
    "effects",
    "trust",
    "presets",
    "dashboard",
    "schema",
    "reproduce",
    "power",
    "calibrate",
    "simulate",
    "replay",
    "aa",
    "plot",
    "verify",
    "weights",
    "export",
    "erf",
    "kernels",
    "shape-bias",
    "train",
    "recipes",
    "downstream",
    "evaluate",
    "bench",
    "completion",
)
"""Names of the commands, and of their modules, in the order of `harness --help`; see `command_module`."""


class CommandParser(argparse.ArgumentParser):
    """Argument parser that suggests a correction for a mistyped command, choice or option."""

    def error(self, message: str) -> NoReturn:
        """Print usage, the message and a suggestion; exits with code 2."""
        super().error(message + _suggestion(message, _options(self)))


def command_module(name: str) -> ModuleType:
    """The module of a command: its `add_parser` adds the parser, and its `run` executes it and returns the exit code.

    `run` raises `UserError` for what the caller can correct.
    """
    return import_module(f"harness.cli.{name.replace('-', '_')}")


def build_parser(run_name: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of the command line; `run_name` is the name of the command `run` in its help."""
    parser = CommandParser(
        prog="harness",
        description="Architecture studies of large-kernel networks: a study file describes what to compare, `harness "
        "run` trains it and prints the results. `harness COMMAND --help` explains a command.",
    )
    add_version(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = command_module(name)
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
