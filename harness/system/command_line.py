"""How this program was called, and how its commands are typed again."""

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def resume_command() -> str:
    """The command that this process was started with, without `--fresh`: typed again, it goes on."""
    script = Path(sys.argv[0]).name
    rest = [without_password(argument) for argument in sys.argv[1:] if argument != "--fresh"]
    if script == "run_study.py":
        return shlex.join([sys.orig_argv[0], sys.argv[0], *rest])
    return shlex.join([*program_name(), *rest])


def without_password(text: str) -> str:
    """A URL, or any other text, with `***` for the password: what is printed may end in a log."""
    return re.sub(r"(://[^/:@]*:)[^/@]+@", r"\1***@", text)


def command_line(name: str, file: Path, options: Sequence[str] = (), *more: str) -> str:
    """A command on a study, to be typed in this terminal."""
    return shlex.join([*program_name(), name, str(file), *more, *options])


def short_path(path: Path) -> Path:
    """The path as it is typed in this folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def program_name() -> list[str]:
    """How `harness` is called here: by its name where the shell finds it, else by its path, else through Python."""
    script = Path(sys.executable).with_name("harness")
    found = shutil.which("harness")
    if found and script.exists() and Path(found).samefile(script):
        return ["harness"]
    program = script if script.exists() else Path(sys.executable)
    folder = Path.cwd()
    text = str(program.relative_to(folder)) if program.is_relative_to(folder) else str(program)
    return [text] if script.exists() else [text, "-m", "harness"]
