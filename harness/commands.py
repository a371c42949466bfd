"""The verbs: each takes the parsed command line, does its work in the rooms above, prints, and gives the exit code."""

import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.errors import NotFound
from harness.executors import Crew, Executor, make_executor
from harness.interrupt import EXIT_CODE, Interrupt, Interruptible
from harness.report.answer import Answer, answer, read_runs
from harness.report.live import LiveView, Scene
from harness.report.narrator import Narrator
from harness.report.plan import plan
from harness.report.plan_table import plan_view
from harness.report.status import status, status_values, status_view
from harness.report.summary import answer_values, json_text, write_summary
from harness.report.tables import answer_view, configurations, heading, next_lines, reasons
from harness.report.trial import trial_values, trial_view
from harness.report.verdict import conditions, summary_of
from harness.report.views import Lines, Silence, View
from harness.report.words import counted
from harness.session import Place, Reading, driving, extent, open_space, question_of, reading
from harness.space import Space
from harness.store import Store, driver_of, optuna_storage
from harness.study import Resources, Study, StudyFile, dump_spec, json_schema, load_study
from harness.terminal import available_cpus, is_live, make_console, typed_again, verb

NO_ANSWER = 1
"""Exit code of a study that ended without a complete configuration."""
LAST_EVENTS = 5
DEFAULT_RESULTS = Path("results")


def run(args: Namespace) -> int:
    """Train what a study needs, and print its answer."""
    file = load_study(args.file)
    if args.executor == "inline":  # starts nothing, so that what it refuses is refused before anything is written
        make_executor(args.executor, _crew(args, file.study.resources))
    space = open_space(file)
    if args.dry_run:
        return _dry_run(args, file.study, space)
    try:
        said = _drive(args, file, space)
    except KeyboardInterrupt:
        print(f"stopped; nothing is lost. To go on where it was:\n  {typed_again()}", file=sys.stderr)
        return EXIT_CODE
    print_view(answer_view(said))
    print("\n".join(next_lines(_next_commands(args, said))))
    return 0 if said.best else NO_ANSWER


def show_status(args: Namespace) -> int:
    """Print where a study stands."""
    with reading(args.file, _place(args)) as read:
        study, reach = read.file.study, read.extent()
        found = status(
            answer(study, read.store, read.trials, reach.ruled_out),
            read.trials,
            driver=driver_of(read.store, study.study),
            trials_total=reach.configurations,
            seeds=study.search.seeds,
            last=read.store.events(study.study, limit=LAST_EVENTS),
        )
    if args.json:
        return print_json(status_values(found))
    print_view(status_view(found))
    if not found.driver and not found.is_finished:
        print("\n".join(next_lines([(verb("run", args.file, _options(args)), "go on where it was")])))
    return 0


def show(args: Namespace) -> int:
    """Print all configurations of a study, or one of its trials from close up."""
    with reading(args.file, _place(args)) as study:
        return _show_all(args, study) if args.trial is None else _show_trial(args, study)


def best(args: Namespace) -> int:
    """Print the winner's network as a spec file."""
    with reading(args.file, _place(args)) as study:
        said = answer(study.file.study, study.store, study.trials, {})
    if said.best is None:
        raise NotFound(
            "a study must have a complete configuration to have a best one",
            place=str(args.file),
            remedy=f"See how it stands: `{verb('status', args.file, _options(args))}`.",
        )
    if args.json:
        return print_json(said.best.spec.canonical())
    comment = f"Best of the study {said.study}, trial {said.best.trials[0]}.\n"
    comment += f"{said.metric} {summary_of(said.best, said.metric)}\n{conditions(said)}"
    print(dump_spec(said.best.spec, comment), end="")
    return 0


def dashboard(args: Namespace) -> int:
    """Serve Optuna's dashboard on a study's database until Ctrl-C."""
    from harness.report.dashboard import dashboard_server, study_url

    with reading(args.file, _place(args)) as study, Interrupt():
        study_id = study.optuna_id
        with dashboard_server(optuna_storage(study.store), args.port) as server:
            print(f"{study.file.study.study} is shown at {study_url(server, study_id)}")
            print("Ctrl-C ends it.", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("ended")
    return 0


def schema(_: Namespace) -> int:
    """Print the JSON schema of study files."""
    return print_json(json_schema())


def print_view(view: RenderableType) -> int:
    """Print something made for people."""
    make_console().print(view)
    return 0


def print_json(values: Any) -> int:
    """Print something made for programs."""
    print(json_text(values))
    return 0


def _drive(args: Namespace, file: StudyFile, space: Space) -> Answer:
    """Run a study to its end while showing it; gives the answer, which is also written beside the results."""
    study, place = file.study, _place(args)
    with Interrupt() as interrupt, _view(file, is_quiet=args.quiet) as view:

        def start_executor() -> Executor:
            view.note(f"starting {_workers(args)}")
            progress = driven.driver.progress()
            crew = _crew(args, study.resources, runs=progress.runs_total - progress.runs_done)
            executor = make_executor(args.executor, crew)
            view.note(f"{counted(executor.slots, 'worker')} ready; the first run prepares the data ({_data(study)})")
            stopping = "stopping: the workers end their step; Ctrl-C again leaves at once"
            return Interruptible(executor, interrupt, lambda: view.note(stopping), is_here=args.executor == "inline")

        view.note(f"opening {place.database}")
        with driving(file, place, start_executor, space=space, is_fresh=args.fresh) as driven:
            view.begin(answer(study, driven.store, driven.trials(), {}))
            with closing(driven.driver.events()) as events:
                for event in events:
                    view.show(event, driven.driver.progress())
            trials = driven.trials()
            said = answer(study, driven.store, trials, extent(study, space, trials).ruled_out)
        write_summary(place.folder(study.study), said)
        return said


def _crew(args: Namespace, grant: Resources, *, runs: int | None = None) -> Crew:
    return Crew(cpus=grant.cpus, gpus=grant.gpus, workers=args.workers, runs=runs, address=args.ray_address)


def _workers(args: Namespace) -> str:
    """The workers that were asked for, in words."""
    if args.executor == "inline":
        return "in this process"
    number = counted(args.workers, "worker") if args.workers else "workers"
    return f"{number} with Ray, {f'on {args.ray_address}' if args.ray_address else 'on this machine'}"


def _data(study: Study) -> str:
    recipe = study.proxy
    rendering = f" {recipe.rendering}" if recipe.dataset == "shapes" else ""
    return f"{recipe.dataset}{rendering}, {recipe.resolution} px"


def _view(file: StudyFile, *, is_quiet: bool) -> View:
    """The view that fits where the output goes."""
    metric, direction = next(iter(file.study.objectives.items()))
    console = make_console()
    if is_quiet:
        return Silence()
    if not is_live(console):
        return Lines(Narrator(metric))
    return LiveView(console, Scene(file.study.study, question_of(file.text), metric, direction, Narrator(metric)))


def _dry_run(args: Namespace, study: Study, space: Space) -> int:
    """Print what would be trained; reads the database where there is one."""
    room = 1 if args.executor == "inline" or args.ray_address else available_cpus() // study.resources.cpus
    workers = args.workers or max(1, room)
    try:
        with Store.open(_place(args).database, read_only=True) as store:
            planned = plan(study, space, store, workers=workers)
    except NotFound:
        planned = plan(study, space, None, workers=workers)
    return print_view(plan_view(planned))


def _show_all(args: Namespace, read: Reading) -> int:
    said = answer(read.file.study, read.store, read.trials, read.extent().ruled_out)
    if args.json:
        return print_json(answer_values(said))
    return print_view(Group(heading(said), Text(), configurations(said), Text(), *reasons(said, most=None)))


def _show_trial(args: Namespace, read: Reading) -> int:
    study = read.file.study
    trial = next((trial for trial in read.trials if trial.number == args.trial), None)
    if trial is None:
        known = f"0 to {len(read.trials) - 1}" if read.trials else "none"
        raise NotFound("the trial must be one of the study's", value=args.trial, remedy=f"Trials: {known}.")
    linked = read.store.trial_runs(study.study).get(trial.number, ())
    runs = list(read_runs(read.store, linked).values())
    if args.json:
        return print_json(trial_values(trial, runs, study))
    return print_view(trial_view(trial, runs, study))


def _next_commands(args: Namespace, said: Answer) -> list[tuple[str, str]]:
    """What a person may want to type now."""
    options = _options(args)
    commands = [(verb("dashboard", args.file, options), "parameters and learning curves in a browser")]
    if said.best is not None:
        number = str(said.best.trials[0])
        commands = [
            (verb("show", args.file, options, number), "the best network: cost by stage, curves, seeds"),
            (f"{verb('best', args.file, options)} > best.yaml", "its spec, to be the `base` of the next study"),
            *commands,
        ]
    else:
        commands = [(verb("show", args.file, options), "what became of every configuration"), *commands]
    return commands


def _place(args: Namespace) -> Place:
    return Place(args.results, args.storage)


def _options(args: Namespace) -> list[str]:
    """The options that say where the study is, as far as they were given."""
    results = [] if args.results == DEFAULT_RESULTS else ["--results", str(args.results)]
    return results + ([] if args.storage is None else ["--storage", args.storage])


VERBS: dict[str, Callable[[Namespace], int]] = {
    "run": run,
    "status": show_status,
    "show": show,
    "best": best,
    "dashboard": dashboard,
    "schema": schema,
}
"""The function of each verb of the command line."""
