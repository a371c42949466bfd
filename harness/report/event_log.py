"""The events of a study as text lines; and the views that print or log them."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self, TextIO

from harness.analysis.formatting import (
    format_duration,
    format_mean_and_spread,
    format_metric,
    format_params,
    plural,
    printable,
)
from harness.analysis.results import StudyResults
from harness.config.study import Study
from harness.search import events
from harness.search.events import EventView, Progress, StudyEvent
from harness.search.samplers import seed_text
from harness.training.run import RunState


@dataclass(slots=True)
class EventFormatter:
    """Formats events; remembers the configuration of each trial, so that every line can name it."""

    metric: str
    labels: dict[int, str] = field(default_factory=dict)
    is_training: bool = True
    """Whether the runs are trained, rather than only built and measured."""
    further: tuple[str, ...] = ()
    """The further objectives of a study with several."""

    @classmethod
    def of(cls, study: Study) -> Self:
        """The formatter of a study's events."""
        metric, *further = study.objectives
        return cls(metric, further=tuple(further))

    def add_results(self, results: StudyResults) -> None:
        """Add the configurations of earlier trials."""
        self.labels |= {trial: format_params(row.params) for row in results.rows for trial in row.trials}

    def format_event(self, event: StudyEvent) -> str:
        """The event as one line."""
        match event:
            case events.StudyStarted():
                return self._study_started(event)
            case events.TrialStarted():
                self.labels[event.trial] = format_params(event.params)
                chosen = "chosen again, for further seeds" if event.is_repeat else "chosen"
                return f"{self.trial_name(event.trial)}: {chosen}"
            case events.RunQueued():
                again = "" if event.attempt == 1 else f", attempt {event.attempt}"
                task = " to measure its times in this environment" if event.only_times else ""
                return f"{self.trial_name(event.trial, event.seed)}: given to a worker{task}{again}"
            case events.RunStarted():
                return self._run_started(event)
            case events.DataNoteAdded():
                return f"{self.trial_name(event.trial, event.seed)}: {event.text}"
            case events.EpochEnded():
                return self._epoch(event)
            case events.RunEnded():
                return self._run_ended(event)
            case events.TrialEnded():
                return self._trial_ended(event)
            case events.ClaimsEvaluated():
                return self._claims_evaluated(event)
            case events.StudyEnded():
                why = f"; {event.reason}" if event.reason else ""
                if event.trained == 0:
                    return f"{event.study}: nothing was left to train{why}"
                verb = "trained" if self.is_training else "measured"
                return f"{event.study}: {verb} {plural(event.trained, 'run')} in {format_duration(event.wall_s)}{why}"

    def trial_name(self, trial: int, seed: int | None = None) -> str:
        """A trial or one of its runs by its configuration: #3 K=31-29-27-13 reparam=5 seed 1."""
        label = self.labels.get(trial)
        return f"#{trial}{f' {label}' if label else ''}{'' if seed is None else f' {seed_text(seed)}'}"

    def _study_started(self, event: events.StudyStarted) -> str:
        left = event.runs_total - event.runs_done
        if left <= 0:
            return f"{event.study}: all {plural(event.runs_done, 'run')} are already done"
        if event.runs_done:
            return f"{event.study}: resumed, {event.runs_done} of {plural(event.runs_total, 'run')} are done"
        return f"{event.study}: {plural(event.runs_total, 'run')} to go"

    def _run_started(self, event: events.RunStarted) -> str:
        started = event.started
        since = "" if started.first_epoch == 1 else f", from epoch {started.first_epoch} on"
        self.is_training = started.epochs > 0
        activity = "training" if self.is_training else "untrained, measuring"
        if self.is_training and started.first_epoch > started.epochs:
            activity, since = "trained already, measuring", ""
        notes = "".join(f"; {note}" for note in started.notes)
        return (
            f"{self.trial_name(event.trial, event.seed)}: {activity} on {started.host}, {started.device}{since}{notes}"
        )

    def _epoch(self, event: events.EpochEnded) -> str:
        epoch = event.epoch
        return (
            f"{self.trial_name(event.trial, event.seed)}: epoch {epoch.epoch}/{event.epochs}, "
            f"train loss {epoch.train_loss:.3f}, top1 {epoch.top1:.2f}, {format_duration(epoch.wall_s)}"
        )

    def _run_ended(self, event: events.RunEnded) -> str:
        name = self.trial_name(event.trial, event.seed)
        value = "" if event.value is None else f", {self.metric} {format_metric(event.value, self.metric)}"
        value += self._further(event.further)
        if event.is_reused:
            return f"{name}: taken from the store, {event.state}{value}"
        if event.state == RunState.COMPLETE:
            return f"{name}: complete{value}, in {format_duration(event.wall_s)}"
        cause = f", {event.cause}" if event.cause else ""
        again = "; will be tried again" if event.will_retry else ""
        return f"{name}: {str(event.state).replace('_', ' ')}{cause}{again}"

    def _claims_evaluated(self, event: events.ClaimsEvaluated) -> str:
        output = "; ".join(
            _claim_line(name, verdict, event.distances.get(name)) for name, verdict in event.verdicts.items()
        )
        more = f"; {plural(event.arms, 'configuration')} get another seed" if event.arms else ""
        return f"claims judged: {output}{more}"

    def _trial_ended(self, event: events.TrialEnded) -> str:
        name = self.trial_name(event.trial)
        if event.state != "complete":
            return f"{name}: {event.state}{f', {event.reason}' if event.reason else ''}"
        value = format_mean_and_spread(event.value, event.spread, self.metric)
        reason = f"; {event.reason}" if event.reason else ""
        is_short = event.seeds_asked is not None and event.seeds < event.seeds_asked
        seeds = f"{event.seeds} of {event.seeds_asked} seeds" if is_short else plural(event.seeds, "seed")
        return f"{name}: {self.metric} {value}{self._further(event.further)} over {seeds}{reason}"

    def _further(self, values: tuple[float, ...]) -> str:
        """The further objectives as the end of a text; empty without any."""
        named = zip(self.further, values, strict=True) if values else ()
        return "".join(f", {name} {format_metric(value, name)}" for name, value in named)


class LogView(EventView):
    """One line per event with its time, for files, pipes and logs; no control characters."""

    def __init__(self, formatter: EventFormatter, out: TextIO | None = None) -> None:
        self._formatter = formatter
        self._out = out or sys.stdout

    def __exit__(self, *_: object) -> None:
        self._out.flush()

    def note(self, text: str) -> None:
        """Print the text as a line."""
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {printable(text)}", file=self._out, flush=True)

    def begin(self, results: StudyResults) -> None:
        """Remember the configuration of each trial."""
        self._formatter.add_results(results)

    def show(self, event: StudyEvent, progress: Progress) -> None:
        """Print the event with the progress of the study."""
        self.note(f"[{progress.runs_done}/{progress.runs_total}] {self._formatter.format_event(event)}")


LOGGER = logging.getLogger("harness")


class LoggingView(LogView):
    """One message per event to the logger `harness`, at level INFO; `progress`, if given, is called with each event."""

    def __init__(
        self, formatter: EventFormatter, progress: Callable[[StudyEvent, Progress], None] | None = None
    ) -> None:
        super().__init__(formatter)
        self._progress = progress

    def note(self, text: str) -> None:
        """Log the text."""
        LOGGER.info(printable(text))

    def show(self, event: StudyEvent, progress: Progress) -> None:
        """Log the event, then call `progress`."""
        super().show(event, progress)
        if self._progress is not None:
            self._progress(event, progress)


def _claim_line(name: str, verdict: str, distance: str | None) -> str:
    return f"{name} is {verdict}" + ("" if distance is None else f", {distance}")
