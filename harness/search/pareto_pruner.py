"""Successive halving by Pareto rank, in a study with several objectives, where Optuna's pruners refuse to decide.

At each rung of its screening run, a configuration is compared with all configurations that have reached the rung. It
passes if it is in the best third: by non-dominated rank, and within a rank by crowding distance; of fewer than three
configurations, if it is the first. Equal ones are treated alike. The objectives of the comparison are those that are
known at a rung: curves with their value there, and costs. Others, which are measured after the training, are left out.

A trial stores its values and the decision of each rung as one attribute, in one write, so that a resumed driver decides
nothing a second time. The values are those of the screening run alone, which are in no mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.analysis.objective import COST_OBJECTIVES
from harness.config.objectives import known_objectives
from harness.config.study import HALVING_FACTOR, Direction, Study, decision_epochs
from harness.training.run import Epoch

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from harness.search.trial import OpenTrial

RUNGS = "pareto_rungs"
"""Attribute of a trial: by the number of epochs of a rung, the values of its screening run, and whether it passed."""
LARGEST = 1e300
"""In place of infinity; a value that is not a number is the worst."""
VALUES, PASSED = "values", "passed"


class ParetoPruner:
    """Decides at the rungs of the screening runs of a study with several objectives."""

    def __init__(self, study: Study) -> None:
        self._objectives = {name: study.objectives[name] for name in known_objectives(study)}
        self._rungs = decision_epochs(study.search.pruner, study.proxy.epochs)
        self._is_deterministic = study.search.deterministic

    def reason_to_stop(self, owner: "OpenTrial", epoch: Epoch) -> str | None:
        """Why the screening run of a trial ends after this epoch; None if it passes. Stores a new decision."""
        if epoch.epoch not in self._rungs:
            return None
        stored = dict(owner.frozen().user_attrs.get(RUNGS, {}))
        key = str(epoch.epoch)
        if key not in stored:
            values = self._values(owner, epoch)
            rivals = _values_at(self._rivals(owner), key)
            stored[key] = {VALUES: values, PASSED: is_in_best_third(values, rivals, self._objectives)}
            owner.trial.set_user_attr(RUNGS, stored)
        if stored[key][PASSED]:
            return None
        return f"not in the best third by Pareto rank after epoch {epoch.epoch}"

    def _values(self, owner: "OpenTrial", epoch: Epoch) -> dict[str, float]:
        attributes = owner.trial.user_attrs
        return {
            name: float(attributes[name]) if name in COST_OBJECTIVES else float(getattr(epoch, name))
            for name in self._objectives
        }

    def _rivals(self, owner: "OpenTrial") -> Iterable["FrozenTrial"]:
        """The other trials that the decision may use."""
        trials: Sequence[FrozenTrial] = owner.trial.study.get_trials(deepcopy=False)
        hidden: set[int] = set()
        if self._is_deterministic:
            from harness.search.lag import hidden_before

            later = {trial.number for trial in trials if trial.number > owner.number}
            hidden = hidden_before(trials, owner.number) | later
        return (trial for trial in trials if trial.number != owner.number and trial.number not in hidden)


def was_stopped(attributes: Mapping[str, Any]) -> bool:
    """Whether a trial with these attributes was stopped at a rung, even if its driver ended before the trial did."""
    return any(not decision[PASSED] for decision in attributes.get(RUNGS, {}).values())


def is_in_best_third(
    values: Mapping[str, float], rivals: Sequence[Mapping[str, float]], objectives: Mapping[str, Direction]
) -> bool:
    """Whether a configuration is in the best third of itself and its rivals; values are by objective."""
    import numpy as np

    from harness.analysis.statistics.pareto import crowding_distances, pareto_ranks

    signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in objectives.values()])
    points = signs * np.array([[one[name] for name in objectives] for one in (values, *rivals)])
    points = np.clip(np.nan_to_num(points, nan=-LARGEST), -LARGEST, LARGEST)
    most = max(1, len(points) // HALVING_FACTOR)
    ranks = pareto_ranks(points, least=most)
    before, own = int((ranks < ranks[0]).sum()), ranks == ranks[0]
    if before + int(own.sum()) <= most:
        return True
    if before >= most:
        return False
    crowding = crowding_distances(points[own])
    return int((crowding > crowding[0]).sum()) < most - before


def _values_at(trials: Iterable["FrozenTrial"], key: str) -> list[Mapping[str, float]]:
    """The values of the trials that have reached a rung."""
    rungs = (trial.user_attrs.get(RUNGS, {}) for trial in trials)
    return [by_rung[key][VALUES] for by_rung in rungs if key in by_rung]
