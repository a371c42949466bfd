"""`harness calibrate`: find the proxy that decides a study's claims for the least computing."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import STUDY, Subparsers, add_command, add_worker_options, print_view, run_options, scale
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.cli.study_run import RunOptions
    from harness.search.calibration import Calibration, CalibrationResult

NO_RECIPE = 1
"""Exit code of a calibration that recommends no recipe."""
MARKDOWN_FILE, JSON_FILE = "calibration.md", "calibration.json"


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_command(
        commands,
        "calibrate",
        "find the proxy that decides a study's claims for the least computing",
        details="Trains the arms of the claims under changes of the proxy (the key `calibrate` of the file, or a "
        "default set), on seeds that no claim uses, more seeds for the better half; prints effect over spread and the "
        "expected core-minutes to a decision for each, and the recipe to paste. Called again, it resumes.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help=STUDY)
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder of all studies; calibrations have a database of their own in it, in calibrations/STUDY "
        "(default: results)",
    )
    parser.add_argument("--quick", action="store_true", help="calibrate the quick profile of the file")
    add_worker_options(parser)
    how = parser.add_argument_group("calibration")
    how.add_argument(
        "--hours",
        type=scale,
        metavar="H",
        help="core-hours of training, earlier calls included, instead of those of the file (default: no limit)",
    )
    how.add_argument(
        "--dry-run", action="store_true", help="list the candidates, their runs and the estimated time; write nothing"
    )
    how.add_argument(
        "--output", type=Path, metavar="DIR", help="write the tables as Markdown and JSON into this folder"
    )
    how.add_argument("--quiet", action="store_true", help="print only the results")
    return parser


def run(args: Namespace) -> int:
    """Train the candidates and print what they come to; with `--dry-run`, print what would be trained."""
    from harness.cli.calibration_run import calibrate, open_calibration
    from harness.config.calibration_candidates import plan_calibration
    from harness.config.study_file import load_study
    from harness.executors.interrupt import EXIT_CODE
    from harness.report.calibration import calibration_view
    from harness.search.calibration import calibration_workspace
    from harness.system.command_line import resume_command

    if args.output is not None and args.output.exists() and not args.output.is_dir():
        raise UserError("`--output` must be a folder", value=str(args.output))
    file = load_study(args.file, is_quick=args.quick)
    options = run_options(args, calibration_workspace(args.results, file.study.study))
    calibration = open_calibration(plan_calibration(file), options, args.hours)
    if args.dry_run:
        return _dry_run(calibration, options)
    try:
        result = calibrate(calibration, options, is_quiet=args.quiet)
    except KeyboardInterrupt:
        print(f"stopped; nothing is lost. To resume:\n  {resume_command()}", file=sys.stderr)
        return EXIT_CODE
    print_view(calibration_view(result))
    if args.output is not None:
        _write(args.output, result)
    return 0 if result.best is not None else NO_RECIPE


def _dry_run(calibration: "Calibration", options: "RunOptions") -> int:
    """Print the candidates with their runs in the first stage, and the largest number of runs."""
    from rich.console import Group
    from rich.text import Text

    from harness.analysis.formatting import format_duration, plural
    from harness.report.calibration import change_text
    from harness.report.console import plain_table

    study = calibration.plan.file.study
    workers = options.expected_workers(study)
    stages = calibration.plan.stages
    missing = calibration.missing_runs(stages[0])
    table = plain_table(("recipe", "study"), ("runs", "in store"))
    for recipe in calibration.recipes:
        total = stages[0] * len(recipe.networks)
        table.add_row(change_text(recipe), recipe.name, str(total), str(total - missing[recipe.name]))
    seconds = calibration.estimate_s(stages[0]) / (workers * study.resources.cpus)
    budget = "no budget" if calibration.budget_hours is None else f"a budget of {calibration.budget_hours:g} core-hours"
    heading = Text(study.study, style="bold")
    heading.append("  what would be compared; nothing is trained or written now", style="not bold")
    lines = (
        f"{plural(sum(missing.values()), 'run')} to train in the first stage, {plural(stages[0], 'seed')} each",
        f"then {', '.join(map(str, stages[1:])) or 'no more'} seeds for the better half each time; {budget}",
        f"about {format_duration(seconds)} for the first stage with {plural(workers, 'worker')}, a rough estimate",
    )
    return print_view(Group(heading, Text(), table, Text(), *map(Text, lines)))


def _write(folder: Path, result: "CalibrationResult") -> None:
    """Write the tables and values. Raises `UserError` if the folder cannot be written."""
    from harness.analysis.formatting import json_text
    from harness.report.calibration import calibration_markdown, calibration_values
    from harness.system.atomic_write import atomic_write_text

    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(folder / MARKDOWN_FILE, calibration_markdown(result))
        atomic_write_text(folder / JSON_FILE, json_text(calibration_values(result)))
    except OSError as error:
        raise UserError("`--output` must be a folder that can be written", value=str(folder)) from error
    print(f"written: {folder / MARKDOWN_FILE}, {folder / JSON_FILE}")
