"""The state of a trial and of a configuration, for results, live view, `best`, history and sampler.

A configuration may have several trials, one for each time it was chosen. It is infeasible if one of them is, whatever
the results of the others: a configuration that diverges with one seed in four is not reliable.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.formatting import plural

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

DIVERGED = "diverged"
"""Name of the constraint, and of the state of a configuration that has values and a seed that diverged."""
OVER_BUDGET = "over budget"
INFEASIBLE = (DIVERGED, OVER_BUDGET)
"""States of configurations that have values and must not be chosen."""

PAUSED = "paused"
"""Attribute of a trial: the number of epochs after which it is paused; 0 once it is promoted. Also the state."""
OPEN = ("running", "waiting", PAUSED)


class TrialStatus(NamedTuple):
    """The status of a trial or a configuration."""

    state: str
    """`complete`, `diverged`, `over budget`, `pruned`, `rejected`, `failed`, `running`, `waiting` or `paused`."""
    reason: str | None = None
    has_diverged: bool = False
    """Whether a seed diverged; without a complete seed, the state is `failed`."""

    @property
    def has_values(self) -> bool:
        """Whether a seed is complete."""
        return self.state == "complete" or self.state in INFEASIBLE


def trial_status(trial: "FrozenTrial") -> TrialStatus:
    """The status of a trial, with its reason."""
    failures = trial.user_attrs.get("failures") or {}
    reason = next(iter(failures.values()), None)
    has_diverged = trial.constraints.get(DIVERGED, 0.0) > 0
    if has_diverged:
        reason = next((failure for failure in failures.values() if DIVERGED in failure), reason)
    match trial.state.name:
        case "COMPLETE" if has_diverged:
            return TrialStatus(DIVERGED, reason, has_diverged)
        case "COMPLETE":
            over = [name for name, violation in trial.constraints.items() if violation > 0]
            if over:
                return TrialStatus(OVER_BUDGET, f"over the budget of {', '.join(over)}")
            return TrialStatus("complete", reason)
        case "PRUNED" if "rejected" in trial.user_attrs:
            return TrialStatus("rejected", trial.user_attrs["rejected"])
        case "PRUNED" if has_diverged:
            return TrialStatus("failed", reason or DIVERGED, has_diverged)
        case "PRUNED":
            steps = trial.intermediate_values
            return TrialStatus("pruned", reason or (f"behind the others after epoch {max(steps)}" if steps else None))
        case "FAIL":
            return TrialStatus("failed", reason)
    if epochs := trial.user_attrs.get(PAUSED):
        return TrialStatus(PAUSED, f"after {plural(epochs, 'epoch')}, to be resumed if it is promoted")
    return TrialStatus(trial.state.name.lower())


def configuration_status(trials: Sequence[TrialStatus]) -> TrialStatus:
    """The status of a configuration from its trials in order: infeasible before complete, else that of the last one."""
    diverged = [status for status in trials if status.has_diverged]
    if diverged and any(status.has_values for status in trials):
        return TrialStatus(
            DIVERGED, next((status.reason for status in diverged if status.reason), None), has_diverged=True
        )
    for state in (OVER_BUDGET, "complete"):
        first = next((status for status in trials if status.state == state), None)
        if first is not None:
            return first
    return trials[-1]


def configuration_statuses(trials: Iterable["FrozenTrial"]) -> dict[str, TrialStatus]:
    """The status of each configuration with a trial that was not rejected, by its fingerprint."""
    groups = trials_by_configuration(trials).items()
    return {fingerprint: configuration_status(list(map(trial_status, group))) for fingerprint, group in groups}


def trials_by_configuration(trials: Iterable["FrozenTrial"]) -> dict[str, list["FrozenTrial"]]:
    """The trials of each configuration, by its fingerprint; without those that were rejected."""
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        if "fingerprint" in trial.user_attrs:
            groups.setdefault(trial.user_attrs["fingerprint"], []).append(trial)
    return groups
