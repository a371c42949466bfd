"""`harness run`: train a study while showing its progress, then print its results."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import Subparsers, add_study_command, add_version, positive
from harness.executors import EXECUTORS


def add_parser(commands: Subparsers) -> ArgumentParser:
    """See `arguments.Command`."""
    parser = add_study_command(commands, "run", "train a study and print its results")
    add_version(parser)
    workers = parser.add_argument_group("workers")
    workers.add_argument(
        "--executor",
        choices=tuple(EXECUTORS),
        default="ray",
        help="train in Ray workers, or inline in this process (default: ray)",
    )
    workers.add_argument(
        "--workers", type=positive, metavar="N", help="number of workers (default: as many as fit on the machine)"
    )
    workers.add_argument(
        "--ray-address", metavar="ADDRESS", help="address of a running Ray cluster, such as host:6379 or auto"
    )
    how = parser.add_argument_group("training")
    how.add_argument(
        "--dry-run", action="store_true", help="list what would be trained, its cost and estimated time; write nothing"
    )
    how.add_argument(
        "--reuse",
        choices=("any", "same"),
        default="any",
        help="reuse completed runs of any environment, or only of the same environment (code, libraries, processor, "
        "threads, device), and train the others again; times of other environments are never reused (default: any)",
    )
    how.add_argument(
        "--fresh", action="store_true", help="delete the trials of this study, and its runs that no other study uses"
    )
    how.add_argument("--quiet", action="store_true", help="print only the results")
    return parser


def run(args: Namespace) -> int:
    """Train a study and print its results; with `--dry-run`, print what would be trained."""
    from harness.cli.study_run import run_study

    return run_study(args)
