"""The command line: parses it, runs a command, and returns an exit code.

    0    done
    1    a study that ended without a complete configuration, a check that does not hold, or an error of the harness
    2    an error that the caller can correct; one message on standard error
    130  stopped by Ctrl-C or SIGTERM; the command that is printed resumes a study

Modules that load slowly are imported inside the commands.
"""

import os
import sys
import traceback
from collections.abc import Sequence

from harness.cli.commands import build_parser
from harness.errors import UserError

USER_ERROR = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130
PIPE_CLOSED = 141
"""The exit code that a shell reports for a program ended by SIGPIPE."""


def main(argv: Sequence[str] | None = None, *, run_name: str | None = None) -> int:
    """Run one command line (by default that of this process); returns its exit code.

    `run_name` is the name of the command `run` in its help, for a script that runs only this command.
    """
    _make_printable()
    args = build_parser(run_name).parse_args(argv)
    try:
        code = int(args.call(args))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception:  # an error that nothing else expects is a fault of the harness
        traceback.print_exc()
        print(
            "\nerror: the harness failed; this is a bug. Everything that studies have recorded is safe: the same "
            "command resumes where it stopped.",
            file=sys.stderr,
        )
        return INTERNAL_ERROR


def _make_printable() -> None:
    """Replace characters that the terminal cannot show, so that printing never fails."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
