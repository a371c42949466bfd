"""What samplers see of a study: ordered axes as numbers, and the trials as they are now."""

import random
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from harness.config.axes import Axis, Choice, Range
from harness.search.presentation import Presentation, PresentedSampler, PresentedStorage, present_axis
from harness.search.tpe import IncrementalTPESampler
from harness.search.trial import distribution_of, suggest


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((3, 7, 13, 31), (3, 7, 13, 31)),
        ((31, 3, 13), (3, 13, 31)),
        ((0.0, 0.05, 0.2), (0.0, 0.05, 0.2)),
        (((3, 3, 3), (13, 13, 13), (31, 29, 13)), ("[3, 3, 3]", "[13, 13, 13]", "[31, 29, 13]")),
        (((3, 13, 3), (13, 3, 3)), None),
        ((3, (13, 13)), None),
        ((None, 3, 5), None),
        ((True, False), None),
        (("plain", "dilated", "stripes"), None),
        ((3,), None),
    ],
)
def test_values_with_an_order_are_presented_as_numbers(values: Any, labels: Any) -> None:
    axis = present_axis(Choice(values))
    assert axis.labels == labels
    assert isinstance(axis.stored, CategoricalDistribution)
    if labels is None:
        assert axis.presented == axis.stored and axis.encode(values[0]) == values[0]
    else:
        assert axis.presented == IntDistribution(0, len(values) - 1)
        assert [axis.encode(label) for label in labels] == list(range(len(labels)))
        assert tuple(axis.decode(i) for i in range(len(labels))) == labels


def test_two_values_are_ordered_for_the_sampler_that_needs_it() -> None:
    axis = present_axis(Choice((True, False)), orders_pairs=True)
    assert axis.presented == IntDistribution(0, 1) and axis.decode(axis.encode(False)) is False


@pytest.mark.parametrize("axis", [Range(3, 31, 2), Range(1, 64, log=True), Range(0.0, 0.3, 0.1)])
def test_ranges_are_presented_as_they_are(axis: Axis) -> None:
    presented = present_axis(axis)
    assert presented.presented == presented.stored == distribution_of(axis)
    assert presented.decode(presented.encode(axis.at(1))) == axis.at(1)


def test_a_float_of_a_former_range_is_found_among_choices() -> None:
    assert present_axis(Choice((0.0, 0.3, 0.5))).encode(0.1 + 0.2) == 1


def proposed_by(sampler: optuna.samplers.BaseSampler, trials: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=sampler, direction="maximize")
    draw, proposed = random.Random(0), []
    for _ in range(trials):
        trial = study.ask()
        trial.suggest_int("K", 3, 31, step=2)
        if trial.suggest_categorical("kernel", ["plain", "dilated", "stripes"]) == "dilated":
            trial.suggest_float("drop_path", 0.0, 0.3, step=0.1)
        proposed.append(dict(trial.params))
        study.tell(trial, draw.random())
    return proposed


def test_where_nothing_is_translated_the_proposals_are_those_of_the_sampler_itself() -> None:
    axes: dict[str, Axis] = {
        "K": Range(3, 31, 2), "kernel": Choice(("plain", "dilated", "stripes")), "drop_path": Range(0.0, 0.3, 0.1)
    }  # fmt: skip
    presented = PresentedSampler(IncrementalTPESampler(1), axes, Presentation())
    assert proposed_by(presented, 40) == proposed_by(IncrementalTPESampler(1), 40)


def test_a_view_has_the_trials_as_they_are_now_and_leaves_the_stored_ones_alone() -> None:
    axes: dict[str, Axis] = {"K": Choice((3, 7, 13)), "drop_path": Range(0.0, 0.3, 0.1)}
    study = optuna.create_study(direction="maximize")
    presented = {name: present_axis(axis) for name, axis in axes.items()}
    storage = PresentedStorage(study, presented, Presentation(is_complete=True, constraints="aligned"))
    view = optuna.Study(study.study_name, storage)
    trial = study.ask()
    assert view.get_trials()[0].params == {}
    choose = suggest(trial)
    assert choose("K", axes["K"]) in (3, 7, 13)
    assert set(view.get_trials()[0].params) == {"K"}, "the driver may still choose on other axes"
    trial.set_constraint("latency_ms", 2.0)
    study.tell(trial, 1.0)
    study.tell(study.ask(), 2.0)
    first, second = view.get_trials()
    assert first.params == {"K": (3, 7, 13).index(study.trials[0].params["K"]), "drop_path": 0.1}
    assert first.distributions == {"K": IntDistribution(0, 2), "drop_path": FloatDistribution(0.0, 0.3, step=0.1)}
    assert first.constraints == {"latency_ms": 2.0} and second.constraints == {"latency_ms": -1.0}
    assert study.trials[0].distributions == {"K": CategoricalDistribution((3, 7, 13))}
    assert study.trials[1].constraints == {}
    assert view.best_trial.number == 1
