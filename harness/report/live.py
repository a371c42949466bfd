"""The live view of a study in a terminal: its progress, the best configuration, the workers, and the last events."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.analysis.formatting import DASH, epochs_done, format_duration, format_mean_and_spread, plural, printable
from harness.analysis.limits import AT, Limit, RunValues, common_limit, fewest_images, limit_sentence, limits_of
from harness.analysis.objective import spread_of
from harness.analysis.results import StudyResults
from harness.analysis.run_status import OPEN, TrialStatus
from harness.report.event_log import EventFormatter
from harness.search import events
from harness.search.events import EventView, Progress, StudyEvent
from harness.training.run import Epoch

REFRESHES_PER_S = 4
WORKERS = 12
"""Maximum number of rows of the table of workers; further ones are only counted."""
LAST_EVENTS = 5


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A run that a worker trains."""

    name: str
    since: float
    epoch: Epoch | None = None
    epochs: int | None = None

    def step(self, after_training: str) -> str:
        """Its progress as text; `after_training` names the activity after the last epoch."""
        if self.epochs is None:
            return "waiting"
        done = self.epoch.epoch if self.epoch else 0
        return after_training if done == self.epochs > 0 else epochs_done(done, self.epochs)


@dataclass(slots=True)
class LiveState:
    """The content of the live view; changed by events, drawn by `draw`."""

    study: str
    question: str | None
    metric: str
    direction: str
    formatter: EventFormatter
    after_training: str = "measuring"
    """The activity of a run after its last epoch."""
    start: float = field(default_factory=time.monotonic)
    doing: str = "reading the study"
    progress: Progress | None = None
    progress_at: float = 0.0
    work: dict[str, RunningJob] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    """The first trial of each configuration."""
    configuration: dict[int, str] = field(default_factory=dict)
    """The configuration of each trial."""
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    """The objective by configuration and seed."""
    recorded: dict[str, dict[int, RunValues]] = field(default_factory=dict)
    """The recorded values of the runs of these objectives."""
    limits: dict[str, Limit | None] = field(default_factory=dict)
    """The limit at which each configuration with values is, if any: chance or the ceiling."""
    ruled_out: set[str] = field(default_factory=set)
    """Configurations that are neither complete nor open: failed, diverged, or over a budget."""
    distances: Mapping[str, str] = field(default_factory=dict)
    """How far each open claim is from a verdict."""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_EVENTS))

    def update(self, event: StudyEvent, progress: Progress) -> None:
        """Apply an event to the state."""
        text = self.formatter.format_event(event)
        now = time.monotonic()
        self.progress, self.progress_at = progress, now
        match event:
            case events.RunQueued():
                self.work[event.run_id] = RunningJob(self.formatter.trial_name(event.trial, event.seed), now)
                return
            case events.RunStarted():
                self.doing = ""
                job = self.work.get(event.run_id)
                if job is not None:
                    self.work[event.run_id] = replace(job, epochs=event.started.epochs, since=now)
                return
            case events.EpochEnded():
                job = self.work.get(event.run_id)
                if job is not None:
                    self.work[event.run_id] = replace(job, epoch=event.epoch, epochs=event.epochs)
                return
            case events.TrialStarted():
                self.add_configuration(event.configuration, event.trial)
                return
            case events.RunEnded():
                self.work.pop(event.run_id, None)
                if event.value is not None:
                    self.learn_value(self.configuration[event.trial], event.seed, event.value, event.recorded)
                    self.find_limits()
            case events.TrialEnded(status=TrialStatus() as status):
                change = self.ruled_out.discard if status.state == "complete" else self.ruled_out.add
                change(self.configuration[event.trial])
            case events.ClaimsEvaluated():
                self.distances = event.distances
            case events.StudyEnded():
                self.doing = ""
        self.add_line(text)

    def add_configuration(self, configuration: str, trial: int) -> None:
        """Remember the configuration of a trial."""
        self.configuration[trial] = configuration
        self.first.setdefault(configuration, trial)

    def learn_value(self, configuration: str, seed: int, value: float, recorded: RunValues | None) -> None:
        """Remember the objective of a complete run, and its recorded values."""
        self.values.setdefault(configuration, {})[seed] = value
        if recorded is not None:
            self.recorded.setdefault(configuration, {})[seed] = recorded

    def find_limits(self) -> None:
        """Find the configurations at chance or at the ceiling, in the same way as the results."""
        groups = [tuple(self.recorded.get(configuration, {}).values()) for configuration in self.values]
        self.limits = dict(zip(self.values, limits_of(self.metric, groups), strict=True))

    def add_line(self, text: str) -> None:
        """Add a line to the last events."""
        self.last_lines.append(f"{datetime.now():%H:%M:%S}  {printable(text)}")

    def draw(self) -> RenderableType:
        """The current view; lines that are too long are cut, so that its height does not change."""
        parts: list[RenderableType] = [self._head(), self._bar(), self._best()]
        parts += [_line(f"{claim}: {distance}", "yellow") for claim, distance in self.distances.items()]
        if self.work:
            parts.append(self._workers())
        if self.last_lines:
            parts += [Text(), *(_line(text, "dim") for text in self.last_lines)]
        return Group(*parts)

    def _head(self) -> RenderableType:
        title = Text(self.study, style="bold", no_wrap=True, overflow="ellipsis")
        return title.append(f"  {self.question}", style="not bold") if self.question else title

    def _bar(self) -> RenderableType:
        progress = self.progress
        if progress is None:
            return _line(f"{self.doing} ...")
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True)
        bar = ProgressBar(total=max(1, progress.runs_total), completed=progress.runs_done)
        table.add_row(bar, Text(f"{progress.runs_done}/{plural(progress.runs_total, 'run')}  {self._times(progress)}"))
        return Group(table, _line(f"{self.doing} ...")) if self.doing else table

    def _times(self, progress: Progress) -> str:
        now = time.monotonic()
        spent = format_duration(max(10.0, now - self.start)) if now - self.start >= 10 else "0 s"
        if progress.eta_s is None:
            return f"{spent} so far"
        left = max(0.0, progress.eta_s - (now - self.progress_at))
        return f"{spent} so far, about {format_duration(max(left, 10.0))} left"

    def _best(self) -> RenderableType:
        """The best mean so far, over the seeds that are done; none if the configurations cannot be distinguished."""
        further = ", ".join(self.formatter.further)
        title = f"best {self.metric} ({self.direction}{f'; of the objectives with {further}' if further else ''})"
        allowed = (item for item in self.values.items() if item[0] not in self.ruled_out)
        means = {configuration: statistics.fmean(values.values()) for configuration, values in allowed}
        if not means:
            return _line(f"{title}: none yet")
        limit = common_limit(self.limits.get(configuration) for configuration in means)
        if limit is not None:
            runs = [run for configuration in means for run in self.recorded.get(configuration, {}).values()]
            images = fewest_images(runs) if self.metric == "top1" else None
            seeds = [len(self.values[configuration]) for configuration in means]
            return _line(f"{title}: none. {limit_sentence(limit, seeds, images)}", "yellow")
        best = (max if self.direction == "maximize" else min)(means, key=means.__getitem__)
        values = list(self.values[best].values())
        value = format_mean_and_spread(means[best], spread_of(values), self.metric)
        at = self.limits.get(best)
        name = f"{self.formatter.trial_name(self.first[best])}{'' if at is None else f', {AT[at]}'}"
        return _line(f"{title}: {value} (n = {len(values)})  {name}", "green")

    def _workers(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
        table.add_column("training", ratio=1, no_wrap=True, overflow="ellipsis")
        for name in ("epoch", "train loss", "top1", "time"):
            table.add_column(name, justify="right", no_wrap=True)
        for work in list(self.work.values())[:WORKERS]:
            epoch = work.epoch
            table.add_row(
                Text(work.name),
                work.step(self.after_training),
                f"{epoch.train_loss:.3f}" if epoch else DASH,
                f"{epoch.top1:.2f}" if epoch else DASH,
                f"{time.monotonic() - work.since:.0f} s",
            )
        more = len(self.work) - WORKERS
        return Group(Text(), table, _line(f"and {more} more", "dim")) if more > 0 else Group(Text(), table)


class LiveView(EventView):
    """Draws the state in place, a few times a second, and removes it at the end."""

    def __init__(self, console: Console, state: LiveState) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Show the text as the current activity."""
        with self._lock:
            self._state.doing = printable(text)
            self._state.add_line(text)

    def begin(self, results: StudyResults) -> None:
        """Show the best configuration of the results so far."""
        with self._lock:
            self._state.formatter.add_results(results)
            for configuration in results.rows:
                for trial in configuration.trials:
                    self._state.add_configuration(configuration.fingerprint, trial)
                recorded = {facts.row.run.seed: facts.values for facts in configuration.runs}
                for seed, value in zip(configuration.seeds, configuration.values, strict=True):
                    self._state.learn_value(configuration.fingerprint, seed, value, recorded.get(seed))
                if configuration.state not in ("complete", *OPEN):
                    self._state.ruled_out.add(configuration.fingerprint)
            self._state.find_limits()

    def show(self, event: StudyEvent, progress: Progress) -> None:
        """Apply the event; the next refresh shows it."""
        with self._lock:
            self._state.update(event, progress)

    def _draw(self) -> RenderableType:
        """Draw the state; called by the refreshing thread."""
        with self._lock:
            return self._state.draw()


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
