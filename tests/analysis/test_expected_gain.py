"""The plateau rule: its upper limit of the expected gain, and how often it ends a search too early.

Too early means: at the end, the true expected gain of a further trial over the configuration that ranks first, from
the true values of the simulation, is not below the limit of the rule.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm
from tiny_studies import EPOCHS, Played, epoch, started

from harness.analysis.plateau import plateau_gain
from harness.analysis.statistics.expected_gain import expected_gain
from harness.analysis.study_reader import open_study_reader
from harness.config.search_methods import PLATEAU_TRIALS
from harness.search.events import StudyEnded
from harness.storage import Store
from harness.training.run import Ended, Job, Measured, Record, RunState

SEEDS = 3
Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]
"""A function that draws this number of true values."""


def normal(generator: np.random.Generator, count: int) -> Floats:
    return generator.normal(size=count)


def left_skewed(generator: np.random.Generator, count: int) -> Floats:
    """As accuracies are: many near the best, a long tail below; mean 0, standard deviation 1."""
    return (generator.beta(5, 1.5, count) - 0.7692) / 0.1539


def exponential(generator: np.random.Generator, count: int) -> Floats:
    """A few trials are far ahead of all others, which the normal model does not expect."""
    return generator.exponential(size=count) - 1


class End(NamedTuple):
    """The end of a simulated search."""

    trials: int
    gain: float | None
    """The true expected gain of a further trial; None if the rule did not end the search."""


def search(draw: Draw, noise: float, limit: float, seed: int, most: int = 120) -> End:
    """A search of independent trials, with a shared effect of each seed, that looks after every trial."""
    generator = np.random.default_rng(seed)
    reference = draw(generator, 4_000)
    shared = generator.normal(0, 1, SEEDS)
    truth: list[float] = []
    values: list[Any] = []
    for number in range(1, most + 1):
        truth.append(float(draw(generator, 1)[0]))
        values.append(truth[-1] + shared + generator.normal(0, noise, SEEDS))
        if number < PLATEAU_TRIALS:
            continue
        means = np.mean(values, axis=1)
        last = np.array(values[-max(PLATEAU_TRIALS, number // 2) :])
        if expected_gain(last, float(means.max())).gain < limit:
            best = truth[int(means.argmax())]
            return End(number, float(np.maximum(reference - best, 0).mean()))
    return End(most, None)


def rates(draw: Draw, noise: float, limit: float, studies: int) -> tuple[float, float]:
    """The shares of searches that the rule ended, and that it ended too early."""
    ends = [search(draw, noise, limit, seed) for seed in range(studies)]
    ended = [end.gain for end in ends if end.gain is not None]
    return len(ended) / studies, sum(gain >= limit for gain in ended) / studies


def test_without_noise_the_gain_is_the_expected_improvement_of_a_wider_normal() -> None:
    values = np.repeat(norm.ppf((np.arange(200) + 0.5) / 200)[:, None], SEEDS, axis=1)
    result = expected_gain(values, 2.0)
    spread = result.spread
    assert 1.0 < spread < 1.15 and result.noise == pytest.approx(0, abs=1e-6) and result.best == pytest.approx(2.0)
    z = 2.0 / spread
    assert result.gain == pytest.approx(spread * (norm.pdf(z) - z * norm.sf(z)), rel=1e-6)
    assert expected_gain(values, 2.0, share=0.25).gain == pytest.approx(result.gain / 4)


def test_what_a_seed_adds_to_all_trials_is_no_noise() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(0, 1, (40, 1)) + generator.normal(0, 0.1, (40, SEEDS))
    shifted = values + np.array([0.0, 50.0, -50.0])
    assert expected_gain(shifted, 2.0).noise == pytest.approx(expected_gain(values, 2.0).noise, rel=1e-6)


def test_the_best_of_noisy_means_is_taken_for_less_than_its_mean() -> None:
    generator = np.random.default_rng(1)
    truth = generator.normal(0, 1, 400)
    values = truth[:, None] + generator.normal(0, 2, (400, SEEDS))
    first = int(values.mean(axis=1).argmax())
    mean = float(values.mean(axis=1)[first])
    result = expected_gain(values, mean)
    assert truth[first] < mean - 0.5
    assert abs(result.best - truth[first]) < abs(mean - truth[first])


def test_equal_trials_end_a_search() -> None:
    generator = np.random.default_rng(2)
    ended = [expected_gain(generator.normal(0, 1, (60, SEEDS)), 1.0).gain < 0.2 for _ in range(50)]
    assert sum(ended) >= 5  # with the upper limit of a spread that is 0


@pytest.mark.parametrize(("noise", "limit"), [(0.3, 0.1), (1.0, 0.1)])
def test_few_searches_end_too_early(noise: float, limit: float) -> None:
    ended, early = rates(left_skewed, noise, limit, studies=40)
    assert ended > 0.2 and early <= 0.1


@pytest.mark.long
@pytest.mark.parametrize(
    ("draw", "noise", "limit", "most"),
    [
        (normal, 1.0, 0.1, 0.06),
        (normal, 3.0, 0.1, 0.13),
        (left_skewed, 1.0, 0.1, 0.05),
        (exponential, 0.3, 0.1, 0.15),
    ],
)
def test_the_share_of_searches_that_end_too_early(draw: Draw, noise: float, limit: float, most: float) -> None:
    """Of 300 searches of at most 120 trials each."""
    assert rates(draw, noise, limit, studies=300)[1] <= most


RANDOM: dict[str, Any] = {"sampler": "random", "trials": 60, "seeds": 3}
AXES: dict[str, Any] = {"axes": {"K[0]": {"low": 3, "high": 31, "step": 2}, "K[3]": [3, 5, 7, 9, 11, 13]}, "when": {}}


def scripted(spread: float, noise: float) -> Callable[[Job], Iterator[Record]]:
    """Runs whose configurations differ by `spread`, and whose seeds by `noise`, in points."""

    def script(job: Job) -> Iterator[Record]:
        of_network = random.Random(job.run.spec.fingerprint()).gauss(0, spread)
        top1 = 70 + of_network + random.Random(job.run.id).gauss(0, noise)
        yield started()
        for n in range(1, EPOCHS + 1):
            yield epoch(n, top1 * n / EPOCHS)
        yield Measured("latency_ms_p50", 1.0)
        yield Ended(RunState.COMPLETE, wall_s=12.0)

    return script


@pytest.mark.parametrize("slots", [1, pytest.param(4, marks=pytest.mark.long)])
def test_a_driven_search_ends_at_its_plateau_and_continues_without_the_rule(tmp_path: Path, slots: int) -> None:
    played = Played(tmp_path, **AXES, search=RANDOM | {"plateau": 0.5})
    events = [event for event, _, _ in played.events(scripted(1.0, 0.2), slots=slots)]
    (ended,) = [event for event in events if isinstance(event, StudyEnded)]
    assert ended.reason is not None and "less than `search.plateau` (0.5)" in ended.reason
    with open_study_reader(played.path, played.workspace) as reader:
        trials = reader.trials
        assert PLATEAU_TRIALS <= len(trials) < 50 and all(trial.state.is_finished() for trial in trials)
        result = plateau_gain(reader.file.study, trials)
        assert result is not None and result.gain < 0.5
        assert reader.results().ended == ended.reason
    again = Played(tmp_path, **AXES, search=RANDOM | {"plateau": 0.5})
    assert not [event for event, _, _ in again.events(scripted(1.0, 0.2)) if not hasattr(event, "study")]
    further = Played(tmp_path, **AXES, search=RANDOM | {"trials": len(trials) + 2})
    for _ in further.events(scripted(1.0, 0.2)):
        pass
    with Store.open(further.workspace.database) as store:
        assert len(store.trial_runs("question")) == len(trials) + 2
