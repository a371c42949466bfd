"""The sampler that remembers proposes what Optuna's own proposes, to the last bit."""

import random
import warnings
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import TrialState

from harness.search.tpe import IncrementalTPESampler


def stock(seed: int) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def proposals(sampler: BaseSampler, trials: int, workers: int) -> list[dict[str, Any]]:
    """What a sampler proposes where some axes hang on others, and trials end in every way and in any order."""
    study = optuna.create_study(sampler=sampler, direction="maximize")
    rng = random.Random(0)
    proposed, running = [], []
    for _ in range(trials):
        trial = study.ask()
        trial.suggest_int("K", 3, 31, step=2)
        if trial.suggest_categorical("reparam", ["none", "5"]) == "5":
            trial.suggest_float("drop_path", 0.0, 0.3, step=0.1)
        trial.suggest_int("B", 1, 64, log=True)
        proposed.append(dict(trial.params))
        running.append(trial)
        if len(running) < workers:
            continue
        ended = running.pop(rng.randrange(workers))
        ended.report(rng.random(), 1)
        if rng.random() < 0.2:
            ended.set_constraint("params", rng.uniform(-1.0, 1.0))
        state = rng.choices([None, TrialState.PRUNED, TrialState.FAIL], [6, 3, 1])[0]
        study.tell(ended, rng.random() if state is None else None, state=state)
    return proposed


@pytest.mark.parametrize("workers", [1, 4])
def test_it_proposes_what_optuna_proposes(workers: int) -> None:
    assert proposals(IncrementalTPESampler(3), 60, workers) == proposals(stock(3), 60, workers)


def test_it_differs_from_chance_once_it_has_learnt() -> None:
    assert proposals(IncrementalTPESampler(3), 30, 1) != proposals(optuna.samplers.RandomSampler(seed=3), 30, 1)


def test_it_does_not_warn_of_experimental_features(recwarn: pytest.WarningsRecorder) -> None:
    IncrementalTPESampler(0)
    assert not recwarn.list
