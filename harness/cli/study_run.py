"""A study from its file to its written summary: the part that `harness run` and `harness.run_study` share.

It is checked, trained by workers, and its results are written into its folder; nothing is printed.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from harness.analysis.claims import evaluate_claims
from harness.analysis.formatting import plural, printable
from harness.analysis.proposal_origin import has_trust, has_uniform_draws
from harness.analysis.results import StudyResults, study_results
from harness.analysis.reuse import ReuseMode, study_environment
from harness.analysis.study_reader import open_space, study_size
from harness.analysis.summary import CLAIMS_PLOT_FILE, has_summary, remove_summary
from harness.config.space import Space
from harness.config.study import Study
from harness.config.study_checks import check_device
from harness.config.study_file import StudyFile, load_study
from harness.errors import NotFound, StudyError, UserError
from harness.executors import WITH_RAY, check_tune_config, make_executor
from harness.executors.base import Executor, ExecutorFactory, WorkerRequest
from harness.executors.interrupt import Interrupt, InterruptibleExecutor
from harness.report.event_log import LOGGER, EventFormatter, LoggingView
from harness.report.study import write_summary
from harness.search.enqueue import Enqueued, enqueued_configurations
from harness.search.events import EventView, Progress, StudyEvent, TrialStarted
from harness.search.session import DrivenStudy, check_data, check_sampler, open_for_driving, same_data, study_changes
from harness.storage import Store
from harness.storage.workspace import DEFAULT_RESULTS, Workspace
from harness.system.command_line import without_password
from harness.system.machine import available_cpus, has_gpu, workers_that_fit

if TYPE_CHECKING:
    from harness.analysis.effects import EffectsResult
    from harness.analysis.trust import TrustResult


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Where the runs of a study are stored, who trains them, and which stored runs are reused."""

    workspace: Workspace
    executor: str | ExecutorFactory = "ray"
    """A key of `EXECUTORS`, or a function of the same form."""
    workers: int | None = None
    """Number of workers; None for as many as fit."""
    ray_address: str | None = None
    """A Ray cluster; see `WorkerRequest.address`."""
    tune_config: str | None = None
    """Of the executor `tune`; see `WorkerRequest.tune_config`."""
    reuse: ReuseMode = "any"
    is_fresh: bool = False
    """Whether the study's trials are deleted first, and its runs that no other study uses."""

    @property
    def is_cluster(self) -> bool:
        """Whether the workers' environment may be another than that of this machine."""
        return self.ray_address is not None

    def start_workers(self, study: Study, runs: int | None = None) -> Executor:
        """Start the workers for at most this number of runs. Raises `ExecutorError`."""
        grant = study.resources
        request = WorkerRequest(
            cpus=grant.cpus,
            gpus=grant.gpus,
            workers=self.workers,
            runs=runs,
            address=self.ray_address,
            tune_config=self.tune_config,
        )
        return make_executor(self.executor, request) if isinstance(self.executor, str) else self.executor(request)

    def expected_workers(self, study: Study) -> int:
        """The number of workers for an estimate of time: as requested, else as many as fit here; 1 on a cluster."""
        is_single = self.executor == "inline" or self.is_cluster
        return self.workers or (1 if is_single else workers_that_fit(study.resources.cpus))

    @property
    def workers_text(self) -> str:
        """The requested workers, as text."""
        if self.executor == "inline":
            return "in this process"
        number = plural(self.workers, "worker") if self.workers else "workers"
        if self.executor not in WITH_RAY:
            return number
        by = "Ray" if self.executor == "ray" else "Ray Tune"
        return f"{number} with {by}, {f'on {self.ray_address}' if self.ray_address else 'on this machine'}"


@dataclass(frozen=True, slots=True)
class CheckedStudy:
    """A study that can be trained."""

    file: StudyFile
    space: Space
    notes: tuple[str, ...]
    """Notes on its images."""
    options: RunOptions
    enqueued: Sequence[Enqueued] = ()
    """The configurations that the file lists, which are tried first."""

    @property
    def folder(self) -> Path:
        """The study's own folder."""
        return self.options.workspace.folder(self.file.study.study)


def run_study(
    study: str | Path | StudyFile,
    *,
    quick: bool = False,
    executor: str | ExecutorFactory = "ray",
    workers: int | None = None,
    ray_address: str | None = None,
    tune_config: str | None = None,
    results: str | Path = DEFAULT_RESULTS,
    storage: str | None = None,
    reuse: ReuseMode = "any",
    fresh: bool = False,
    progress: Callable[[StudyEvent, Progress], None] | None = None,
) -> StudyResults:
    """Train what a study needs and return its results; `harness run` leaves the same files.

    The arguments are the options of `harness run`. Nothing is printed: each event is logged by the logger `harness` at
    level INFO and passed to `progress`, with the progress of the study. Ctrl-C, or an error that `progress` raises,
    ends the study after the current step, and the same call resumes it. Raises `UserError`s.
    """
    if isinstance(study, StudyFile) and quick:
        raise UserError("`quick` must be used with the path of a study", remedy="Or `load_study(path, is_quick=True)`.")
    file = study if isinstance(study, StudyFile) else load_study(Path(study), is_quick=quick)
    options = RunOptions(
        workspace=Workspace(Path(results), storage),
        executor=executor,
        workers=workers,
        ray_address=ray_address,
        tune_config=tune_config,
        reuse=reuse,
        is_fresh=fresh,
    )
    view = LoggingView(EventFormatter.of(file.study), progress)
    checked = check_study(file, options)
    trained = train_study(checked, view, Interrupt(is_command=False))
    try:
        draw_claims(checked.folder, trained)
    except Exception as error:  # a plot that cannot be drawn changes no result
        LOGGER.warning("The claims could not be drawn: %s", printable(str(error)) or type(error).__name__)
    return trained


def check_study(file: StudyFile, options: RunOptions) -> CheckedStudy:
    """Make all checks of a study, which write nothing. Raises `UserError`s."""
    _check_options(options)
    study, workspace = file.study, options.workspace
    if isinstance(options.executor, str) and options.executor not in WITH_RAY:  # starts nothing
        options.start_workers(study)
    elif options.executor in WITH_RAY and not options.is_cluster and study.resources.cpus > available_cpus():
        raise StudyError(
            f"`resources.cpus` must be at most the processors that this process may use ({available_cpus()})",
            value=study.resources.cpus,
            place=file.place(("resources", "cpus")),
            remedy="Lower it, or train on a cluster with `--ray-address`.",
        )
    if isinstance(options.executor, str) and options.tune_config is not None:
        check_tune_config(options.executor, options.tune_config)
    space = open_space(file, workspace.data_cache)
    if study.resources.gpus == 0 or not options.is_cluster:
        device = "cuda" if study.resources.gpus and has_gpu() else "cpu"
        check_device(study, file.document, device=device)
    check_sampler(file, space)
    enqueued = _stored_checks(file, space, options)
    return CheckedStudy(file, space, check_data(file, workspace.data_cache, space.data), options, enqueued)


def train_study(checked: CheckedStudy, view: EventView, interrupt: Interrupt) -> StudyResults:
    """Train a study to its end while a view shows its events; its results are written as a summary, too."""
    file, options = checked.file, checked.options
    with interrupt, view:

        def start_executor() -> Executor:
            progress = driven.driver.progress()
            return InterruptibleExecutor(
                _start_workers(checked, progress.runs_total - progress.runs_done, view),
                interrupt,
                lambda: view.note("stopping: the workers finish their step; press Ctrl-C again to exit immediately"),
                is_here=options.executor == "inline",
            )

        for note in (*file.notes, *checked.notes):
            view.note(note)
        view.note(f"opening {without_password(str(options.workspace.database))}")
        with open_for_driving(
            file,
            checked.space,
            options.workspace,
            start_executor,
            is_fresh=options.is_fresh,
            reuse=options.reuse,
            is_cluster=options.is_cluster,
        ) as driven:
            return _to_the_end(driven, checked, view)


def draw_claims(folder: Path, results: StudyResults) -> Path | None:
    """Plot the claims next to the summary, unless the plot exists; returns its path, or None without claims.

    A plot may fail in many ways inside matplotlib; no error of it changes a result.
    """
    if not results.claims:
        return None
    path = folder / CLAIMS_PLOT_FILE
    if not path.exists():
        from harness.report.claims import summarize_claims
        from harness.report.plots.claims import plot_claims

        plot_claims(path, summarize_claims(results))
    return path


def _check_options(options: RunOptions) -> None:
    """Raise `UserError` for arguments that the command line's parser would refuse."""
    if options.workers is not None and options.workers < 1:
        raise UserError("`workers` must be at least 1", value=options.workers)
    if options.reuse not in get_args(ReuseMode):
        raise UserError(f"`reuse` must be one of {', '.join(get_args(ReuseMode))}", value=options.reuse)


def _stored_checks(file: StudyFile, space: Space, options: RunOptions) -> list[Enqueued]:
    """Raise `StudyError` if file or data have changed in a way that the stored study cannot adopt.

    Returns the configurations that the file lists; those of other studies must be there.
    """
    try:
        with Store.open(options.workspace.database, read_only=True) as store:
            if not options.is_fresh:
                study_changes(file, store)
                same_data(file, store, options.workspace, space.data)
            return enqueued_configurations(file, space, store)
    except NotFound:
        return enqueued_configurations(file, space, None)


def _start_workers(checked: CheckedStudy, runs: int, view: EventView) -> Executor:
    """Start the workers, noting the start and the end in the view."""
    recipe = checked.file.study.proxy
    rendering = f" {recipe.rendering}" if recipe.dataset == "shapes" else ""
    view.note(f"starting {checked.options.workers_text}")
    executor = checked.options.start_workers(checked.file.study, runs)
    side = "" if "recipe.resolution" in checked.file.study.axes else f", {recipe.resolution} px"
    data = f"{recipe.dataset}{rendering}{side}"
    view.note(f"{plural(executor.slots, 'worker')} ready; the first run prepares the data ({data})")
    return executor


def _to_the_end(driven: DrivenStudy, checked: CheckedStudy, view: EventView) -> StudyResults:
    """Drive a study, showing all its events; its old summary is kept only if no trial starts."""
    study, folder = checked.file.study, checked.folder
    environment = study_environment(study, is_cluster=checked.options.is_cluster)
    results = study_results(study, driven.store, driven.trials(), {}, environment=environment)
    view.begin(results)
    with closing(driven.driver.events()) as events:
        for event in events:
            if isinstance(event, TrialStarted):
                remove_summary(folder)
            view.show(event, driven.driver.progress())
    trials = driven.trials()
    ruled_out = study_size(study, checked.space, trials).ruled_out
    claims = evaluate_claims(study, checked.space, driven.store, environment)
    effects = _effects(driven, checked) if has_uniform_draws(study) else None
    trust = _trust(driven, checked) if has_trust(study) else None
    search = study.search
    may_differ = search.budget is not None or search.plateau is not None or search.racing is not None
    may_differ = may_differ or study.has_several_objectives  # whose front depends on what the budgets ruled out
    if has_summary(folder) and not may_differ:  # the reason of the end, or the rule of a race, may be another one
        return replace(results, rejected=ruled_out, claims=claims, effects=effects, trust=trust)
    results = study_results(study, driven.store, trials, ruled_out, claims, environment)
    results = replace(results, effects=effects, trust=trust)
    write_summary(folder, results)
    return results


def _trust(driven: DrivenStudy, checked: CheckedStudy) -> "TrustResult":
    from harness.analysis.trust import study_trust

    return study_trust(checked.file, checked.space, driven.store, driven.trials())


def _effects(driven: DrivenStudy, checked: CheckedStudy) -> "EffectsResult | None":
    from harness.analysis.effects import effects_of_ended

    return effects_of_ended(checked.file, checked.space, driven.store, driven.trials())
