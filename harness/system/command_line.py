"""The command line of this process, and command lines that messages suggest to the user."""

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def resume_command() -> str:
    """The command line of this process without `--fresh`: running it again resumes."""
    script = Path(sys.argv[0]).name
    rest = [without_password(argument) for argument in sys.argv[1:] if argument != "--fresh"]
    if script == "run_study.py":
        return shlex.join([sys.orig_argv[0], sys.argv[0], *rest])
    return shlex.join([*program_name(), *rest])


def without_password(text: str) -> str:
    """A URL, or any other text, with its password replaced by `***`: printed text may end up in a log."""
    return re.sub(r"(://[^/:@]*:)[^/@]+@", r"\1***@", text)


def command_line(name: str, file: Path, options: Sequence[str] = (), *more: str) -> str:
    """The command line of a command on a study, as the user types it in this terminal."""
    return shlex.join([*program_name(), name, str(file), *more, *options])


def short_path(path: Path) -> Path:
    """The path relative to the working directory if it is inside it, else unchanged."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def program_name() -> list[str]:
    """How to call `harness` here: by its name if the shell finds it, else by its path, else with `python -m`."""
    script = Path(sys.executable).with_name("harness")
    on_path = shutil.which("harness")
    if on_path and script.exists() and Path(on_path).samefile(script):
        return ["harness"]
    if script.exists():
        return [str(short_path(script))]
    return [str(short_path(Path(sys.executable))), "-m", "harness"]
