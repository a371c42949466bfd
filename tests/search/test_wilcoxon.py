"""The pruner `wilcoxon`: a configuration that is worse than the best one, seed by seed, gets no further seeds."""

import itertools
import random
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import WilcoxonPruner
from optuna.trial import FrozenTrial, TrialState, create_trial
from tiny_studies import EPOCHS, SCRIPTED, Played, called, epoch, files_of, started, write_study

from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.results import StudyResults
from harness.analysis.summary import configuration_values
from harness.config.axes import Choice
from harness.config.study_file import load_study
from harness.errors import StudyError
from harness.search.events import TrialEnded
from harness.search.presentation import Presentation, PresentedStorage, present_axis
from harness.search.wilcoxon import JUDGED, SeedPruner
from harness.storage import Store, open_study
from harness.training.run import Ended, Job, Measured, Record, RunState

KS = (31, 13, 3)
"""The first kernels, in the order in which the grid trains them."""
THREE: dict[str, Any] = {"axes": {"K": [[31, 29, 27, 13], [13] * 4, [3] * 4]}, "when": {}}
GAINS = {31: 10.0, 13: 9.9, 3: 0.0}
NOISE = (0.3, -0.5, 0.9, -1.1, 0.4, -0.2, 0.8, -0.7)


def by_kernel(job: Job) -> Iterator[Record]:
    """K=31 and K=13 are about equally good, K=3 is ten points worse; the noise of a seed is that of all."""
    k, seed = job.run.spec.K[0], job.run.seed
    own = 0.3 * (-1) ** (seed + k // 7 + 1)
    value = 60.0 + GAINS[k] + NOISE[seed % len(NOISE)] + own
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, value * n / EPOCHS)
    yield Measured("latency_ms_p50", 1.0)
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def searched(**search: Any) -> dict[str, Any]:
    return {"search": {"seeds": 8, "pruner": "wilcoxon"} | search}


def row(results: StudyResults, k: int) -> ConfigurationResult:
    return next(configuration for configuration in results.rows if configuration.spec.K[0] == k)


def trained(study: Played) -> list[tuple[int, int]]:
    return [(job.run.spec.K[0], job.run.seed) for job in study.executor.submitted] if study.executor else []


def test_a_worse_configuration_keeps_four_seeds_and_the_reason(tmp_path: Path) -> None:
    study = Played(tmp_path, **THREE, **searched())
    results = study.answer(by_kernel)
    assert trained(study) == [(31, s) for s in range(8)] + [(13, s) for s in range(8)] + [(3, s) for s in range(4)]
    worse = row(results, 3)
    assert worse.state == "pruned" and worse.seeds == (0, 1, 2, 3)
    assert worse.reason == "worse than trial 0 on 4 shared seeds (Wilcoxon signed-rank test, p = 0.062)"
    assert row(results, 13).state == row(results, 31).state == "complete"
    assert results.best is row(results, 31)
    values = configuration_values(worse, "top1")
    assert (values["state"], values["n"], values["reason"]) == ("pruned", 4, worse.reason)


def test_the_event_of_the_trial_has_the_reason(tmp_path: Path) -> None:
    study = Played(tmp_path, **THREE, **searched())
    ends = [event for event, _, _ in study.events(by_kernel) if isinstance(event, TrialEnded)]
    assert [end.state for end in ends] == ["complete", "complete", "pruned"]
    assert (ends[-1].reason or "").startswith("worse than trial 0 on 4 shared seeds")
    assert ends[-1].status is not None and ends[-1].status.state == "pruned"


@pytest.mark.parametrize("after", [20, 95, *(pytest.param(n, marks=pytest.mark.long) for n in (5, 44, 83, 122, 135))])
def test_an_interrupted_study_ends_as_without_an_interruption(tmp_path: Path, after: int) -> None:
    study = Played(tmp_path, **THREE, **searched())
    with closing(study.events(by_kernel)) as events:
        for _ in itertools.islice(events, after):
            pass
    results = study.answer(by_kernel)
    states = {k: (row(results, k).state, len(row(results, k).values)) for k in KS}
    assert states == {31: ("complete", 8), 13: ("complete", 8), 3: ("pruned", 4)}
    study.executor = None
    study.answer(by_kernel)
    assert study.executor is None, "nothing is left to train"


def test_seeds_that_are_being_trained_are_stopped(tmp_path: Path) -> None:
    study = Played(tmp_path, **THREE, **searched())

    def uneven(job: Job) -> Iterator[Record]:
        *records, ended = by_kernel(job)
        return iter([*records, *[Measured("peak_memory_bytes", 1.0)] * (job.run.seed % 3), ended])

    for _ in study.events(uneven, slots=2):
        pass
    results = study.answer(uneven)
    worse = row(results, 3)
    assert worse.state == "pruned" and 4 <= len(worse.values) == len(worse.seeds) < 8
    assert (worse.reason or "").startswith("worse than trial ")
    states = {str(run.row.state) for run in worse.runs}
    assert "stopped" in states and states <= {"complete", "stopped", "queued"}


def test_a_configuration_that_is_proposed_again_gets_all_of_its_seeds(tmp_path: Path) -> None:
    search = {"sampler": "random", "trials": 12, "seeds": 5, "seed": 1}
    study = Played(tmp_path, **THREE, **searched(**search))
    results = study.answer(by_kernel)
    with Store.open(study.workspace.database) as store:
        trials = open_study(store, "question", directions=["maximize"]).get_trials()
    states = [trial.state.name for trial in trials if trial.params["K"].startswith("[3,")]
    assert states[0] == "PRUNED" and set(states[1:]) == {"COMPLETE"}
    assert row(results, 3).state == "complete" and len(row(results, 3).seeds) == 5 + len(states) - 2
    runs = trained(study)
    assert len(runs) == len(set(runs)), "the four seeds that it has are not trained again"


def test_more_seeds_go_to_complete_configurations_only(tmp_path: Path) -> None:
    Played(tmp_path, **THREE, **searched()).answer(by_kernel)
    study = Played(tmp_path, **THREE, **searched(seeds=9))
    results = study.answer(by_kernel)
    assert trained(study) == [(31, 8), (13, 8)]
    assert row(results, 3).state == "pruned"


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_samplers_learn_the_mean_of_what_was_given_up(tmp_path: Path, sampler: str) -> None:
    axes = {"axes": {f"K[{i}]": [3, 7, 13, 31] for i in range(2)}, "when": {}}

    def script(job: Job) -> Iterator[Record]:
        value = 50.0 + sum(job.run.spec.K[:2]) / 4 + random.Random(job.run.id).gauss(0, 0.1)
        yield started()
        yield from (epoch(n, value * n / EPOCHS) for n in range(1, EPOCHS + 1))
        yield Ended(RunState.COMPLETE, wall_s=1.0)

    study = Played(tmp_path, **axes, **searched(sampler=sampler, trials=16, seeds=5))
    results = study.answer(script)
    given_up = [configuration for configuration in results.rows if configuration.state == "pruned"]
    assert given_up and all(len(configuration.values) == 4 for configuration in given_up)
    assert results.best is not None and sum(results.best.spec.K[:2]) >= 44


def test_a_sampler_sees_a_configuration_that_was_given_up_as_complete() -> None:
    study = optuna.create_study(direction="maximize")
    axis = Choice((3, 7, 13))
    trial = study.ask()
    trial.suggest_categorical("K", [3, 7, 13])
    trial.set_user_attr(JUDGED, True)
    trial.set_user_attr("values", [60.0, 62.0])
    trial.report(10.0, 1)
    study.tell(trial, state=TrialState.PRUNED)
    view = optuna.Study(study.study_name, PresentedStorage(study, {"K": present_axis(axis)}, Presentation()))
    assert view.trials[0].state == TrialState.COMPLETE and view.trials[0].value == 61.0
    assert study.trials[0].state == TrialState.PRUNED


# The decision


def finished(number: int, values: dict[int, float], state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    """A finished trial of the driver's, with its values by seed."""
    attributes: dict[str, Any] = {
        "fingerprint": f"network {number}",
        "seeds": list(values),
        "values": list(values.values()),
    }
    attributes["values_by_seed"] = {str(seed): value for seed, value in values.items()}
    value = sum(values.values()) / len(values) if state == TrialState.COMPLETE else None
    trial = create_trial(state=state, value=value, user_attrs=attributes)
    trial.number = number
    return trial


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_decision_is_that_of_optunas_pruner_with_the_seed_as_the_step(direction: Any) -> None:
    """In a study whose trials have a value for each seed: Optuna prunes where this pruner gives a reason."""
    draw, decisions = random.Random(0), []
    for _ in range(60):
        best = {seed: draw.gauss(0, 1) for seed in range(8)}
        shift = draw.choice([-1.5, -0.5, 0.0]) * (1 if direction == "maximize" else -1)
        values = {seed: best[seed] + shift + draw.gauss(0, 0.7) for seed in range(draw.randint(4, 8))}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(direction=direction, pruner=WilcoxonPruner())
        first = study.ask()
        for seed, value in best.items():
            first.report(value, seed)
        study.tell(first, sum(best.values()) / len(best))
        trial = study.ask()
        for seed, value in values.items():
            trial.report(value, seed)
        pruner = SeedPruner(direction)
        pruner.add([finished(0, best)])
        decisions.append(pruner.reason_to_give_up(values) is not None)
        assert decisions[-1] == trial.should_prune()
    assert 10 < sum(decisions) < 50


def test_the_best_configuration_is_that_of_all_its_trials_and_must_be_feasible() -> None:
    low, high = {seed: 1.0 + seed / 10 for seed in range(6)}, {seed: 5.0 + seed / 7 for seed in range(6)}
    worse = {seed: 0.5 + seed / 9 for seed in range(4)}
    pruner = SeedPruner("maximize")
    pruner.add([finished(0, low), finished(1, high, TrialState.PRUNED), finished(2, {0: 9.0}, TrialState.FAIL)])
    assert (pruner.reason_to_give_up(worse) or "").startswith("worse than trial 0 on 4 shared seeds")
    again = finished(3, {6: -40.0})
    again.user_attrs["fingerprint"] = "network 0"
    pruner.add([again])
    pruner.add([finished(4, {seed: 0.9 + seed / 10 for seed in range(6)})])
    assert (pruner.reason_to_give_up(worse) or "").startswith("worse than trial 4"), (
        "a seed changed the mean of trial 0"
    )


def test_nothing_is_given_up_without_a_complete_configuration_or_with_fewer_than_four_shared_seeds() -> None:
    pruner = SeedPruner("maximize")
    assert pruner.reason_to_give_up(dict.fromkeys(range(5), 0.0)) is None
    pruner.add([finished(0, {seed: 5.0 + seed / 10 for seed in range(8)})])
    assert pruner.reason_to_give_up({seed: seed / 10 for seed in range(3)}) is None
    assert pruner.reason_to_give_up({seed: seed / 10 for seed in (0, 1, 2, 90, 91)}) is None
    assert pruner.reason_to_give_up({seed: seed / 10 for seed in (0, 1, 2, 7, 91)}) is not None


def given_up(draw: random.Random, truths: list[float], seeds: int) -> list[int | None]:
    """For each of these true means, after how many seeds it was given up in a simulated study; None if it was not."""
    pruner, ends = SeedPruner("maximize"), []
    common = [draw.gauss(0, 0.7) for _ in range(seeds)]
    for number, truth in enumerate(truths):
        values: dict[int, float] = {}
        for seed in range(seeds):
            values[seed] = truth + common[seed] + draw.gauss(0, 0.7)
            if seed + 1 < seeds and pruner.reason_to_give_up(values) is not None:
                break
        is_pruned = len(values) < seeds
        pruner.add([finished(number, values, TrialState.PRUNED if is_pruned else TrialState.COMPLETE)])
        ends.append(len(values) if is_pruned else None)
    return ends


@pytest.mark.long
def test_equal_configurations_are_given_up_as_often_as_documented_and_bad_ones_soon() -> None:
    draw = random.Random(0)
    equal = [end for _ in range(40) for end in given_up(draw, [0.0] * 10, 6)[1:]]
    assert 0.2 < sum(end is not None for end in equal) / len(equal) < 0.36  # docs/search.md: 27 to 36 %
    bad = [given_up(draw, [0.0, -3.0], 10)[1] for _ in range(60)]
    assert sum(end is not None and end <= 5 for end in bad) > 55


# The study file


def test_too_few_seeds_are_refused(tmp_path: Path) -> None:
    path = write_study(tmp_path, SCRIPTED, **THREE, **searched(seeds=4))
    before = files_of(tmp_path)
    for flags in (["--dry-run"], ["--executor", "inline"]):
        result = called("run", path, *flags, cwd=tmp_path)
        assert result.returncode == 2 and files_of(tmp_path) == before
        assert (
            "`search.seeds` must be at least 5 for the pruner wilcoxon, which cannot decide on fewer" in result.stderr
        )
        assert "study.yaml:" in result.stderr and "Write `seeds: 5` or more" in result.stderr


def test_claims_are_refused(tmp_path: Path) -> None:
    claim = {"name": "c", "says": "s", "contrast": {"K=3": 1, "K=13": -1}, "expect": "> 0"}
    with pytest.raises(StudyError, match=r"`search\.pruner` must be none where there are claims, but got wilcoxon"):
        load_study(write_study(tmp_path, SCRIPTED, **THREE, **searched(), claims=[claim]))


@pytest.mark.parametrize(
    "keys",
    [
        {"objectives": {"latency_ms_p50": "minimize"}},
        {"proxy": {"epochs": 1, "schedule": {"warmup_epochs": 0}}},
    ],
)
def test_it_takes_every_objective_and_one_epoch(tmp_path: Path, keys: dict[str, Any]) -> None:
    load_study(write_study(tmp_path, SCRIPTED, **THREE, **searched(), **keys))


def test_a_quick_profile_with_few_seeds_prunes_nothing_and_states_it(tmp_path: Path) -> None:
    quick: dict[str, Any] = {"quick": {"search": {"seeds": 1}}}
    file = load_study(write_study(tmp_path, SCRIPTED, **THREE, **searched(), **quick), is_quick=True)
    assert file.study.search.pruner == "none"
    assert file.notes == ("the quick profile has `search.pruner: none` in place of wilcoxon, to fit `search.seeds: 1`",)


def test_a_dry_run_states_from_which_seed_on_it_decides(tmp_path: Path) -> None:
    result = called("run", write_study(tmp_path, SCRIPTED, **THREE, **searched()), "--dry-run", cwd=tmp_path)
    assert result.returncode == 0 and "3 configurations, 24 runs" in result.stdout
    assert "from 4 seeds on, the pruner may give up the further seeds of a configuration that is worse" in result.stdout
