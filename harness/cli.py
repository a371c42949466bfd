"""The door: parses the command line, calls a verb, and turns what comes of it into an exit code.

    0    done
    1    a study that ended without a complete configuration, or an error of the harness itself
    2    something that the caller can put right; one message on standard error
    130  ended by Ctrl-C or SIGTERM; a study goes on with the command that is printed

Nothing heavy is imported here: a verb imports what it needs.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from harness import __version__
from harness.errors import UserError

USER_ERROR = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130
PIPE_CLOSED = 141
"""As a shell says it of a program that SIGPIPE ended."""
BENCHED = ("help", "start", "driver", "proxies", "memory")
"""What `harness bench` measures."""


def main(argv: Sequence[str] | None = None, *, run_name: str | None = None) -> int:
    """Run one command line (by default that of this process); gives its exit code.

    `run_name` is what the help calls the verb `run`, where that has a door of its own.
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


def build_parser(run_name: str | None = None) -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    parser = argparse.ArgumentParser(
        prog="harness", description="Architecture studies of large-kernel networks: a YAML file in, an answer out."
    )
    _add_version(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_run(verbs, run_name)
    status = _add_verb(verbs, "status", "show where a study stands, also while another process drives it")
    show = _add_verb(verbs, "show", "show all configurations of a study, or one trial from close up")
    show.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="the number of a trial, from the column #")
    best = _add_verb(verbs, "best", "print the winner's network as YAML, to be the base of another study")
    for listing in (status, show, best):
        listing.add_argument("--json", action="store_true", help="print JSON")
    dashboard = _add_verb(verbs, "dashboard", "show a study in Optuna's dashboard, on this machine only")
    dashboard.add_argument(
        "--port", type=_port, default=8080, metavar="N", help="port to listen on; 0 for any (default: 8080)"
    )
    schema = verbs.add_parser("schema", help="print the JSON schema of study files, for editors")
    schema.set_defaults(call=_verb("schema"))
    _add_bench(verbs)
    return parser


Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_run(verbs: Verbs, name: str | None) -> None:
    run = _add_verb(verbs, "run", "train what a study needs, and print its answer")
    run.prog = name or run.prog
    _add_version(run)
    workers = run.add_argument_group("workers")
    workers.add_argument(
        "--executor", choices=("ray", "inline"), default="ray", help="who trains (default: ray; inline: this process)"
    )
    workers.add_argument(
        "--workers", type=_positive, metavar="N", help="runs at a time (default: as many as the machine has room for)"
    )
    workers.add_argument("--ray-address", metavar="ADDRESS", help="a Ray cluster that is running, as host:6379 or auto")
    how = run.add_argument_group("how")
    how.add_argument(
        "--dry-run", action="store_true", help="list what would be trained, its cost and time; write nothing"
    )
    how.add_argument("--fresh", action="store_true", help="forget this study's trials, and its runs that no other has")
    how.add_argument("--quiet", action="store_true", help="print the answer only")


def _add_bench(verbs: Verbs) -> None:
    about = "measure what the harness itself costs on this machine, against its targets"
    bench = verbs.add_parser("bench", help=about, description=f"{about[0].upper()}{about[1:]}. Takes ten minutes.")
    bench.add_argument("--quick", action="store_true", help="few repeats, short studies; writes nothing by default")
    bench.add_argument(
        "--only",
        action="append",
        choices=BENCHED,
        help="measure this alone (may be repeated); writes nothing by default",
    )
    bench.add_argument("--output", type=Path, metavar="DIR", help="folder for the table (default: results/bench)")
    bench.set_defaults(call=_bench)


def _add_verb(verbs: Verbs, name: str, about: str) -> argparse.ArgumentParser:
    """A verb on a study."""
    verb = verbs.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
    verb.add_argument("file", metavar="FILE", type=Path, help="a study file, as search_spaces/kernel_size.yaml")
    verb.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="folder of all studies (default: results)"
    )
    verb.add_argument("--storage", metavar="URL", help="database (default: sqlite, studies.db in the results folder)")
    verb.set_defaults(call=_verb(name))
    return verb


def _verb(name: str) -> Callable[[argparse.Namespace], int]:
    """The function of `harness.commands` for a verb, imported when it is called."""

    def call(args: argparse.Namespace) -> int:
        from harness import commands

        return commands.VERBS[name](args)

    return call


def _bench(args: argparse.Namespace) -> int:
    from harness.bench import bench

    bench(args.only or (), args.output, is_quick=args.quick)
    return 0


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"harness {__version__}")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {number}")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, but got {number}")
    return number


def _make_printable() -> None:
    """Let no text fail on a terminal that cannot show all of it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    raise SystemExit(main())
