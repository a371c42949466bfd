"""`harness completion`: print a shell script that completes commands, options and paths."""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from harness.cli.arguments import Subparsers, add_command

SHELLS = ("bash", "zsh", "tcsh")
FOLDERS = ("DIR", "FOLDER")
"""Metavars of arguments that take a folder."""


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_command(
        commands,
        "completion",
        "print a shell script that completes commands, options and paths",
        details='For bash, put `eval "$(harness completion bash)"` into ~/.bashrc; for zsh, write the script to a file '
        "`_harness` in a folder of $fpath. The script itself needs neither Python nor this program.",
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    return parser


def run(args: Namespace) -> int:
    """Print the script."""
    import shtab

    from harness.cli.commands import build_parser

    parser = build_parser()
    for action in _paths(parser):
        action.complete = shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0


def _paths(parser: ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and its commands that take a path, or a network or recipe that may be a path."""
    for action in parser._actions:
        if action.type is Path or action.metavar in (*FOLDERS, "NETWORK", "STUDY", "RECIPE"):
            yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from _paths(command)
