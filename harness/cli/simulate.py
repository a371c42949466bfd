"""`harness simulate`: how a search would have done, replayed on the recorded curves of a whole grid."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import (
    Subparsers,
    add_json_option,
    add_study_command,
    positive,
    print_json,
    print_view,
    workspace_of,
)

if TYPE_CHECKING:
    from harness.analysis.curve_table import CurveTable
    from harness.config.space import Space
    from harness.config.study_file import StudyFile
    from harness.search.rehearsal import Progress

WORKERS, REPETITIONS, SHARE = 4, 50, 0.2


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_study_command(
        commands,
        "simulate",
        "compare ways to search a space, replayed on recorded curves; nothing is trained",
        details="Samplers, pruners, numbers of seeds and races search a grid whose runs are all recorded, in simulated "
        "time: regret against computing, median and quartiles of many repetitions. See docs/simulate.md.",
    )
    parser.add_argument(
        "--table",
        type=Path,
        metavar="TABLE",
        help="file with the recorded curves (default: the runs of the study, or its table in the results folder)",
    )
    parser.add_argument("--record", type=Path, metavar="TABLE", help="write the study's curves as a table, and end")
    parser.add_argument(
        "--policies",
        nargs="+",
        metavar="P",
        help="SAMPLER+PRUNER+SEEDS, as tpe+successive_halving+1, or with a race for up to 3 seeds tpe+none+1-3; "
        "`file`: the keys `search` of FILE; `first_epoch`: one epoch of many networks, then the best of them to the "
        "end. The others are compared with the first",
    )
    parser.add_argument(
        "--workers", type=positive, default=WORKERS, metavar="W", help=f"simulated workers (default: {WORKERS})"
    )
    parser.add_argument(
        "--repetitions", type=positive, default=REPETITIONS, metavar="R", help=f"per policy (default: {REPETITIONS})"
    )
    parser.add_argument(
        "--budget",
        type=_share,
        default=SHARE,
        metavar="S",
        help=f"share of the full grid's epochs that each search may use (default: {SHARE:g})",
    )
    parser.add_argument(
        "--processes", type=positive, metavar="N", help="processes that simulate (default: one for each processor)"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also draw the regret against computing")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Write a table, or compare the policies on one."""
    from harness.config.study_file import load_study

    file = load_study(args.file, is_quick=args.quick)
    if args.record is not None:
        return _record(args, file)
    return _compare(args, file)


def _record(args: Namespace, file: "StudyFile") -> int:
    from harness.analysis.curve_table import write_table

    table, _ = _stored_table(args, file)
    size = write_table(table, args.record)
    print(f"written: {args.record} ({table.size}, {size / 1e3:,.0f} kB)")
    return 0


def _compare(args: Namespace, file: "StudyFile") -> int:
    from harness.config.policies import default_policies, read_policies
    from harness.config.sampler_checks import require_dense
    from harness.report.simulation import simulation_values, simulation_view
    from harness.search.rehearsal import rehearse
    from harness.search.simulation import Rehearsal
    from harness.system.machine import available_cpus

    table, space, source = _table(args, file)
    rehearsal = Rehearsal.of(table, space, file.study.objectives, workers=args.workers, share=args.budget)
    policies = read_policies(file, args.policies or default_policies(file), rehearsal.budget)
    for policy in policies:
        if policy.file is not None:
            require_dense(policy.study, space, file.document)
    with _progress(is_shown=not args.json) as progress:
        processes = args.processes or available_cpus()
        result = rehearse(rehearsal, policies, args.repetitions, processes=processes, progress=progress)
    print(f"curves: {source}", file=sys.stderr)
    if args.plot is not None:
        from harness.report.plots.simulation import plot_simulation

        plot_simulation(args.plot, result)
        print(f"written: {args.plot}", file=sys.stderr)
    return print_json(simulation_values(result)) if args.json else print_view(simulation_view(result))


def _table(args: Namespace, file: "StudyFile") -> "tuple[CurveTable, Space, str]":
    """The curves to replay, the space on their data, and where they are from: a file, or the runs of the study."""
    from harness.analysis.curve_table import read_table, table_path
    from harness.errors import NotFound, StudyError

    if args.table is not None:
        return *_read(args.table, file, read_table(args.table)), str(args.table)
    recorded = table_path(args.results, file.study.study)
    try:
        table, space = _stored_table(args, file)
        return table, space, f"the runs of {file.study.study}"
    except (NotFound, StudyError):
        if not recorded.is_file():
            raise
    return *_read(recorded, file, read_table(recorded)), str(recorded)


def _read(path: Path, file: "StudyFile", table: "CurveTable") -> "tuple[CurveTable, Space]":
    from harness.analysis.table_recording import require_replayable
    from harness.config.study_file import build_space

    space = build_space(file, classes=table.classes, channels=table.channels, data=table.data)
    require_replayable(file, table, space, str(path))
    return table, space


def _stored_table(args: Namespace, file: "StudyFile") -> "tuple[CurveTable, Space]":
    from harness.analysis.study_reader import open_space
    from harness.analysis.table_recording import record_table, require_curves
    from harness.storage import Store

    workspace = workspace_of(args)
    require_curves(file)
    space = open_space(file, workspace.data_cache)
    with Store.open(workspace.database, read_only=True) as store:
        return record_table(file, space, store), space


@contextmanager
def _progress(*, is_shown: bool) -> "Iterator[Progress]":
    """Shows, in a terminal, how many repetitions are simulated."""
    from harness.report.console import is_live, make_console, make_status_line

    console = make_console()
    if not (is_shown and is_live(console)):
        yield lambda *_: None
        return
    with make_status_line(console, is_live=True) as line:
        yield lambda name, done, total: line.update(f"{name}: {done} of {total} repetitions")


def _share(text: str) -> float:
    """A share above 0 and up to 1."""
    share = float(text)
    if not 0 < share <= 1:
        raise ArgumentTypeError(f"must be above 0 and at most 1, but got {text}")
    return share
