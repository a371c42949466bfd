"""`harness import`: copy the study of another database into this one."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Subparsers, add_study_command, print_next, study_options, workspace_of

if TYPE_CHECKING:
    from harness.storage import Store


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_study_command(
        commands,
        "import",
        "copy the study of another database into this one",
        details="Its trials, runs, learning curves, metrics and environments, and the checkpoints that are on this "
        "machine. If anything contradicts what is here, nothing is written.",
    )
    about = "the other database: a results folder, an SQLite file, or the URL of an SQLite or PostgreSQL database"
    parser.add_argument("--from", dest="source", metavar="DATABASE", required=True, help=about)
    return parser


def run(args: Namespace) -> int:
    """Copy the study, and print what was copied."""
    from contextlib import ExitStack

    from harness.analysis.formatting import plural
    from harness.config.study_file import load_study
    from harness.errors import NotFound, StoreError
    from harness.search.session import study_changes
    from harness.storage import Store
    from harness.storage.import_study import check_import, import_study
    from harness.system.command_line import command_line

    file, workspace = load_study(args.file, is_quick=args.quick), workspace_of(args)
    name = file.study.study
    with ExitStack() as opened:
        source = opened.enter_context(_open_source(args.source))
        study_changes(file, source)
        try:
            with Store.open(workspace.database, read_only=True) as here:
                if here.url == source.url:
                    rule = "`--from` must name another database than the one that is imported into"
                    raise StoreError(rule, value=source.location, remedy="Give the other one with `--results`.")
                study_changes(file, here)
                check_import(source, here, name)
        except NotFound as error:
            if error.place == source.location:
                raise
            check_import(source, None, name)
        target = opened.enter_context(Store.open(workspace.database))
        imported = import_study(source, target, name, workspace.results)
        place = target.location
    if imported.is_new:
        print(f"{name}: {plural(imported.trials, 'trial')} copied into {place}")
    else:
        print(f"{name}: its trials are in {place} already")
    print(
        f"  {plural(imported.runs, 'run')} copied, {imported.known_runs} known; {plural(imported.files, 'file')} copied"
    )
    print_next([(command_line("run", args.file, study_options(args)), "continue the study here")])
    return 0


def _open_source(source: str) -> "Store":
    """Open the other database. Raises `NotFound`, which names the option, if it is not there."""
    from harness.errors import NotFound
    from harness.storage import Store

    try:
        return Store.open(_database(source), read_only=True)
    except NotFound as error:
        rule = "`--from` must name a results folder or a database with a study"
        remedy = "Give the folder that `harness run` wrote there (by default `results`), its `studies.db`, or a URL."
        raise NotFound(rule, value=source, remedy=remedy) from error


def _database(source: str) -> str | Path:
    """The database that is meant: a results folder has it under its usual name."""
    from harness.storage.workspace import DATABASE

    path = Path(source)
    return path / DATABASE if "://" not in source and path.is_dir() else source
