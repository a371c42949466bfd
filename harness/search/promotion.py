"""Pause and promote: asynchronous successive halving that resumes what it had paused (the pruner `asha`).

A screening run is paused at each rung. Whenever a worker is free and no run waits for one, the best paused
configuration of the highest possible rung is promoted: it resumes from its checkpoint and trains to the next rung, or,
after the last one, the configuration is trained with its seeds. Only when none can be promoted is another configuration
opened (Li et al. 2020, algorithm 2). A configuration that was paused early can so be promoted later, when enough worse
ones have arrived; a rule that stops runs cannot do that. When all trials are used, the best of each rung is promoted
even if less than a third are behind it, so that a search ends with a result; the others end as pruned.

What a study has decided is stored with its trials: the learning curve, the number of rungs that were passed, and the
epochs after which a trial is paused. So a driver that resumes a study decides on the same values.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.analysis.formatting import plural
from harness.analysis.run_status import PAUSED
from harness.config.study import HALVING_FACTOR, Study, decision_epochs
from harness.search.trial import OpenTrial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ASHA = "asha"
"""Name of the pruner."""
PAUSED_AT_RUNG = "paused, to be resumed if it is promoted"
"""Why a run of a paused trial ends."""
RUNGS_PASSED = "rungs_passed"
"""Attribute of a trial: the number of rungs from which it was promoted."""


def next_promotion(
    rungs: Sequence[Mapping[int, float]], passed: Mapping[int, int], paused: Collection[int], *, least: int = 0
) -> int | None:
    """The trial to promote next; None if there is none.

    `rungs` are the values of all trials that have reached each rung, larger ones better, the lowest rung first;
    `passed` is the number of rungs that a trial was promoted from. Of the paused trials among the best third of a rung,
    and at least among its best `least`, it is the best one; of equal ones, the first.
    """
    for rung in reversed(range(len(rungs))):
        values = rungs[rung]
        count = max(least, len(values) // HALVING_FACTOR)
        for trial in sorted(values, key=lambda trial: (-values[trial], trial))[:count]:
            if trial in paused and passed.get(trial, 0) == rung:
                return trial
    return None


@dataclass(slots=True)
class Promoter:
    """Pauses and promotes the screening runs of one driver."""

    study: Study
    rungs: tuple[int, ...]
    """In epochs."""
    _values: list[dict[int, float]] = field(init=False)
    """By rung and trial, so that larger ones are better."""

    def __post_init__(self) -> None:
        self._values = [{} for _ in self.rungs]

    @classmethod
    def of(cls, study: Study) -> "Promoter | None":
        """The promoter of a study; None if its pruner is another one, or has no rung in so few epochs."""
        rungs = decision_epochs(study.search.pruner, study.proxy.epochs) if study.search.pruner == ASHA else ()
        return cls(study, rungs) if rungs else None

    def read(self, trials: Iterable["FrozenTrial"]) -> None:
        """Read the values of the trials of earlier calls."""
        for trial in trials:
            if "screening" in trial.user_attrs:
                for epochs, value in trial.intermediate_values.items():
                    self._add(trial.number, epochs, value)

    def restore(self, owner: OpenTrial) -> None:
        """Set how far a trial has come that is opened, or opened again."""
        owner.rungs_passed = owner.trial.user_attrs.get(RUNGS_PASSED, 0)
        owner.is_screened = owner.rungs_passed == len(self.rungs)

    def pause_at(self, owner: OpenTrial, epoch: int, value: float) -> bool:
        """Pause a trial whose screening run has this value after an epoch, if that is its next rung."""
        self._add(owner.number, epoch, value)
        if owner.is_screened or epoch != self.rungs[owner.rungs_passed]:
            return False
        owner.is_paused = True
        owner.trial.set_user_attr(PAUSED, epoch)
        return True

    def next(self, opened: Iterable[OpenTrial], *, is_end: bool = False) -> OpenTrial | None:
        """The open trial to promote next; None if there is none. One whose run has not stopped yet is not promoted.

        At the end of a search, the best of each rung is promoted however few have reached it.
        """
        paused = {owner.number: owner for owner in opened if owner.is_paused and not owner.active}
        passed = {number: owner.rungs_passed for number, owner in paused.items()}
        number = next_promotion(self._values, passed, paused, least=int(is_end)) if paused else None
        return None if number is None else paused[number]

    def promote(self, owner: OpenTrial) -> None:
        """Let a paused trial continue to its next rung, or to its seeds."""
        owner.is_paused = False
        owner.rungs_passed += 1
        owner.is_screened = owner.rungs_passed == len(self.rungs)
        owner.trial.set_user_attr(PAUSED, 0)
        owner.trial.set_user_attr(RUNGS_PASSED, owner.rungs_passed)

    def reason(self, owner: OpenTrial) -> str:
        """Why a paused trial ends without being promoted, with its rank."""
        values = self._values[owner.rungs_passed]
        rank = 1 + sum((-value, trial) < (-values[owner.number], owner.number) for trial, value in values.items())
        epochs = plural(self.rungs[owner.rungs_passed], "epoch")
        return f"paused after {epochs}, {rank} of {len(values)} there, and not promoted by the end"

    def _add(self, trial: int, epochs: int, value: float) -> None:
        if epochs in self.rungs:
            is_maximized = self.study.direction == "maximize"
            self._values[self.rungs.index(epochs)][trial] = value if is_maximized else -value


def paused_trials(trials: Iterable["FrozenTrial"]) -> list[int]:
    """The numbers of the trials that have ended paused, which a study that grows can still promote."""
    return [trial.number for trial in trials if trial.state.name == "PRUNED" and trial.user_attrs.get(PAUSED)]
