"""The action of `harness run`: train a study while showing its progress, or show what would be trained."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from harness.analysis.claims import evaluate_claims
from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.formatting import plural, printable
from harness.analysis.network_forms import BEST_OF
from harness.analysis.plan import TrialsDone, plan_study
from harness.analysis.results import StudyResults, study_results
from harness.analysis.reuse import ReuseRule, study_environment
from harness.analysis.study_reader import open_space, study_size, study_title
from harness.cli.arguments import study_options, workspace_of
from harness.cli.interrupt import EXIT_CODE, Interrupt, InterruptibleExecutor
from harness.config.recipes.loading import load_classification_recipe
from harness.config.space import Space
from harness.config.study import Study
from harness.config.study_checks import check_device
from harness.config.study_file import StudyFile, full_scale_network, load_study
from harness.config.study_growth import StudyChanges
from harness.data.image_sources import GENERATED_DATASETS
from harness.errors import NotFound, SpecError, StudyError
from harness.executors import make_executor
from harness.executors.base import Executor, WorkerRequest
from harness.report.console import is_live, make_console
from harness.report.event_log import EventFormatter, EventView, LogView
from harness.report.live import LiveState, LiveView
from harness.report.plan import plan_view
from harness.report.study import next_lines, results_view
from harness.report.summary import CLAIMS_PLOT_FILE, has_summary, remove_summary, write_summary
from harness.search.events import TrialStarted
from harness.search.session import DrivenStudy, check_data, open_for_driving, same_data, study_changes, trials_done
from harness.storage import Store
from harness.system.command_line import command_line, resume_command, without_password
from harness.system.machine import available_cpus, has_gpu

DEFAULT_FULL_SCALE_RECIPE = "imagenet_300"
"""The recipe for a study that names a network at full scale but no recipe."""
NO_RESULT = 1
"""Exit code of a study that ended without a complete configuration."""


def run_study(args: Namespace) -> int:
    """Train a study and print its results; returns the exit code."""
    file, space, notes = check_study(args)
    if args.dry_run:
        return _dry_run(args, file, space, notes)
    try:
        results = _drive(args, file, space, notes)
    except KeyboardInterrupt:
        print(f"stopped; nothing is lost. To resume:\n  {resume_command()}", file=sys.stderr)
        return EXIT_CODE
    make_console().print(results_view(results))
    _draw_claims(workspace_of(args).folder(results.study), results)
    print("\n".join(next_lines(_next_commands(args, results, file))))
    return 0 if results.complete else NO_RESULT


def check_study(args: Namespace) -> tuple[StudyFile, Space, tuple[str, ...]]:
    """The study of a command line, its search space, and notes on its images; writes nothing.

    All checks of the study happen here. Raises `UserError`s.
    """
    file = load_study(args.file, is_quick=args.quick)
    if args.executor == "inline":  # starts nothing
        make_executor(args.executor, _worker_request(args, file.study))
    elif args.ray_address is None and file.study.resources.cpus > available_cpus():
        raise StudyError(
            f"`resources.cpus` must be at most the processors that this process may use ({available_cpus()})",
            value=file.study.resources.cpus,
            place=file.place(("resources", "cpus")),
            remedy="Lower it, or train on a cluster with `--ray-address`.",
        )
    space = open_space(file, workspace_of(args).data_cache)
    if file.study.resources.gpus == 0 or args.ray_address is None:
        device = "cuda" if file.study.resources.gpus and has_gpu() else "cpu"
        check_device(file.study, file.document, device=device)
    if not args.fresh:
        _require_growth(args, file, space.data)
    return file, space, check_data(file, workspace_of(args).data_cache, space.data)


def _require_growth(args: Namespace, file: StudyFile, data: str | None) -> None:
    """Raise `StudyError` if file or data (by its digest) have changed in a way that the stored study cannot adopt."""
    workspace = workspace_of(args)
    try:
        with Store.open(workspace.database, read_only=True) as store:
            study_changes(file, store)
            same_data(file, store, workspace, data)
    except NotFound:
        return


def _dry_run(args: Namespace, file: StudyFile, space: Space, notes: Sequence[str]) -> int:
    """Print what would be trained, and on which data; reads the database if there is one."""
    study = file.study
    fitting = 1 if args.executor == "inline" or args.ray_address else available_cpus() // study.resources.cpus
    workers = args.workers or max(1, fitting)
    try:
        with Store.open(workspace_of(args).database, read_only=True) as store:
            is_cluster = args.ray_address is not None
            rule = ReuseRule(study, store, study_environment(study, is_cluster=is_cluster), args.reuse, is_cluster)
            growth = StudyChanges() if args.fresh else study_changes(file, store)
            done = TrialsDone() if args.fresh or study.search.sampler == "grid" else trials_done(store, study)
            planned = plan_study(study, space, store, workers=workers, rule=rule, growth=growth, done=done)
    except NotFound:
        planned = plan_study(study, space, None, workers=workers)
    make_console().print(plan_view(replace(planned, notes=(*file.notes, *planned.notes, *notes))))
    return 0


def _drive(args: Namespace, file: StudyFile, space: Space, notes: Sequence[str]) -> StudyResults:
    """Run a study to its end while showing its progress; returns its results, which are also written as a summary."""
    workspace = workspace_of(args)
    with Interrupt() as interrupt, _view(file, is_quiet=args.quiet) as view:

        def start_executor() -> Executor:
            progress = driven.driver.progress()
            left = progress.runs_total - progress.runs_done
            return InterruptibleExecutor(
                _start_workers(args, file.study, left, view),
                interrupt,
                lambda: view.note("stopping: the workers finish their step; press Ctrl-C again to exit immediately"),
                is_here=args.executor == "inline",
            )

        for note in (*file.notes, *notes):
            view.note(note)
        view.note(f"opening {without_password(str(workspace.database))}")
        with open_for_driving(
            file,
            space,
            workspace,
            start_executor,
            is_fresh=args.fresh,
            reuse=args.reuse,
            is_cluster=args.ray_address is not None,
        ) as driven:
            return _to_the_end(
                driven, file.study, space, workspace.folder(file.study.study), view, args.ray_address is not None
            )


def _to_the_end(
    driven: DrivenStudy, study: Study, space: Space, folder: Path, view: EventView, is_cluster: bool
) -> StudyResults:
    """Drive a study, showing all its events; its old summary is kept only if no trial starts."""
    here = study_environment(study, is_cluster=is_cluster)
    results = study_results(study, driven.store, driven.trials(), {}, here=here)
    view.begin(results)
    with closing(driven.driver.events()) as events:
        for event in events:
            if isinstance(event, TrialStarted):
                remove_summary(folder)
            view.show(event, driven.driver.progress())
    trials = driven.trials()
    ruled_out, claims = study_size(study, space, trials).ruled_out, evaluate_claims(study, space, driven.store, here)
    if has_summary(folder):
        return replace(results, rejected=ruled_out, claims=claims)
    results = study_results(study, driven.store, trials, ruled_out, claims, here)
    write_summary(folder, results)
    return results


def _draw_claims(folder: Path, results: StudyResults) -> None:
    """Plot the claims next to the summary, unless the plot exists; a failure is printed and changes no result."""
    path = folder / CLAIMS_PLOT_FILE
    if not results.claims:
        return
    try:
        if not path.exists():
            from harness.report.claims_summary import summarize_claims
            from harness.report.plots.claims import plot_claims

            plot_claims(path, summarize_claims(results))
        print(f"\nThe claims as a picture: {path}")
    except Exception as error:
        print(f"\nThe claims could not be drawn: {printable(str(error)) or type(error).__name__}", file=sys.stderr)


def _start_workers(args: Namespace, study: Study, runs: int, view: EventView) -> Executor:
    """Start the workers, noting the start and the end in the view."""
    recipe = study.proxy
    rendering = f" {recipe.rendering}" if recipe.dataset == "shapes" else ""
    view.note(f"starting {_workers(args)}")
    executor = make_executor(args.executor, _worker_request(args, study, runs=runs))
    data = f"{recipe.dataset}{rendering}, {recipe.resolution} px"
    view.note(f"{plural(executor.slots, 'worker')} ready; the first run prepares the data ({data})")
    return executor


def _worker_request(args: Namespace, study: Study, *, runs: int | None = None) -> WorkerRequest:
    grant = study.resources
    return WorkerRequest(cpus=grant.cpus, gpus=grant.gpus, workers=args.workers, runs=runs, address=args.ray_address)


def _workers(args: Namespace) -> str:
    """The requested workers, as text."""
    if args.executor == "inline":
        return "in this process"
    number = plural(args.workers, "worker") if args.workers else "workers"
    return f"{number} with Ray, {f'on {args.ray_address}' if args.ray_address else 'on this machine'}"


def _view(file: StudyFile, *, is_quiet: bool) -> EventView:
    """The view for this output: quiet, live in a terminal, or a log."""
    metric, direction = next(iter(file.study.objectives.items()))
    console = make_console()
    if is_quiet:
        return EventView()
    if not is_live(console):
        return LogView(EventFormatter(metric))
    after_training = "measuring" if file.study.proxy.transfer is None else "transfer"
    formatter = EventFormatter(metric)
    state = LiveState(file.study.study, study_title(file.text), metric, direction, formatter, after_training)
    return LiveView(console, state)


def _next_commands(args: Namespace, results: StudyResults, file: StudyFile) -> list[tuple[str, str]]:
    """Suggested next commands, each with its purpose."""
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


def full_scale_commands(file: StudyFile, best: ConfigurationResult, options: Sequence[str]) -> list[tuple[str, str]]:
    """The command for the best network at full scale; none without a full-scale base that fits its choices."""
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
