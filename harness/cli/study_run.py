"""What `harness run` does: train what a study needs while showing it; or show what would be trained."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from harness.analysis.claims import judge_claims
from harness.analysis.formatting import counted, printable
from harness.analysis.plan import plan
from harness.analysis.results import Answer, Row, answer
from harness.analysis.reuse import Reuse, environment_of
from harness.analysis.study_reader import extent, open_space, question_of
from harness.analysis.winner import BEST_OF
from harness.cli.arguments import study_options, workspace_of
from harness.cli.interrupt import EXIT_CODE, Interrupt, Interruptible
from harness.config.full_scale_network import scaled
from harness.config.recipes.loading import load_full_recipe
from harness.config.space import Space
from harness.config.study import Study
from harness.config.study_checks import check_device
from harness.config.study_file import StudyFile, load_study
from harness.config.study_growth import Growth
from harness.data.image_sources import GENERATED
from harness.errors import NotFound, SpecError, StudyError
from harness.executors import Crew, Executor, make_executor
from harness.report.console import is_live, make_console
from harness.report.event_log import Lines, Narrator, Silence, View
from harness.report.live import LiveView, Scene
from harness.report.plan import plan_view
from harness.report.study import answer_view, next_lines
from harness.report.summary import PICTURE, has_summary, remove_summary, write_summary
from harness.search.events import TrialStarted
from harness.search.session import Driven, check_data, driving, grown, same_data
from harness.storage import Store
from harness.system.command_line import typed_again, verb, without_password
from harness.system.machine import available_cpus, has_gpu

ANY_RECIPE = "imagenet_300"
"""For a study that names a network at full scale and no recipe."""
NO_ANSWER = 1
"""Exit code of a study that ended without a complete configuration."""


def run_study(args: Namespace) -> int:
    """Train what a study needs, and print its answer."""
    file, space, notes = check_study(args)
    if args.dry_run:
        return _dry_run(args, file, space, notes)
    try:
        said = _drive(args, file, space, notes)
    except KeyboardInterrupt:
        print(f"stopped; nothing is lost. To go on where it was:\n  {typed_again()}", file=sys.stderr)
        return EXIT_CODE
    make_console().print(answer_view(said))
    _draw_claims(workspace_of(args).folder(said.study), said)
    print("\n".join(next_lines(_next_commands(args, said, file))))
    return 0 if said.complete else NO_ANSWER


def check_study(args: Namespace) -> tuple[StudyFile, Space, tuple[str, ...]]:
    """The study that a command line means, with its space, and notes on its images.

    All that is refused is refused here, and nothing is written.

    Raises `UserError`s.
    """
    file = load_study(args.file, is_quick=args.quick)
    if args.executor == "inline":  # starts nothing
        make_executor(args.executor, _crew(args, file.study))
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
    """Raise `StudyError` where the file or its data, of that digest, are no longer those of the study it started."""
    place = workspace_of(args)
    try:
        with Store.open(place.database, read_only=True) as store:
            grown(file, store)
            same_data(file, store, place, data)
    except NotFound:
        return


def _dry_run(args: Namespace, file: StudyFile, space: Space, notes: Sequence[str]) -> int:
    """Print what would be trained, and on what; reads the database where there is one."""
    study = file.study
    room = 1 if args.executor == "inline" or args.ray_address else available_cpus() // study.resources.cpus
    workers = args.workers or max(1, room)
    try:
        with Store.open(workspace_of(args).database, read_only=True) as store:
            is_cluster = args.ray_address is not None
            rule = Reuse(study, store, environment_of(study, is_cluster=is_cluster), args.reuse, is_cluster)
            growth = Growth() if args.fresh else grown(file, store)
            planned = plan(study, space, store, workers=workers, rule=rule, growth=growth)
    except NotFound:
        planned = plan(study, space, None, workers=workers)
    make_console().print(plan_view(replace(planned, notes=(*file.notes, *planned.notes, *notes))))
    return 0


def _drive(args: Namespace, file: StudyFile, space: Space, notes: Sequence[str]) -> Answer:
    """Run a study to its end while showing it; gives the answer, which is also written beside the results."""
    place = workspace_of(args)
    with Interrupt() as interrupt, _view(file, is_quiet=args.quiet) as view:

        def start_executor() -> Executor:
            progress = driven.driver.progress()
            left = progress.runs_total - progress.runs_done
            return Interruptible(
                _hire(args, file.study, left, view),
                interrupt,
                lambda: view.note("stopping: the workers end their step; Ctrl-C again leaves at once"),
                is_here=args.executor == "inline",
            )

        for note in (*file.notes, *notes):
            view.note(note)
        view.note(f"opening {without_password(str(place.database))}")
        with driving(
            file,
            space,
            place,
            start_executor,
            is_fresh=args.fresh,
            reuse=args.reuse,
            is_cluster=args.ray_address is not None,
        ) as driven:
            return _to_the_end(
                driven, file.study, space, place.folder(file.study.study), view, args.ray_address is not None
            )


def _to_the_end(driven: Driven, study: Study, space: Space, folder: Path, view: View, is_cluster: bool) -> Answer:
    """Show all events of a study; a summary is kept only of a study that nothing has changed since."""
    here = environment_of(study, is_cluster=is_cluster)
    said = answer(study, driven.store, driven.trials(), {}, here=here)
    view.begin(said)
    with closing(driven.driver.events()) as events:
        for event in events:
            if isinstance(event, TrialStarted):
                remove_summary(folder)
            view.show(event, driven.driver.progress())
    trials = driven.trials()
    ruled_out, claims = extent(study, space, trials).ruled_out, judge_claims(study, space, driven.store, here)
    if has_summary(folder):
        return replace(said, rejected=ruled_out, claims=claims)
    said = answer(study, driven.store, trials, ruled_out, claims, here)
    write_summary(folder, said)
    return said


def _draw_claims(folder: Path, said: Answer) -> None:
    """Draw the claims beside the summary, where they are not drawn yet; the answer stands without the picture."""
    path = folder / PICTURE
    if not said.claims:
        return
    try:
        if not path.exists():
            from harness.report.claims_summary import kept_claims
            from harness.report.plots.claims import plot_claims

            plot_claims(path, kept_claims(said))
        print(f"\nThe claims as a picture: {path}")
    except Exception as error:
        print(f"\nThe claims could not be drawn: {printable(str(error)) or type(error).__name__}", file=sys.stderr)


def _hire(args: Namespace, study: Study, runs: int, view: View) -> Executor:
    """Start the workers, and say so."""
    recipe = study.proxy
    rendering = f" {recipe.rendering}" if recipe.dataset == "shapes" else ""
    view.note(f"starting {_workers(args)}")
    executor = make_executor(args.executor, _crew(args, study, runs=runs))
    data = f"{recipe.dataset}{rendering}, {recipe.resolution} px"
    view.note(f"{counted(executor.slots, 'worker')} ready; the first run prepares the data ({data})")
    return executor


def _crew(args: Namespace, study: Study, *, runs: int | None = None) -> Crew:
    grant = study.resources
    return Crew(cpus=grant.cpus, gpus=grant.gpus, workers=args.workers, runs=runs, address=args.ray_address)


def _workers(args: Namespace) -> str:
    """The workers that were asked for, in words."""
    if args.executor == "inline":
        return "in this process"
    number = counted(args.workers, "worker") if args.workers else "workers"
    return f"{number} with Ray, {f'on {args.ray_address}' if args.ray_address else 'on this machine'}"


def _view(file: StudyFile, *, is_quiet: bool) -> View:
    """The view that fits where the output goes."""
    metric, direction = next(iter(file.study.objectives.items()))
    console = make_console()
    if is_quiet:
        return Silence()
    if not is_live(console):
        return Lines(Narrator(metric))
    behind = "measuring" if file.study.proxy.transfer is None else "transfer"
    scene = Scene(file.study.study, question_of(file.text), metric, direction, Narrator(metric), behind)
    return LiveView(console, scene)


def _next_commands(args: Namespace, said: Answer, file: StudyFile) -> list[tuple[str, str]]:
    """What a person may want to type now."""
    options = study_options(args)
    commands = [(verb("dashboard", args.file, options), "parameters and learning curves in a browser")]
    if said.best is None:
        return [(verb("show", args.file, options), "what became of every configuration"), *commands]
    number = str(said.best.trials[0])
    return [
        (verb("show", args.file, options, number), "the best network: cost by stage, curves, seeds"),
        (f"{verb('best', args.file, options)} > best.yaml", "its spec, to be the `base` of the next study"),
        *full_scale_commands(file, said.best, options),
        *commands,
    ]


def full_scale_commands(file: StudyFile, best: Row, options: Sequence[str]) -> list[tuple[str, str]]:
    """What the best network costs at full scale, where the study names a network for that which takes its choices."""
    full = file.study.full_scale
    if full is None:
        return []
    try:
        scaled(file, best.params)
    except SpecError:
        return []
    name = full.recipe or ANY_RECIPE
    recipe = load_full_recipe(name)
    images = [] if recipe.data.dataset in GENERATED else ["--data", "FOLDER"]
    weights = ["--weights", "FILE"] if recipe.needs_weights else []
    words = [str(file.path), "--recipe", name, *images, *weights, "--dry-run"]
    purpose = f"the best network at full scale: {recipe.about}; its cost and time; without --dry-run it is trained"
    return [(verb("train", Path(BEST_OF), options, *words), purpose)]
