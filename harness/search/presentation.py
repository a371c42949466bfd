"""How a study is presented to Optuna's samplers; what is stored does not depend on it.

A study file's list of kernel sizes is stored as choices, whose values can be read in the database and in the dashboard.
To a sampler, such an axis is presented as the numbers 0, 1, 2, ... in the order of its values, so that it learns that
13 lies between 7 and 31. Samplers that need all parameters in every trial see an inactive axis at its middle value.

A `PresentedSampler` holds one of Optuna's samplers, passes it a study with the presented trials, and translates what it
proposes. The study is a real `optuna.Study`, whose storage translates what is read. This module imports Optuna.
"""

import copy
import math
import statistics
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna import Study
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.pruners import _filter_study
from optuna.samplers import BaseSampler
from optuna.samplers._ga import BaseGASampler
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from harness.analysis.racing import RACE_ROUND
from harness.analysis.run_status import PAUSED
from harness.config.axes import Axis, Choice
from harness.config.sampler_checks import values_in_order
from harness.search.lag import hidden_before
from harness.search.trial import distribution_of, storable_choice
from harness.search.wilcoxon import JUDGED
from harness.storage.storage_view import StorageView

FEASIBLE = -1.0
"""Presented amount of a constraint that a trial has not set; negative amounts are feasible."""
CONSTRAINT_PREFIX = "constraints:"
"""Prefix of Optuna's system attributes that hold constraints."""


@dataclass(frozen=True, slots=True)
class PresentedAxis:
    """An axis as it is stored, and as samplers see it."""

    stored: BaseDistribution
    presented: BaseDistribution
    labels: tuple[Any, ...] | None
    """The stored values in the presented order; None if values are presented as they are stored."""
    middle: Any
    """The presented value of an inactive axis."""

    def encode(self, value: Any) -> Any:
        """The presented form of a stored value; a float that was drawn in steps matches a label up to rounding."""
        if self.labels is None:
            return value
        if value in self.labels:
            return self.labels.index(value)
        return next(i for i, label in enumerate(self.labels) if math.isclose(label, value, rel_tol=1e-9))

    def decode(self, value: Any) -> Any:
        """The stored form of a presented value."""
        return value if self.labels is None else self.labels[value]


def present_axis(axis: Axis, *, orders_pairs: bool = False) -> PresentedAxis:
    """An axis for samplers; with `orders_pairs`, two values without an order are presented as 0 and 1, too."""
    stored, middle = distribution_of(axis), axis.at((len(axis) - 1) // 2)
    if not isinstance(axis, Choice):
        return PresentedAxis(stored, stored, None, middle)
    ordered = values_in_order(axis) or (axis.values if orders_pairs and len(axis) == 2 else None)
    if ordered is None or len(axis) < 2:
        return PresentedAxis(stored, stored, None, storable_choice(middle))
    labels = tuple(storable_choice(value) for value in ordered)
    return PresentedAxis(stored, IntDistribution(0, len(labels) - 1), labels, (len(labels) - 1) // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """What a sampler needs to see."""

    orders_pairs: bool = False
    """Whether two values without an order are presented as numbers."""
    is_complete: bool = False
    """Whether every trial has a value on every axis, and every proposal is made for all of them."""
    constraints: Literal["stored", "aligned"] = "stored"
    """With `aligned`, all complete trials have the same constraints, as a Gaussian process needs them."""
    ends_trials: bool = True
    """Whether the sampler is notified of finished trials."""
    hides_last: bool = False
    """Whether the trials that were opened last are presented as running (`harness.search.lag`)."""


class PresentedSampler(BaseSampler):
    """One of Optuna's samplers, for a study with these axes."""

    def __init__(self, sampler: BaseSampler, axes: Mapping[str, Axis], presentation: Presentation) -> None:
        self.sampler = sampler
        self._presentation = presentation
        self._axes = {
            name: present_axis(axis, orders_pairs=presentation.orders_pairs) for name, axis in sorted(axes.items())
        }
        self._views: dict[int, Study] = {}

    def reseed_rng(self) -> None:
        """As in `BaseSampler`, like all methods of this class."""
        self.sampler.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: D102
        self._views.get(study._study_id, study)._thread_local.cached_all_trials = None  # as `Study.ask` does
        if self._presentation.is_complete:
            return {name: axis.stored for name, axis in self._axes.items() if not axis.stored.single()}
        presented = self.sampler.infer_relative_search_space(*self._view(study, trial))
        return {name: self._axes[name].stored for name in presented}

    def sample_relative(  # noqa: D102
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        presented = {name: self._axes[name].presented for name in search_space}
        proposal = self.sampler.sample_relative(*self._view(study, trial), presented)
        return {name: self._axes[name].decode(value) for name, value in proposal.items()}

    def sample_independent(  # noqa: D102
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        axis = self._axes.get(param_name) or PresentedAxis(param_distribution, param_distribution, None, None)
        return axis.decode(self.sampler.sample_independent(*self._view(study, trial), param_name, axis.presented))

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:  # noqa: D102
        view, presented = self._view(study, trial)
        if isinstance(
            self.sampler, BaseGASampler
        ):  # a queued network, which it did not propose, is of a generation, too
            self.sampler.get_trial_generation(view, presented)
        self.sampler.before_trial(view, presented)

    def after_trial(  # noqa: D102
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        if self._presentation.ends_trials:
            self.sampler.after_trial(*self._view(study, trial), state, values)

    def _view(self, study: Study, trial: FrozenTrial) -> tuple[Study, FrozenTrial]:
        """The study and the trial as the sampler sees them; of hyperband, only the trials of the same bracket."""
        view = self._views.get(study._study_id)
        if view is None or not _is_of(view, study):
            storage = PresentedStorage(study, self._axes, self._presentation)
            view = Study(study.study_name, storage, self.sampler, study.pruner)
            self._views[study._study_id] = view
        view.pruner = study.pruner
        assert isinstance(view._storage, PresentedStorage)
        view._storage.proposed = trial.number
        presented = view._storage.get_trial(trial._trial_id)
        return _filter_study(view, presented), presented


def _is_of(view: Study, study: Study) -> bool:
    return isinstance(view._storage, PresentedStorage) and view._storage.source is study._storage


@dataclass(slots=True)
class _Seen:
    """A trial and its presented form."""

    trial: FrozenTrial
    presented: FrozenTrial


class PresentedStorage(StorageView):
    """A storage whose trials are those of another one, as a sampler sees them; what is written goes to the other one.

    Trials are translated once. A storage replaces the object of a trial that changes, or returns new objects.
    """

    def __init__(self, study: Study, axes: Mapping[str, PresentedAxis], presentation: Presentation) -> None:
        super().__init__(study._storage)
        self._study_id, self._name, self._directions = study._study_id, study.study_name, study.directions
        self._axes = axes
        self._presentation = presentation
        self.proposed = 0
        """The number of the trial for which the others are presented."""
        self._seen: dict[int, _Seen] = {}

    def get_all_studies(self) -> list[FrozenStudy]:
        """As in `BaseStorage`, like all methods of this class."""
        return [study for study in self.source.get_all_studies() if study._study_id == self._study_id]

    def get_study_id_from_name(self, study_name: str) -> int:  # noqa: D102
        return self._study_id if study_name == self._name else self.source.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:  # noqa: D102
        return self._name if study_id == self._study_id else self.source.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:  # noqa: D102
        return self._directions if study_id == self._study_id else self.source.get_study_directions(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:  # noqa: D102
        return self._present(self.source.get_trial(trial_id))

    def get_all_trials(  # noqa: D102
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [self._present(trial) for trial in self.source.get_all_trials(study_id, deepcopy=False)]
        if self._presentation.hides_last:
            hidden = hidden_before(trials, self.proposed)
            trials = [_running(trial) if trial.number in hidden else trial for trial in trials]
        if self._presentation.constraints == "aligned":
            trials = _aligned(trials)
        chosen = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def _present(self, trial: FrozenTrial) -> FrozenTrial:
        seen = self._seen.get(trial._trial_id)
        if seen is None or seen.trial is not trial:
            seen = self._seen[trial._trial_id] = _Seen(trial, self._translated(trial))
        return seen.presented

    def _translated(self, trial: FrozenTrial) -> FrozenTrial:
        axes, presented = self._axes, copy.copy(trial)
        is_whole = trial.state.is_finished() or "fingerprint" in trial.user_attrs  # no further axis will be chosen
        is_filled = self._presentation.is_complete and is_whole and bool(trial.params)
        names = axes if is_filled else [name for name in trial.params if name in axes]
        others = {name: value for name, value in trial.params.items() if name not in axes}
        presented._distributions = {name: axes[name].presented for name in names} | {
            name: trial.distributions[name] for name in others
        }
        presented.params = {
            name: axes[name].encode(trial.params[name]) if name in trial.params else axes[name].middle for name in names
        } | others
        if len(self._directions) > 1:
            presented.intermediate_values = {}  # by which TPE would order pruned trials, of one objective only
        if trial.state == TrialState.RUNNING and trial.user_attrs.get(PAUSED):
            presented.state = TrialState.PRUNED  # its curve is known so far, and no worker trains it
        if RACE_ROUND in trial.user_attrs and trial.state.is_finished():
            presented.state, presented._values = TrialState.FAIL, None  # chosen by its results; samplers ignore it
        if trial.state == TrialState.PRUNED and JUDGED in trial.user_attrs:
            values = trial.user_attrs.get("values")
            if values:  # given up after some seeds: their mean is known, as that of a configuration with fewer seeds
                presented.state, presented._values = TrialState.COMPLETE, [statistics.fmean(values)]
        return presented


def _running(trial: FrozenTrial) -> FrozenTrial:
    """A trial as it was before it had results."""
    presented = copy.copy(trial)
    presented.state, presented._values, presented.datetime_complete = TrialState.RUNNING, None, None
    presented.intermediate_values = {}
    system = trial.system_attrs.items()
    presented.system_attrs = {key: value for key, value in system if not key.startswith(CONSTRAINT_PREFIX)}
    return presented


def _aligned(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials, where every complete one has all constraints that any of them has set."""
    is_complete = [trial.state == TrialState.COMPLETE for trial in trials]
    names = {
        name for trial, complete in zip(trials, is_complete, strict=True) if complete for name in trial.constraints
    }
    if not names:
        return trials
    defaults = {f"{CONSTRAINT_PREFIX}{name}": FEASIBLE for name in sorted(names)}
    result = []
    for trial, complete in zip(trials, is_complete, strict=True):
        if complete:
            trial = copy.copy(trial)
            others = {key: value for key, value in trial.system_attrs.items() if key not in defaults}
            trial.system_attrs = others | {key: trial.system_attrs.get(key, defaults[key]) for key in defaults}
        result.append(trial)
    return result
