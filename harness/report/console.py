"""The terminal that the harness was called from: what it can show, how it is written to, and what was typed there."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

PIPE_WIDTH = 200
"""Columns where there is no terminal, so that tables in files and pipes are neither broken nor cut."""


class PlainConsole(Console):
    """A console that takes text as it is, and leaves a closed pipe to its caller."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise it again; rich would end the process."""
        raise BrokenPipeError


def make_console() -> Console:
    """The console on standard output."""
    console = PlainConsole(markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def is_live(console: Console) -> bool:
    """Whether the terminal can be drawn on."""
    return console.is_terminal and not console.is_dumb_terminal


def typed_again() -> str:
    """The command that this process was started with, without `--fresh`: typed again, it goes on."""
    script = Path(sys.argv[0]).name
    rest = [without_password(argument) for argument in sys.argv[1:] if argument != "--fresh"]
    if script == "run_study.py":
        return shlex.join([sys.orig_argv[0], sys.argv[0], *rest])
    return shlex.join([*own_command(), *rest])


def without_password(text: str) -> str:
    """A URL, or any other text, with `***` for the password: what is printed may end in a log."""
    return re.sub(r"(://[^/:@]*:)[^/@]+@", r"\1***@", text)


def verb(name: str, file: Path, options: Sequence[str] = (), *more: str) -> str:
    """A command on a study, to be typed in this terminal."""
    return shlex.join([*own_command(), name, str(file), *more, *options])


def near(path: Path) -> Path:
    """The path as it is typed in this folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def own_command() -> list[str]:
    """How `harness` is called here: by its name where the shell finds it, else by its path, else through Python."""
    script = Path(sys.executable).with_name("harness")
    found = shutil.which("harness")
    if found and script.exists() and Path(found).samefile(script):
        return ["harness"]
    program = script if script.exists() else Path(sys.executable)
    folder = Path.cwd()
    shown = str(program.relative_to(folder)) if program.is_relative_to(folder) else str(program)
    return [shown] if script.exists() else [shown, "-m", "harness"]
