"""No seed is lost from a mean: none is pruned by its value, and one that did not end is named with the mean."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import EPOCHS, FOUR, Played, called, epoch, gains, noisy, started, text_of, well

from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.results import StudyResults
from harness.analysis.study_reader import open_study_reader
from harness.analysis.summary import claim_values, configuration_values
from harness.config.study import screening_epochs
from harness.errors import StudyAborted
from harness.report.event_log import EventFormatter
from harness.report.live import LiveState
from harness.report.study import results_view
from harness.search.samplers import PRUNERS, SCREENING_SEEDS
from harness.training.run import Ended, Job, Record, RunState

Script = Callable[[Job], Iterator[Record]]
TWO = {"axes": {"K": [[3, 3, 3, 3], [13, 13, 13, 13]]}, "when": {}}


def ended_badly(state: RunState, *, k: int, seed: int, otherwise: Script = well) -> Script:
    """Runs that go well, but for one."""

    def script(job: Job) -> Iterator[Record]:
        if (job.run.spec.K[0], job.run.seed) != (k, seed):
            yield from otherwise(job)
            return
        yield started()
        yield epoch(1, 10.0)
        yield Ended(state, wall_s=1.0, cause="the training loss is nan")

    return script


def row(results: StudyResults, k: int) -> ConfigurationResult:
    return next(configuration for configuration in results.rows if configuration.params["K"][0] == k)


def submitted(study: Played) -> list[tuple[int, int]]:
    return [(job.run.spec.K[0], job.run.seed) for job in study.executor.submitted] if study.executor else []


# Pruning


@pytest.mark.long
@pytest.mark.parametrize("pruner", sorted(PRUNERS.keys() - {"none", "wilcoxon"}))
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_replicate_is_never_pruned_however_bad(tmp_path: Path, sampler: str, pruner: str) -> None:
    search = {"sampler": sampler, "trials": 14, "seeds": 1, "pruner": pruner}
    study = Played(tmp_path, **TWO, search=search)
    results = study.answer(noisy(0, decay=5.0))
    trained = {pair for pair in submitted(study) if pair[1] < SCREENING_SEEDS}
    for configuration in results.rows:
        seeds = [seed for k, seed in sorted(trained) if k == configuration.params["K"][0]]
        assert list(configuration.seeds) == seeds and not configuration.missing
    assert max(len(configuration.values) for configuration in results.rows) >= 4
    runs = [
        facts.row
        for configuration in results.rows
        for facts in configuration.runs
        if facts.row.run.seed in configuration.seeds
    ]
    assert all(run.state == RunState.COMPLETE and run.attempts == 1 for run in runs)


@pytest.mark.parametrize("epochs", range(1, 40))
@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_screening_run_takes_at_most_half_of_the_epochs(pruner: str, epochs: int) -> None:
    assert 0 <= screening_epochs(pruner, epochs) <= min((epochs + 1) // 2, epochs - 1)
    assert (screening_epochs(pruner, epochs) > 0) == (pruner not in ("none", "wilcoxon") and epochs > 1)


def test_the_pruner_decides_on_a_run_that_no_mean_has(tmp_path: Path) -> None:
    study = Played(tmp_path, **FOUR, search={"seeds": 2, "pruner": "successive_halving"})
    results = study.answer()
    trained = submitted(study)
    assert trained[:4] == [(k, SCREENING_SEEDS) for k in (3, 7, 13, 31)]
    assert row(results, 31).seeds == (0, 1) and row(results, 31).state == "complete"
    screening = next(f for f in row(results, 31).runs if f.row.run.seed == SCREENING_SEEDS)
    assert screening.row.state == RunState.STOPPED and len(screening.curve) < EPOCHS
    with open_study_reader(study.path, study.workspace) as reader:
        trial = next(t for t in reader.trials if t.user_attrs["fingerprint"] == row(results, 31).spec.fingerprint())
    assert trial.value == statistics.fmean(row(results, 31).values)


def test_a_pruned_configuration_that_is_proposed_again_gets_its_seeds_unpruned(tmp_path: Path) -> None:
    def script(job: Job) -> Iterator[Record]:
        yield from gains(K3=0.0 if job.run.seed >= SCREENING_SEEDS else 40.0, K13=20.0)(job)

    search = {"sampler": "random", "trials": 12, "seeds": 2, "pruner": "successive_halving", "seed": 2}
    study = Played(tmp_path, **TWO, search=search)
    results = study.answer(script)
    with open_study_reader(study.path, study.workspace) as reader:
        states = [t.state.name for t in reader.trials if t.params["K"].startswith("[3,")]
    assert "PRUNED" in states[:2] and states[-1] == "COMPLETE"
    assert row(results, 3).state == "complete" and row(results, 3).seeds == tuple(
        range(2, 2 + len(row(results, 3).seeds))
    )
    assert results.best is row(results, 3)


@pytest.mark.parametrize("after", [9, *(pytest.param(n, marks=pytest.mark.long) for n in (2, 16, 23, 30, 37))])
def test_an_interrupted_screening_resumes_and_loses_no_seed(tmp_path: Path, after: int) -> None:
    study = Played(tmp_path, **FOUR, search={"seeds": 2, "pruner": "successive_halving"})
    interrupted = study.events(slots=2)
    for _ in range(after):
        next(interrupted, None)
    interrupted.close()
    results = study.answer()
    assert row(results, 31).seeds == (0, 1) and row(results, 31).state == "complete"
    for configuration in results.rows:
        assert configuration.seeds == ((0, 1) if configuration.state == "complete" else ())


def test_a_screening_run_that_diverges_or_runs_out_of_memory_ends_its_configuration(tmp_path: Path) -> None:
    script = ended_badly(RunState.DIVERGED, k=3, seed=SCREENING_SEEDS)
    script = ended_badly(RunState.OUT_OF_MEMORY, k=7, seed=SCREENING_SEEDS, otherwise=script)
    study = Played(tmp_path, **FOUR, search={"seeds": 2, "pruner": "successive_halving"})
    results = study.answer(script)
    assert (row(results, 3).state, row(results, 7).state, row(results, 31).state) == ("failed", "failed", "complete")
    assert (row(results, 3).reason or "").startswith("screening run diverged")
    assert (row(results, 7).reason or "").startswith("screening run out of memory")
    assert not {pair for pair in submitted(study) if pair[0] in (3, 7) and pair[1] < SCREENING_SEEDS}


# Seeds that did not end


@pytest.mark.parametrize(
    ("state", "words"), [(RunState.OUT_OF_MEMORY, "out of memory"), (RunState.TIMED_OUT, "timed out")]
)
def test_a_mean_without_a_seed_is_marked_with_the_reason(tmp_path: Path, state: RunState, words: str) -> None:
    results = Played(tmp_path, **TWO, search={"seeds": 4}).answer(ended_badly(state, k=3, seed=2))
    short = row(results, 3)
    assert (short.state, short.seeds) == ("complete", (0, 1, 3))
    assert short.reason == f"3 of 4 seeds: seed 2 {words}: the training loss is nan"
    text = text_of(results_view(results), width=160)
    assert "3 of 4" in text and short.reason in text
    values = configuration_values(short, results.metric)
    assert (values["n"], values["n_trained"]) == (3, 4)
    assert values["missing_seeds"] == [{"seed": 2, "state": words, "cause": "the training loss is nan"}]


@pytest.mark.parametrize("search", [{"seeds": 4}, {"sampler": "random", "trials": 7, "seeds": 1}])
def test_a_configuration_with_a_seed_that_diverged_is_infeasible_everywhere(
    tmp_path: Path, search: dict[str, Any]
) -> None:
    study = Played(tmp_path, **TWO, search=search)
    state = LiveState("question", None, "top1", "maximize", EventFormatter("top1"))
    for event, progress, _ in study.events(ended_badly(RunState.DIVERGED, k=13, seed=1)):
        state.update(event, progress)
    results = study.answer()
    worst = row(results, 13)
    n = len(worst.values)
    assert worst.state == "diverged" and n >= 1 and 1 not in worst.seeds
    assert worst.reason == f"{n} of {n + 1} seeds: seed 1 diverged: the training loss is nan"
    assert "over the budget" not in text_of(results_view(results))
    assert results.best is row(results, 3) and results.best_so_far is row(results, 3) and not worst.is_on_front
    assert "K=3-3-3-3" in text_of(state.draw()) and "diverged" in worst.state
    with open_study_reader(study.path, study.workspace) as reader:
        trials = [t for t in reader.trials if t.user_attrs["fingerprint"] == worst.spec.fingerprint()]
        later = [t for t in trials if max(t.user_attrs["seeds"]) >= 1]
    assert later and all(t.constraints["diverged"] > 0 for t in later)


def test_two_seeds_of_a_configuration_may_diverge(tmp_path: Path) -> None:
    study = Played(tmp_path, **TWO, search={"seeds": 4})
    second, third = (ended_badly(RunState.DIVERGED, k=13, seed=seed) for seed in (1, 2))
    results = study.answer(lambda job: (second if job.run.seed == 1 else third)(job))
    worst = row(results, 13)
    assert worst.state == "diverged" and worst.seeds == (0, 3)
    assert (worst.reason or "").startswith("2 of 4 seeds: seed 1 diverged")


def test_the_runs_of_a_configuration_that_failed_are_not_queued(tmp_path: Path) -> None:
    study = Played(tmp_path, **TWO, search={"seeds": 3})
    study.answer(ended_badly(RunState.DIVERGED, k=13, seed=0))
    text = called("status", study.path, *study.workspace.options, cwd=tmp_path).stdout
    assert "runs            3 complete, 1 diverged, 2 not trained; 6 at most" in text and "queued" not in text


def test_the_status_of_a_finished_study_in_which_all_failed_has_no_best_and_expects_none(tmp_path: Path) -> None:
    def fails(_: Job) -> Iterator[Record]:
        yield started()
        yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan")

    study = Played(tmp_path, **TWO, search={"seeds": 1})
    study.answer(fails)
    text = called("status", study.path, *study.workspace.options, cwd=tmp_path).stdout
    assert "best            none: no configuration is complete and within the budgets" in text


def test_a_run_that_another_study_saw_diverge_is_missing_here_too(tmp_path: Path) -> None:
    Played(tmp_path, **TWO, search={"seeds": 2}).answer(ended_badly(RunState.DIVERGED, k=3, seed=1))
    results = Played(tmp_path, **TWO, study="another", search={"seeds": 3}).answer()
    assert row(results, 3).state == "diverged" and row(results, 3).seeds == (0, 2)


def test_seeds_that_fail_in_a_row_are_trained_by_the_same_command(tmp_path: Path) -> None:
    def full(job: Job) -> Iterator[Record]:
        if job.run.seed == 0:
            yield from well(job)
            return
        yield started()
        yield Ended(RunState.FAILED, wall_s=0.1, cause="OSError: no space left on device")

    study = Played(tmp_path, **FOUR, search={"seeds": 2})
    with pytest.raises(StudyAborted, match="3 runs in a row failed"):
        study.answer(full)
    results = study.answer()
    assert [configuration.seeds for configuration in results.rows] == [(0, 1)] * 4
    assert {configuration.state for configuration in results.rows} == {"complete"}


def test_a_lone_failure_ends_its_trial_and_not_the_study(tmp_path: Path) -> None:
    results = Played(tmp_path, **FOUR, search={"seeds": 2}).answer(ended_badly(RunState.FAILED, k=31, seed=1))
    assert row(results, 31).state == "complete" and (row(results, 31).reason or "").startswith(
        "1 of 2 seeds: seed 1 failed"
    )


def test_the_same_command_trains_a_failed_seed_again_as_it_trains_what_is_missing(tmp_path: Path) -> None:
    study = Played(tmp_path, **FOUR, search={"seeds": 2})
    study.answer(ended_badly(RunState.FAILED, k=31, seed=1))
    results = study.answer()
    assert submitted(study) == [(31, 1)]
    assert [configuration.seeds for configuration in results.rows] == [(0, 1)] * 4 and [
        configuration.reason for configuration in results.rows
    ] == [None] * 4
    assert sorted(configuration.trials for configuration in results.rows) == [(0,), (1,), (2,), (3,)]
    study.answer()
    assert study.executor is not None and submitted(study) == [(31, 1)], "the last answer started no executor"


@pytest.mark.long
@pytest.mark.parametrize("search", [{"seeds": 1}, {"sampler": "random", "trials": 3, "seeds": 1}])
def test_the_same_command_trains_a_failed_first_seed_again(tmp_path: Path, search: dict[str, Any]) -> None:
    study = Played(tmp_path, **FOUR, search=search)
    first = study.answer(ended_badly(RunState.OUT_OF_MEMORY, k=7, seed=0))
    assert row(first, 7).state == "failed"
    results = study.answer()
    assert submitted(study) == [(7, 0)]
    assert row(results, 7).state == "complete" and len(results.rows) == len(first.rows)
    assert sum(len(configuration.trials) for configuration in results.rows) == sum(
        len(configuration.trials) for configuration in first.rows
    )


def test_seeds_that_fail_again_leave_the_answer_as_it_was(tmp_path: Path) -> None:
    bad = {(7, 1), (31, 1), (13, 2)}

    def script(job: Job) -> Iterator[Record]:
        k, seed = job.run.spec.K[0], job.run.seed
        yield from ended_badly(RunState.FAILED, k=k, seed=seed)(job) if (k, seed) in bad else well(job)

    study = Played(tmp_path, **FOUR, search={"seeds": 3})
    first = study.answer(script)
    assert sorted(len(configuration.values) for configuration in first.rows) == [2, 2, 2, 3]
    results = study.answer(script)
    assert set(submitted(study)) == bad
    assert [(configuration.seeds, configuration.mean, configuration.reason) for configuration in results.rows] == [
        (configuration.seeds, configuration.mean, configuration.reason) for configuration in first.rows
    ]


def test_a_configuration_that_passed_its_screening_is_not_screened_again_for_a_failed_seed(tmp_path: Path) -> None:
    search = {"sampler": "random", "trials": 3, "seeds": 2, "pruner": "successive_halving"}
    study = Played(tmp_path, **FOUR, search=search)
    first = study.answer(ended_badly(RunState.FAILED, k=31, seed=1))
    assert row(first, 31).seeds == (0,)
    results = study.answer()
    assert submitted(study) == [(31, 1)]
    assert row(results, 31).seeds == (0, 1) and len(results.rows) == len(first.rows)


# Claims


def test_a_claim_lists_which_pairs_it_lost(tmp_path: Path) -> None:
    contrast = {"K=[13,13,13,13]": 1, "K=[3,3,3,3]": -1}
    claim = {"name": "larger", "says": "K=13 is better.", "contrast": contrast, "expect": "> 0"}
    study = Played(tmp_path, **TWO, search={"seeds": 4}, claims=[claim])
    results = study.answer(ended_badly(RunState.DIVERGED, k=3, seed=2, otherwise=gains(K13=5.0)))
    with open_study_reader(study.path, study.workspace) as reader:
        (result,) = reader.claims()
    assert result.seeds == (0, 1, 3) and result.pairs == 4
    values = claim_values(result)
    assert (values["n"], values["n_trained"]) == (3, 4)
    assert values["lost"] == ["seed 2 of K=[3,3,3,3] diverged"]
    text = text_of(results_view(replace(results, claims=(result,))), width=160)
    assert "3 of 4 seeds: seed 2 of K=[3,3,3,3] diverged" in text
