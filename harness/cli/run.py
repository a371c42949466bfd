"""`harness run`: train a study while showing its progress, then print its results."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import (
    Subparsers,
    add_study_command,
    add_version,
    add_worker_options,
    print_next,
    print_view,
    run_options,
    study_options,
    workspace_of,
)

if TYPE_CHECKING:
    from harness.analysis.configuration_result import ConfigurationResult
    from harness.analysis.plan import TrialsDone
    from harness.analysis.results import StudyResults
    from harness.cli.study_run import CheckedStudy
    from harness.config.study_file import StudyFile
    from harness.search.events import EventView

DEFAULT_FULL_SCALE_RECIPE = "imagenet_300"
"""The recipe for a study that names a network at full scale but no recipe."""
NO_RESULT = 1
"""Exit code of a study that ended without a complete configuration."""


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_study_command(commands, "run", "train a study and print its results")
    add_version(parser)
    add_worker_options(parser)
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
    from dataclasses import replace

    from harness.cli.study_run import check_study, train_study
    from harness.config.study_file import load_study
    from harness.executors.interrupt import EXIT_CODE, Interrupt
    from harness.report.study import results_view
    from harness.system.command_line import resume_command

    options = replace(run_options(args, workspace_of(args)), reuse=args.reuse, is_fresh=args.fresh)
    study = check_study(load_study(args.file, is_quick=args.quick), options)
    if args.dry_run:
        return _dry_run(study)
    try:
        results = train_study(study, _view(study.file, is_quiet=args.quiet), Interrupt())
    except KeyboardInterrupt:
        print(f"stopped; nothing is lost. To resume:\n  {resume_command()}", file=sys.stderr)
        return EXIT_CODE
    print_view(results_view(results))
    _draw_claims(study.folder, results)
    print_next(_next_commands(args, results, study.file))
    return 0 if results.complete else NO_RESULT


def _dry_run(study: "CheckedStudy") -> int:
    """Print what would be trained, and on which data; reads the database if there is one."""
    from dataclasses import replace

    from harness.analysis.plan import TrialsDone, plan_study
    from harness.analysis.reuse import ReuseRule, study_environment
    from harness.config.study_growth import StudyChanges
    from harness.errors import NotFound
    from harness.report.plan import plan_view
    from harness.search.session import study_changes, trials_done
    from harness.storage import Store

    options, keys = study.options, study.file.study
    workers = options.expected_workers(keys)
    done = TrialsDone()
    try:
        with Store.open(options.workspace.database, read_only=True) as store:
            environment = study_environment(keys, is_cluster=options.is_cluster)
            rule = ReuseRule(keys, store, environment, options.reuse, options.is_cluster)
            growth = StudyChanges() if options.is_fresh else study_changes(study.file, store)
            has_trials = keys.search.sampler != "grid" and not options.is_fresh
            done = trials_done(store, keys) if has_trials else done
            planned = plan_study(
                keys,
                study.space,
                store,
                workers=workers,
                rule=rule,
                growth=growth,
                done=done,
                is_fresh=options.is_fresh,
            )
    except NotFound:
        planned = plan_study(keys, study.space, None, workers=workers)
    notes = (*study.file.notes, *planned.notes, *_enqueued_notes(study, done), *study.notes)
    return print_view(plan_view(replace(planned, notes=notes)))


def _enqueued_notes(study: "CheckedStudy", done: "TrialsDone") -> list[str]:
    """The configurations of `search.enqueue` that are tried next, and how many `search.trials` leaves out."""
    from harness.analysis.formatting import format_params, plural

    search = study.file.study.search
    listed = [each for each in study.enqueued if each.candidate.fingerprint not in done.seeds]
    most = len(listed) if search.trials is None else max(0, search.trials - done.trials)
    first = [f"{each.named} ({format_params(each.candidate.params)})" for each in listed[:most]]
    notes = [f"tried first: {'; '.join(first)}"] if first else []
    if listed[most:]:
        left = plural(len(listed[most:]), "configuration")
        notes.append(f"{left} of `search.enqueue` will not be tried, since `search.trials` is {search.trials}")
    return notes


def _view(file: "StudyFile", *, is_quiet: bool) -> "EventView":
    """The view for this output: quiet, live in a terminal, or a log."""
    from harness.analysis.study_reader import study_title
    from harness.report.console import is_live, make_console
    from harness.report.event_log import EventFormatter, LogView
    from harness.report.live import LiveState, LiveView
    from harness.search.events import EventView

    console, formatter = make_console(), EventFormatter.of(file.study)
    if is_quiet:
        return EventView()
    if not is_live(console):
        return LogView(formatter)
    after_training = "measuring" if file.study.proxy.transfer is None else "transfer"
    state = LiveState(
        *(file.study.study, study_title(file.text), file.study.objective, file.study.direction, formatter),
        after_training=after_training,
    )
    return LiveView(console, state)


def _draw_claims(folder: Path, results: "StudyResults") -> None:
    """Plot the claims next to the summary, unless the plot exists; a failure is printed and changes no result."""
    from harness.analysis.formatting import printable
    from harness.cli.study_run import draw_claims

    try:
        path = draw_claims(folder, results)
    except Exception as error:
        print(f"\nThe claims could not be drawn: {printable(str(error)) or type(error).__name__}", file=sys.stderr)
    else:
        if path is not None:
            print(f"\nThe claims as a picture: {path}")


def _next_commands(args: Namespace, results: "StudyResults", file: "StudyFile") -> list[tuple[str, str]]:
    """Suggested next commands, each with its purpose."""
    from harness.system.command_line import command_line

    options = study_options(args)
    commands = [(command_line("dashboard", args.file, options), "parameters and learning curves in a browser")]
    if results.best is None:
        return [(command_line("show", args.file, options), "the state of every configuration"), *commands]
    number = str(results.best.trials[0])
    return [
        (command_line("show", args.file, options, number), "the best network: cost by stage, curves, seeds"),
        (f"{command_line('best', args.file, options)} > best.yaml", "its spec, to be the `base` of the next study"),
        *full_scale_commands(file, results.best, options),
        *commands,
    ]


def full_scale_commands(
    file: "StudyFile", best: "ConfigurationResult", options: Sequence[str]
) -> list[tuple[str, str]]:
    """The command for the best network at full scale; none without a full-scale base that fits its choices."""
    from harness.analysis.network_forms import BEST_OF
    from harness.config.recipes.loading import load_classification_recipe
    from harness.config.study_file import full_scale_network
    from harness.data.image_sources import GENERATED_DATASETS
    from harness.errors import SpecError
    from harness.system.command_line import command_line

    full = file.study.full_scale
    if full is None:
        return []
    try:
        full_scale_network(file, best.params)
    except SpecError:
        return []
    name = full.recipe or DEFAULT_FULL_SCALE_RECIPE
    recipe = load_classification_recipe(name)
    images = [] if recipe.data.dataset in GENERATED_DATASETS else ["--data", "FOLDER"]
    weights = ["--weights", "FILE"] if recipe.needs_weights else []
    arguments = [str(file.path), "--recipe", name, *images, *weights, "--dry-run"]
    purpose = f"the best network at full scale: {recipe.about}; cost and time; without --dry-run it is trained"
    return [(command_line("train", Path(BEST_OF), options, *arguments), purpose)]
