"""Events that the driver yields while a study runs: plain values for display. The driver itself prints nothing.

`EventView` is the interface of what displays them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from harness.analysis.limits import RunValues
from harness.analysis.results import StudyResults
from harness.analysis.run_status import TrialStatus
from harness.models.spec.network import NetworkSpec
from harness.training.run import Epoch, RunState, Started


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a study."""

    runs_done: int
    runs_total: int
    """Exact for a grid; an upper bound for a sampler: the trials still allowed, times the seeds."""
    eta_s: float | None
    """Estimated seconds to the end, from wall times so far; None before the first run of this recipe has ended."""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Base class of the events of one run of a trial."""

    trial: int
    run_id: str
    seed: int


@dataclass(frozen=True, slots=True)
class StudyStarted:
    """The driver has opened the study and counted the remaining runs."""

    study: str
    runs_total: int
    runs_done: int
    """Runs of this study that the store already has; above 0, the study is resumed."""


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A configuration was chosen and fits the rules and budgets."""

    trial: int
    params: dict[str, Any]
    spec: NetworkSpec
    is_repeat: bool = False
    """Whether the study already had the configuration, so that this is a further seed of it."""
    configuration: str = ""
    """Fingerprint of the configuration."""


@dataclass(frozen=True, slots=True)
class RunQueued(RunEvent):
    """A run was submitted to the executor."""

    spec: NetworkSpec
    attempt: int
    only_times: bool = False
    """Whether the run is complete, and only its times are measured again."""


@dataclass(frozen=True, slots=True)
class RunStarted(RunEvent):
    """A worker started a run."""

    started: Started


@dataclass(frozen=True, slots=True)
class DataNoteAdded(RunEvent):
    """A run reported a note about its data that belongs to its result."""

    text: str


@dataclass(frozen=True, slots=True)
class EpochEnded(RunEvent):
    """A run finished an epoch."""

    epoch: Epoch
    epochs: int


@dataclass(frozen=True, slots=True)
class RunEnded(RunEvent):
    """A run ended, or was taken from the store."""

    state: RunState
    value: float | None
    """The first objective, if the run is complete."""
    wall_s: float
    cause: str | None = None
    is_reused: bool = False
    """Whether the store already had it, so that nothing was trained."""
    will_retry: bool = False
    recorded: RunValues | None = None
    """The recorded metrics of the run, if it has a value."""
    further: tuple[float, ...] = ()
    """The further objectives of a study with several, if the run is complete."""


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial ended, and the sampler has its result."""

    trial: int
    state: str
    """`complete`, `pruned` or `failed`."""
    value: float | None
    """Mean of the first objective over the seeds, for a complete trial."""
    spread: float | None
    """Standard deviation over the seeds (n - 1), for two or more seeds."""
    seeds: int
    """Number of seeds in the value."""
    reason: str | None = None
    status: TrialStatus | None = None
    """The status of its configuration, from all of its trials."""
    seeds_asked: int | None = None
    """Number of seeds that the trial was planned with."""
    further: tuple[float, ...] = ()
    """Means of the further objectives of a study with several, for a complete trial."""


@dataclass(frozen=True, slots=True)
class ClaimsEvaluated:
    """The claims were evaluated on the seeds so far."""

    verdicts: dict[str, str]
    """Verdict by claim."""
    arms: int
    """Number of configurations that get another seed, because a claim about them is undecided."""
    distances: Mapping[str, str] = field(default_factory=dict, compare=False)
    """How far each open claim is from a verdict, as text."""


@dataclass(frozen=True, slots=True)
class StudyEnded:
    """Nothing is left to train."""

    study: str
    trained: int
    """Number of runs trained by this call; 0 if the store already had all of them."""
    wall_s: float
    reason: str | None = None
    """Reason why a sampler ended before it used all of its trials, or the number of its repeated proposals."""


StudyEvent = (
    StudyStarted
    | TrialStarted
    | RunQueued
    | RunStarted
    | DataNoteAdded
    | EpochEnded
    | RunEnded
    | TrialEnded
    | ClaimsEvaluated
    | StudyEnded
)


class EventView:
    """The interface of views of a study's events; itself a view that shows nothing.

    A view is a context manager; `note` shows the current activity apart from the events, `show` takes an event and the
    progress of the study.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the view and restore the terminal."""

    def note(self, text: str) -> None:
        """Show the current activity."""

    def begin(self, results: StudyResults) -> None:
        """Add the results so far, before the first event."""

    def show(self, event: StudyEvent, progress: Progress) -> None:
        """Show an event."""
