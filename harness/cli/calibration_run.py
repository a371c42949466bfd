"""A calibration with its workers and its display: the part of `harness calibrate` that loads slowly."""

from dataclasses import replace

from harness.analysis.formatting import plural
from harness.cli.study_run import RunOptions, check_study, train_study
from harness.config.calibration_candidates import CalibrationPlan
from harness.config.study_file import StudyFile
from harness.executors import WITH_RAY
from harness.executors.base import Executor, WorkerRequest
from harness.executors.interrupt import Interrupt
from harness.report.calibration import change_text, event_line
from harness.report.console import StatusLine, is_live, make_console, make_status_line
from harness.search.calibration import Calibration, CalibrationResult, CandidateStarted
from harness.search.events import EventView, Progress, StudyEvent
from harness.storage.workspace import Workspace
from harness.training.run import Ended, Job, Record


def open_calibration(plan: CalibrationPlan, options: RunOptions, hours: float | None) -> Calibration:
    """Make all checks of a calibration, which write nothing. Raises `UserError`s."""
    calibration = Calibration(plan, options.workspace, hours if hours is not None else plan.settings.hours)
    for recipe in calibration.recipes:
        check_study(calibration.study(recipe, plan.settings.seeds), options)
    return calibration


def calibrate(calibration: Calibration, options: RunOptions, *, is_quiet: bool) -> CalibrationResult:
    """Train the candidates while a line per candidate is shown; the workers are started once for all of them."""
    console, workers = make_console(), _KeptWorkers(options)
    with make_status_line(console, is_live=is_live(console) and not is_quiet) as line:
        view = _StatusView(None if is_quiet else line)

        def train(file: StudyFile, workspace: Workspace) -> None:
            shared = replace(options, workspace=workspace, executor=workers.executor)
            train_study(replace(check_study(file, options), options=shared), view, Interrupt())

        try:
            for event in calibration.events(train):
                if isinstance(event, CandidateStarted):
                    view.candidate = f"[{event.position}/{event.candidates}] {change_text(event.recipe)}"
                    view.note(plural(event.runs, "run") if event.runs else "stored")
                elif not is_quiet and (text := event_line(event)) is not None:
                    line.print_line(text)
        finally:
            workers.shut_down()
    return calibration.result()


class _StatusView(EventView):
    """Shows the progress of the study of a candidate as the status line."""

    def __init__(self, line: StatusLine | None) -> None:
        self._line = line
        self.candidate = ""

    def note(self, text: str) -> None:
        """Show the current activity."""
        if self._line is not None:
            self._line.update(f"{self.candidate}: {text}")

    def show(self, event: StudyEvent, progress: Progress) -> None:  # noqa: ARG002
        """Show the number of runs."""
        self.note(f"{progress.runs_done} of {plural(progress.runs_total, 'run')}")


class _KeptWorkers:
    """Starts Ray's workers for the first study, and keeps them for the next ones."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._workers: _KeptExecutor | None = None
        self.executor = self._start if options.executor in WITH_RAY else options.executor

    def _start(self, request: WorkerRequest) -> Executor:
        if self._workers is None or self._workers.is_shut_down:
            from harness.executors import make_executor

            self._workers = _KeptExecutor(make_executor(str(self._options.executor), replace(request, runs=None)))
        return self._workers

    def shut_down(self) -> None:
        """Stop the workers, if they were started."""
        if self._workers is not None:
            self._workers.shut_down()


class _KeptExecutor:
    """An executor that a driver shuts down only if runs are left on it."""

    def __init__(self, executor: Executor) -> None:
        self.slots = executor.slots
        self.is_shut_down = False
        self._executor = executor
        self._active: set[str] = set()

    def submit(self, job: Job) -> None:
        """See `Executor`, as for all methods of this class."""
        self._active.add(job.run.id)
        self._executor.submit(job)

    def poll(self, timeout_s: float) -> list[tuple[str, Record]]:
        """See `Executor`."""
        records = self._executor.poll(timeout_s)
        self._active -= {run_id for run_id, record in records if isinstance(record, Ended)}
        return records

    def stop(self, run_id: str) -> None:
        """See `Executor`."""
        self._executor.stop(run_id)

    def shutdown(self) -> None:
        """Shut the workers down if runs are left; otherwise the next study uses them."""
        if self._active:
            self.shut_down()

    def shut_down(self) -> None:
        """Stop the workers."""
        if not self.is_shut_down:
            self.is_shut_down = True
            self._executor.shutdown()
