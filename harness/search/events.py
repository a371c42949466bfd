"""What the driver says while a study runs: plain values for whoever shows them. The driver itself prints nothing."""

from dataclasses import dataclass
from typing import Any

from harness.analysis.limits import RunValues
from harness.analysis.run_status import TrialStatus
from harness.models.spec.network import NetworkSpec
from harness.training.run import Epoch, RunState, Started


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a study stands."""

    runs_done: int
    runs_total: int
    """Known for a grid; for a sampler, an upper bound: the trials still allowed, times the seeds."""
    runs_active: int
    eta_s: float | None
    """Seconds to the end by the wall times seen so far; None before the first run of this recipe has ended."""
    best_trial: int | None
    best_value: float | None


@dataclass(frozen=True, slots=True)
class StudyStarted:
    """The driver has the study and knows what is left to do."""

    study: str
    runs_total: int
    runs_done: int
    """Runs of this study that the store has already; above 0, the study goes on where it was."""


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A configuration was chosen and fits the rules and budgets."""

    trial: int
    params: dict[str, Any]
    spec: NetworkSpec
    is_repeat: bool = False
    """Whether the study had the configuration already, so that this is a further seed of it."""


@dataclass(frozen=True, slots=True)
class RunQueued:
    """A run was handed to the executor."""

    trial: int
    run_id: str
    seed: int
    spec: NetworkSpec
    attempt: int
    only_times: bool = False
    """Whether the run is complete, and only its times are to be measured again."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A worker took up a run."""

    trial: int
    run_id: str
    seed: int
    started: Started


@dataclass(frozen=True, slots=True)
class DataNoteAdded:
    """A run found something about its data that belongs to its result."""

    trial: int
    run_id: str
    seed: int
    text: str


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """A run finished an epoch."""

    trial: int
    run_id: str
    seed: int
    epoch: Epoch
    epochs: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run came to an end, or was taken from the store."""

    trial: int
    run_id: str
    seed: int
    state: RunState
    value: float | None
    """The objective, where the run is complete."""
    wall_s: float
    cause: str | None = None
    is_reused: bool = False
    """Whether the store had it already, so that nothing was trained."""
    will_retry: bool = False
    recorded: RunValues | None = None
    """What the run recorded, where it has a value."""


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A configuration was told to the sampler."""

    trial: int
    state: str
    """`complete`, `pruned` or `failed`."""
    value: float | None
    """Mean of the objective over the seeds, for a complete trial."""
    spread: float | None
    """Standard deviation over the seeds (n - 1), where there are two or more."""
    seeds: int
    """Seeds behind the value."""
    reason: str | None = None
    status: TrialStatus | None = None
    """How its configuration stands now, by all of its trials."""
    seeds_asked: int | None = None
    """Seeds that the trial was to have."""


@dataclass(frozen=True, slots=True)
class ClaimsEvaluated:
    """The claims were judged on the seeds so far."""

    verdicts: dict[str, str]
    """By claim."""
    arms: int
    """Configurations that get another seed, because a claim of theirs is undecided."""


@dataclass(frozen=True, slots=True)
class StudyEnded:
    """Nothing is left to train."""

    study: str
    trained: int
    """Runs trained by this call; 0 when the store had everything."""
    wall_s: float
    reason: str | None = None
    """Why a sampler ended before its trials were used up, or that it repeated itself."""


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
