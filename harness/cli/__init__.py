"""The command line: parses it, runs a command, and returns an exit code.

    0    done
    1    a study that ended without a complete configuration, a check that does not hold, or an error of the harness
    2    something that the caller can put right; one message on standard error
    130  ended by Ctrl-C or SIGTERM; a study goes on with the command that is printed

Modules that load slowly are imported by the commands, when they run.
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
"""As a shell says it of a program that SIGPIPE ended."""


def main(argv: Sequence[str] | None = None, *, run_name: str | None = None) -> int:
    """Run one command line (by default that of this process); returns its exit code.

    `run_name` is how the help calls the command `run`, where that has a script of its own.
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
    except Exception:
        traceback.print_exc()
        print(
            "\nerror: the harness failed, and should not have. What studies have recorded is safe: the same command "
            "goes on where it was.",
            file=sys.stderr,
        )
        return INTERNAL_ERROR


def _make_printable() -> None:
    """Let no text fail on a terminal that cannot show all of it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
