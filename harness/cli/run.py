"""`harness run`: train what a study needs while showing it, then print its answer."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import Subparsers, add_study_command, add_version, positive


def add_parser(commands: Subparsers) -> ArgumentParser:
    """See `arguments.Command`."""
    parser = add_study_command(commands, "run", "train what a study needs, and print its answer")
    add_version(parser)
    workers = parser.add_argument_group("workers")
    workers.add_argument(
        "--executor", choices=("ray", "inline"), default="ray", help="who trains (default: ray; inline: this process)"
    )
    workers.add_argument(
        "--workers", type=positive, metavar="N", help="runs at a time (default: as many as the machine has room for)"
    )
    workers.add_argument("--ray-address", metavar="ADDRESS", help="a Ray cluster that is running, as host:6379 or auto")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--dry-run", action="store_true", help="list what would be trained, its cost and time; write nothing"
    )
    how.add_argument(
        "--reuse",
        choices=("any", "same"),
        default="any",
        help="runs to take that are there already: of any environment, or of one like this (code, libraries, "
        "processor, threads, device), the others being trained again; times are never taken from another "
        "(default: any)",
    )
    how.add_argument("--fresh", action="store_true", help="forget this study's trials, and its runs that no other has")
    how.add_argument("--quiet", action="store_true", help="print the answer only")
    return parser


def run(args: Namespace) -> int:
    """Train what a study needs, and print its answer; with `--dry-run`, what would be trained."""
    from harness.cli.study_run import run_study

    return run_study(args)
