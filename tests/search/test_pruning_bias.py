"""No mean is biased by pruning: of simulated studies, and of the driver, which follows the rule that was simulated."""

import random
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.pruners._successive_halving import _is_trial_promotable_to_next_rung
from optuna.study import StudyDirection
from tiny_studies import FOUR, Played, noisy

from harness.search.samplers import SCREENING_SEEDS

STUDIES, PROPOSALS, CONFIGURATIONS = 2_000, 12, (-1.0, -0.5, 0.0, 0.5)
"""The true means of the configurations, in units of the seeds' standard deviation."""
Means = dict[float, list[float]]


def halving_passes(value: float, rung: list[float]) -> bool:
    """Optuna's own decision of successive halving; the value joins the rung."""
    rung.append(value)
    return bool(_is_trial_promotable_to_next_rung(value, rung, 3, StudyDirection.MAXIMIZE))


class Seeds:
    """What a seed of a configuration gives: early and at its end, correlated by 0.9."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(number)

    def draw(self, truth: float) -> tuple[float, float]:
        deviation = self._random.gauss(0, 1)
        return truth + 0.9 * deviation + 0.436 * self._random.gauss(0, 1), truth + deviation


def every_seed_is_judged(number: int) -> Means:
    """The rule that was: each trial, a configuration's first or another seed, is pruned by its own early epochs."""
    seeds = Seeds(number)
    rung: list[float] = []
    values: Means = {}
    for truth in random.Random(-number - 1).choices(CONFIGURATIONS, k=PROPOSALS):
        early, final = seeds.draw(truth)
        if halving_passes(early, rung):
            values.setdefault(truth, []).append(final)
    return values


def first_seed_is_judged(number: int) -> Means:
    """The half measure: only a configuration's first seed is pruned; if it passes, the mean has it."""
    seeds = Seeds(number)
    rung: list[float] = []
    values: Means = {}
    for truth in random.Random(-number - 1).choices(CONFIGURATIONS, k=PROPOSALS):
        early, final = seeds.draw(truth)
        if truth in values or halving_passes(early, rung):
            values.setdefault(truth, []).append(final)
    return values


def screening_is_judged(number: int) -> Means:
    """The rule: a screening run is judged once; seeds never are, nor those of a pruned configuration that returns."""
    seeds = Seeds(number)
    rung: list[float] = []
    values: Means = {}
    seen: set[float] = set()
    for truth in random.Random(-number - 1).choices(CONFIGURATIONS, k=PROPOSALS):
        if truth not in seen:
            seen.add(truth)
            if not halving_passes(seeds.draw(truth)[0], rung):
                continue
        values.setdefault(truth, []).append(seeds.draw(truth)[1])
    return values


def biases(rule: Callable[[int], Means]) -> dict[float, float]:
    """Reported mean minus true mean of each configuration, over the studies that report one, in standard errors."""
    errors: Means = {}
    for number in range(STUDIES):
        for truth, values in rule(number).items():
            errors.setdefault(truth, []).append(statistics.fmean(values) - truth)
    return {
        truth: statistics.fmean(configuration_errors)
        / (statistics.stdev(configuration_errors) / len(configuration_errors) ** 0.5)
        for truth, configuration_errors in errors.items()
    }


def test_no_reported_mean_is_biased_by_pruning() -> None:
    scores = biases(screening_is_judged)
    assert set(scores) == set(CONFIGURATIONS) and all(abs(score) < 3 for score in scores.values()), scores


@pytest.mark.parametrize("rule", [every_seed_is_judged, first_seed_is_judged])
def test_the_simulation_finds_the_bias_of_rules_that_judge_a_seed_of_the_mean(
    rule: Callable[[int], Means],
) -> None:
    assert min(biases(rule).values()) > 10


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 3))])
def test_the_driver_follows_the_rule_that_was_simulated(tmp_path: Path, number: int) -> None:
    search = {"sampler": "random", "trials": 10, "seeds": 1, "pruner": "successive_halving", "seed": number}
    study = Played(tmp_path, **FOUR, search=search)
    results = study.answer(noisy(number))
    finals = {(job.run.spec.K[0], job.run.seed): list(noisy(number)(job)) for job in study.executor.submitted}  # type: ignore[union-attr]
    for configuration in results.rows:
        k = configuration.params["K"][0]
        ends = {seed: records[-3].top1 for (kk, seed), records in finals.items() if kk == k and seed < SCREENING_SEEDS}  # type: ignore[union-attr]
        assert dict(zip(configuration.seeds, configuration.values, strict=True)) == ends
        assert sorted(ends) == list(range(number, number + len(ends)))
