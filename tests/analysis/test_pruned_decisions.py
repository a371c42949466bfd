"""Decisions of a pruner: replayed as Optuna made them, and with a probability that is how often they turn out so."""

import math
import random
import statistics
from collections.abc import Callable
from typing import Literal

import optuna
import pytest
from optuna.trial import FrozenTrial

from harness.analysis.proposal_origin import FIRST_RUNG, PROPOSED_BY, PROPOSED_FROM, PRUNING
from harness.analysis.pruned_decisions import _Replay, bracket_of, chance_to_pass
from harness.config.study import decision_epochs, screening_epochs
from harness.search.samplers import build_pruner

EPOCHS = 9
Direction = Literal["maximize", "minimize"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def searched(pruner: str, direction: Direction, trials: int, value: Callable[[int, int], float]) -> optuna.Study:
    """A study in memory that screens every trial, as the driver does: each epoch is reported, then the pruner asked."""
    study = optuna.create_study(direction=direction, pruner=build_pruner(pruner, EPOCHS), study_name="played")
    for n in range(trials):
        trial = study.ask()
        trial.set_user_attr("fingerprint", str(n))
        trial.set_user_attr("screening", 1_000_000)
        state = optuna.trial.TrialState.COMPLETE
        for step in range(1, screening_epochs(pruner, EPOCHS) + 1):
            trial.report(value(n, step), step)
            if trial.should_prune():
                state = optuna.trial.TrialState.PRUNED
                break
        study.tell(trial, 0.0 if state == optuna.trial.TrialState.COMPLETE else None, state=state)
    return study


def pruned(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.PRUNED])


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband", "median"])
def test_the_replay_comes_to_the_decisions_of_optuna_and_to_its_threshold(pruner: str, direction: Direction) -> None:
    """Each stopped trial is below the value that was needed; with just that value, Optuna would have kept it."""
    dice, sign = random.Random(5), 1.0 if direction == "maximize" else -1.0
    keys = [(n, step) for n in range(40) for step in range(1, EPOCHS + 1)]
    values = {(n, step): round(dice.gauss(0, 1) + sign * step, 1) for n, step in keys}
    study = searched(pruner, direction, 40, lambda n, step: values[n, step])
    replay = _Replay("played", pruner, EPOCHS, sign, study.get_trials(deepcopy=False))
    stopped = pruned(study)
    assert len(stopped) >= 8
    for trial in stopped:
        decision = replay.decision(trial)
        assert decision is not None and decision.needed is not None
        assert decision.epochs == trial.last_step and decision.epochs in decision_epochs(pruner, EPOCHS)
        assert decision.value < decision.needed
    for trial in stopped[::3]:
        decision = replay.decision(trial)
        assert decision is not None and decision.needed is not None
        for value, is_kept in ((decision.needed, True), (decision.needed - 0.01, False)):
            changed = {**values, (trial.number, decision.epochs): sign * value}
            if pruner == "median":  # whose value is the best one so far
                changed |= {(trial.number, step): sign * -99.0 for step in range(1, decision.epochs)}
                if decision.epochs > decision_epochs(pruner, EPOCHS)[0]:
                    continue
            again = searched(pruner, direction, trial.number + 1, lambda n, step: changed[n, step])  # noqa: B023
            last = again.get_trials(deepcopy=False)[-1]
            stopped_there = last.state.name == "PRUNED" and last.last_step == decision.epochs
            assert stopped_there == (not is_kept), (trial.number, value)


@pytest.mark.parametrize("epochs", [2, 4, 9, 20, 81])
def test_brackets_are_those_of_optunas_hyperband(epochs: int) -> None:
    pruner = build_pruner("hyperband", epochs)
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    study = optuna.create_study(study_name="a study", pruner=pruner)
    pruner._try_initialization(study)
    for _ in range(60):
        trial = study.ask()
        frozen = study._storage.get_trial(trial._trial_id)
        assert bracket_of("a study", trial.number, epochs) == pruner._get_bracket_id(study, frozen)


def test_the_attributes_of_trials_that_a_pruner_may_end_are_those_of_the_storage() -> None:
    from harness.storage import reopening

    assert PRUNING == reopening.PRUNING
    assert {PROPOSED_BY, PROPOSED_FROM, FIRST_RUNG} <= set(reopening.KEPT_ATTRIBUTES)


def test_a_chance_by_hand() -> None:
    """Mean 0, variance 2 of which the seeds are 1: b = 1/2, so a value of -2 has the mean -1, and the variance 3/2."""
    values = [-2.0, 0.0, 2.0, -math.sqrt(2), math.sqrt(2), 0.0, 0.0]
    assert statistics.variance(values) == pytest.approx(2.0)
    expected = 1 - statistics.NormalDist(-1.0, math.sqrt(1.5)).cdf(0.5)
    assert chance_to_pass(-2.0, 0.5, values, 1.0) == pytest.approx(expected)


def test_without_noise_a_decision_is_certain_and_with_nothing_else_the_value_does_not_matter() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert chance_to_pass(1.0, 3.0, values, 0.0) == 0.0
    assert chance_to_pass(1.0, 3.0, values, 50.0) == pytest.approx(chance_to_pass(4.0, 3.0, values, 50.0))


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_decisions_turn_out_as_often_as_their_probability_states(noise: float) -> None:
    """Of all stopped configurations of simulated searches, by probability: how many pass with another screening run."""
    dice, predicted, happened = random.Random(7), [], []
    for _ in range(60):
        truth = [dice.gauss(0, 1) for _ in range(40)]
        first = [quality + dice.gauss(0, noise) for quality in truth]
        for i in range(3, 40):
            rivals = sorted(first[:i], reverse=True)
            needed = rivals[max(1, (i + 1) // 3) - 1]
            if first[i] < needed:
                predicted.append(chance_to_pass(first[i], needed, first, noise))
                happened.append(truth[i] + dice.gauss(0, noise) >= needed)
    assert statistics.fmean(predicted) == pytest.approx(statistics.fmean(happened), abs=0.02)
    for low, high in ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5)):
        chosen = [i for i, probability in enumerate(predicted) if low <= probability < high]
        if len(chosen) > 100:
            expected = statistics.fmean(predicted[i] for i in chosen)
            assert statistics.fmean(happened[i] for i in chosen) == pytest.approx(expected, abs=0.05)
