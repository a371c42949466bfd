"""The driver against a real store and Optuna, with an executor whose records come from a script."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from scripted_driver import EPOCHS, Bench, epoch, make_study, of, started, well

from harness.config.study import Search
from harness.config.study_file import build_space
from harness.errors import StudyAborted
from harness.search import driver
from harness.search.events import RunEnded, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from harness.search.samplers import PRUNERS, build_pruner
from harness.storage import DriverLock, Store
from harness.training.run import Ended, Job, Record, Run, RunState


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda **overrides: Bench(tmp_path, make_study(tmp_path, **overrides))


def test_grid_trains_every_configuration_with_every_seed_first_seeds_first(bench: Callable[..., Bench]) -> None:
    b = bench()
    list(b.drive())
    assert b.trained() == [(3, 0), (7, 0), (13, 0), (3, 1), (7, 1), (13, 1)]


def test_value_is_the_mean_over_seeds_and_the_curve_is_the_first_seeds(bench: Callable[..., Bench]) -> None:
    b = bench()
    list(b.drive())
    trial = b.trials()[2]
    assert trial.value == pytest.approx(statistics.fmean([63.0, 64.0]))
    assert trial.user_attrs["spread"] == pytest.approx(statistics.stdev([63.0, 64.0]))
    assert [trial.intermediate_values[n] for n in range(1, EPOCHS + 1)] == pytest.approx(
        [63.0 * n / EPOCHS for n in range(1, EPOCHS + 1)]
    )
    assert trial.intermediate_values[2 * EPOCHS] == trial.value
    assert trial.user_attrs["seeds"] == [0, 1]
    assert trial.user_attrs["device"] == "cpu (test, 1 thread)"


def test_a_finished_study_starts_no_executor(bench: Callable[..., Bench]) -> None:
    b = bench()
    list(b.drive())
    events = list(b.drive())
    assert b.executor is None
    assert of(events, StudyEnded)[0].trained == 0


@pytest.mark.long
@pytest.mark.parametrize("after", range(1, 40, 3))
def test_an_interrupted_study_resumes_and_trains_nothing_twice(bench: Callable[..., Bench], after: int) -> None:
    b = bench()
    interrupted = b.drive(slots=2)
    for _ in range(after):
        next(interrupted, None)
    interrupted.close()
    events = list(b.drive(slots=2))
    assert [t.state.name for t in b.trials()] == ["COMPLETE"] * 3
    assert sorted(t.value for t in b.trials() if t.value) == [53.5, 57.5, 63.5]
    complete = [e.run_id for e in of(events, RunEnded) if not e.is_reused]
    assert len(complete) == len(set(complete))


@pytest.mark.parametrize("pruner", ["median", "successive_halving", "hyperband"])
def test_pruned_configurations_get_no_further_seed(bench: Callable[..., Bench], pruner: str) -> None:
    b = bench(axes={"K": [31, 25, 13, 7, 5, 3]}, search={"pruner": pruner})
    list(b.drive())
    states = {t.params["K"]: t.state.name for t in b.trials()}
    assert states[31] == "COMPLETE"
    pruned = {k for k, state in states.items() if state == "PRUNED"}
    assert pruned
    assert all((k, 1) not in b.trained() for k in pruned)


def test_a_diverged_run_is_reported_as_infeasible_and_not_trained_again(bench: Callable[..., Bench]) -> None:
    def script(job: Job) -> Iterator[Record]:
        if job.run.spec.K[0] != 7:
            yield from well(job)
            return
        yield started()
        yield epoch(1, 10.0)
        yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan")

    b = bench()
    list(b.drive(script))
    trial = next(t for t in b.trials() if t.params["K"] == 7)
    assert trial.state.name == "PRUNED" and trial.constraints == {"diverged": 1.0} and trial.value == 10.0
    assert b.trained().count((7, 0)) == 1 and (7, 1) not in b.trained()
    list(b.drive(script))
    assert b.executor is None


def test_a_lost_worker_costs_a_retry_and_not_the_run(bench: Callable[..., Bench]) -> None:
    lost: list[str] = []

    def script(job: Job) -> Iterator[Record]:
        if job.run.id not in lost:
            lost.append(job.run.id)
            yield started()
            yield Ended(RunState.LOST, wall_s=1.0, cause="the worker is gone")
        else:
            yield from well(job)

    b = bench()
    events = list(b.drive(script))
    assert [t.state.name for t in b.trials()] == ["COMPLETE"] * 3
    assert sum(e.will_retry for e in of(events, RunEnded)) == 6


def test_runs_that_fail_one_after_another_end_the_study_and_can_be_tried_again(bench: Callable[..., Bench]) -> None:
    def script(_: Job) -> Iterator[Record]:
        yield started()
        yield Ended(RunState.FAILED, wall_s=0.1, cause="RuntimeError: no")

    b = bench(axes={"K": [3, 5, 7, 9, 13]})
    with pytest.raises(StudyAborted, match="3 runs in a row failed, the last with: RuntimeError: no"):
        list(b.drive(script))
    list(b.drive())
    complete = {t.params["K"]: t.value for t in b.trials() if t.state.name == "COMPLETE"}
    assert complete == {k: 50.5 + k for k in (3, 5, 7, 9, 13)}


def test_a_sampler_has_its_trials_and_a_repeated_configuration_gets_another_seed(bench: Callable[..., Bench]) -> None:
    b = bench(axes={"K": [3, 7]}, search={"sampler": "random", "trials": 6, "seeds": 2})
    list(b.drive())
    assert len(b.trials()) == 6
    assert len(set(b.trained())) == len(b.trained())
    by_configuration = {k: sorted(seed for kk, seed in b.trained() if kk == k) for k in (3, 7)}
    assert all(seeds == list(range(len(seeds))) for seeds in by_configuration.values())
    assert len(b.trained()) == 2 + 2 + 4  # two seeds for each configuration's first trial, one for each repetition


def test_proposals_over_budget_are_reported_and_do_not_count(bench: Callable[..., Bench]) -> None:
    b = bench(
        axes={"K": [3, 31], "C[3]": [16, 128]},
        budgets={"params": 120_000},
        search={"sampler": "random", "trials": 4, "seeds": 1},
    )
    list(b.drive())
    rejected = [t for t in b.trials() if "rejected" in t.user_attrs]
    assert all(t.constraints["params"] > 0 and t.state.name == "PRUNED" and t.value is None for t in rejected)
    assert len(b.trials()) - len(rejected) == 4


def test_a_second_study_takes_runs_from_the_store(tmp_path: Path) -> None:
    first = Bench(tmp_path, make_study(tmp_path))
    list(first.drive())
    second = Bench(tmp_path, make_study(tmp_path, study="another", axes={"K": [13, 31]}))
    events = list(second.drive())
    assert second.trained() == [(31, 0), (31, 1)]
    assert sum(e.is_reused for e in of(events, RunEnded)) == 2


def test_latency_budget_marks_a_complete_trial_infeasible(bench: Callable[..., Bench]) -> None:
    b = bench(budgets={"latency_ms": 8.0})
    events = list(b.drive())
    ends = {e.trial: e.reason for e in of(events, TrialEnded)}
    assert ends == {0: None, 1: None, 2: "latency 13 ms is over the budget of 8 ms"}
    with Store.open(b.folder / "studies.db") as store:
        assert b.open_trials(store).best_trial.params["K"] == 7


def test_the_table_of_pruners_matches_the_choices_of_a_study_file() -> None:
    assert set(PRUNERS) == set(Search.model_fields["pruner"].annotation.__args__)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", PRUNERS)
def test_no_pruner_decides_before_its_first_rung(name: str) -> None:
    study = optuna.create_study(pruner=build_pruner(name, 9), direction="maximize")
    for value in (90.0, 80.0, 70.0, 60.0):
        trial = study.ask()
        trial.report(value, 1)
        if name != "hyperband":
            assert not trial.should_prune()
        study.tell(trial, value)
    assert math.isfinite(study.best_value)


def test_a_run_that_a_dead_driver_of_another_study_left_is_taken_over(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(axes={"K": [3]}, search={"seeds": 1})
    (cell,) = build_space(b.file, classes=8, channels=1).grid()
    assert cell.spec is not None
    run = Run(cell.spec, b.study.proxy, 0)
    monkeypatch.setattr(driver, "FOREIGN_RUN_POLL_S", 0.0)
    with Store.open(b.folder / "studies.db") as store:
        store.ensure_run(run)
        assert store.claim(run.id, "another", b.folder / "another")
        store.record(run.id, [started(), epoch(1, 10.0)])
        with DriverLock(store, "another"):  # as long as it is driven, its run is left alone
            events = b.drive()
            assert isinstance(next(events), StudyStarted) and isinstance(next(events), TrialStarted)
            monkeypatch.setattr(time, "sleep", lambda _: None)
        events_after = list(events)
    assert [e.state for e in of(events_after, RunEnded)] == [RunState.COMPLETE]
    with Store.open(b.folder / "studies.db") as store:
        assert [e.message for e in store.events("question") if e.kind == "runs freed"] == [
            "the driver of `another` is gone"
        ]
