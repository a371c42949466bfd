"""Runs of another environment: their accuracy is taken and the answer states so; their times are never taken.

Workers are played by a script; what they would measure depends on the environment that they have.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from studies_folder import CLAIM, OLD, ONE, THREE, WORDS, StudiesFolder, number_trained, shared, worker
from tiny_studies import EPOCHS, HERE, VERSIONS, called, epoch, text_of

from harness.analysis.study_reader import open_study_reader
from harness.report.study import results_view, write_summary
from harness.search.events import RunEnded, TrialEnded
from harness.training.run import Ended, Job, Record, RunState, Started


@pytest.fixture
def studies(tmp_path: Path) -> StudiesFolder:
    return StudiesFolder(tmp_path)


# Accuracy


def test_accuracy_of_another_environment_is_reused_and_every_view_states_it(studies: StudiesFolder) -> None:
    path = shared(studies)
    assert number_trained(studies) == 3
    results = studies.results(path)
    assert [len(configuration.values) for configuration in results.rows] == [3, 3]
    words = f"3 of 6 runs: {WORDS}"
    assert [origin.text for origin in results.origins] == [words]
    assert f"{words} (here: operator revision {HERE.operator}, torch {HERE.torch})" in text_of(
        results_view(results), width=1000
    )
    values = results.to_dict()
    assert words in values["conditions"] and values["other_environments"][0]["text"] == words
    assert values["claims"][0]["other_environments"] == [words]
    write_summary(studies.folder, results)
    assert words in " ".join((studies.folder / "summary.txt").read_text().split())
    runs = [run for row in values["configurations"] for run in row["runs"]]
    assert sorted(run["environment"]["torch"] for run in runs) == sorted(["2.14"] * 3 + [str(HERE.torch)] * 3)


def test_show_states_it_for_a_study_and_for_a_trial(studies: StudiesFolder) -> None:
    path = shared(studies)
    options = ("--results", studies.workspace.results)
    assert f"3 of 6 runs: {WORDS}" in " ".join(called("show", path, *options, cwd=studies.folder).stdout.split())
    assert f"not here   {WORDS}" in called("show", path, "0", *options, cwd=studies.folder).stdout
    assert "not here" not in called("show", path, "1", *options, cwd=studies.folder).stdout
    run = json.loads(called("show", path, "0", "--json", *options, cwd=studies.folder).stdout)["runs"][0]
    assert (run["environment"]["operator"], run["times_environment"]["operator"]) == ("a1b2", HERE.operator)


def test_runs_of_this_environment_are_not_mentioned(studies: StudiesFolder) -> None:
    path = studies.file("new", **THREE)
    studies.run(path, worker(HERE))
    results = studies.results(path)
    assert results.origins == () and "environments" not in results.to_dict()["conditions"]
    events = studies.run(path, worker(HERE))
    assert studies.jobs == [] and not any(isinstance(event, TrialEnded) for event in events)


def test_runs_that_were_recorded_before_environments_are_of_an_unknown_one(studies: StudiesFolder) -> None:
    path = studies.file("new", **ONE)
    studies.run(path, worker(None))
    assert [origin.text for origin in studies.results(path).origins] == [
        "3 of 3 runs: unknown environment, recorded before environments were kept"
    ]


def test_a_run_that_was_resumed_in_another_environment_is_of_both(studies: StudiesFolder) -> None:
    path = studies.file("new", **ONE | {"search": {"seeds": 1}})

    def first_half(_: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, environment=OLD)
        yield epoch(1, 10.0)
        yield Ended(RunState.STOPPED, 1.0, "stopped")

    def second_half(_: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, first_epoch=2, environment=HERE)
        yield from (epoch(n, 60.0) for n in range(2, EPOCHS + 1))
        yield Ended(RunState.COMPLETE, 1.0)

    studies.run(path, first_half, stop_at=RunEnded)
    studies.run(path, second_half)
    first = studies.results(path).origins[0]
    assert first.differs_by == f"first epochs: {WORDS}"


def test_a_run_that_another_environment_began_starts_again_with_reuse_same(studies: StudiesFolder) -> None:
    path = studies.file("new", **ONE | {"search": {"seeds": 1}})

    def first_half(job: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, environment=OLD)
        job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        job.checkpoint.write_text("half")
        yield epoch(1, 10.0)
        yield Ended(RunState.STOPPED, 1.0, "stopped")

    studies.run(path, first_half, stop_at=RunEnded)
    studies.run(path, worker(HERE), reuse="same")
    assert studies.results(path).origins == ()
    assert (studies.workspace.folder("new") / "replaced" / f"{studies.jobs[0].run.id}.1.pt").read_text() == "half"


def test_status_names_the_environments_too(studies: StudiesFolder) -> None:
    path = shared(studies)
    options = ("--results", studies.workspace.results)
    assert f"environments    3 of 6 runs: {WORDS}" in called("status", path, *options, cwd=studies.folder).stdout
    output = called("status", path, "--json", *options, cwd=studies.folder).stdout
    assert json.loads(output)["other_environments"] == [f"3 of 6 runs: {WORDS}"]


def test_an_estimate_rests_on_times_of_this_environment(studies: StudiesFolder) -> None:
    path = studies.file("new", **THREE)
    studies.run(studies.file("old", **ONE), worker(OLD))
    options = ("--dry-run", "--results", studies.workspace.results)
    assert "a rough rule" in called("run", path, *options, cwd=studies.folder).stdout
    studies.run(path, worker(HERE))
    output = called("run", path, "--reuse", "same", *options, cwd=studies.folder).stdout
    assert "from the wall times of 3 stored runs" in output


def test_of_a_cluster_only_what_is_known_here_is_compared(studies: StudiesFolder) -> None:
    studies.run(studies.file("old", **ONE), worker(replace(HERE, torch="2.14", device="cuda")))
    path = studies.file("new", **ONE)
    studies.run(path, worker(HERE), is_cluster=True)
    assert studies.jobs == []
    studies.run(studies.file("third", **ONE), worker(HERE))
    assert len(studies.jobs) == 3


# Times


def test_times_of_another_environment_are_measured_again_on_the_stored_weights(studies: StudiesFolder) -> None:
    path = shared(studies)
    assert [job.only_times for job in studies.jobs].count(True) == 3
    results = studies.results(path)
    assert {configuration.spec.K[0]: configuration.latency_ms for configuration in results.rows} == {3: 6.0, 13: 26.0}
    assert {configuration.spec.K[0]: configuration.wall_s for configuration in results.rows} == {3: None, 13: 12.0}
    assert "peak_memory_bytes" not in results.rows[1].runs[0].measures
    assert "Peak memory of 3 of 6 runs, whose times" in " ".join(results.time_notes)
    with studies.store() as store:
        again = [event for event in store.events("new") if event.kind == "times measured again"]
        assert len(again) == 3 and f"latency_ms_p50 3.0, peak_memory_bytes 500000000.0 ({WORDS})" in again[0].message
        row = store.run(results.rows[1].runs[0].row.id)
    assert (row.environment, row.timed, row.state) == (OLD, HERE, RunState.COMPLETE)


def test_without_weights_times_are_left_out_and_the_answer_states_why(studies: StudiesFolder) -> None:
    path = shared(studies, keeps_weights=False)
    assert not any(job.only_times for job in studies.jobs)
    results = studies.results(path)
    assert {configuration.spec.K[0]: configuration.latency_ms for configuration in results.rows} == {3: None, 13: 26.0}
    notes = " ".join(results.time_notes)
    assert "Times and memory of 3 of 6 runs are left out" in notes and "No weights of 3 of these are kept" in notes
    assert notes in results.to_dict()["conditions"]
    with open_study_reader(path, studies.workspace) as reader:
        assert [("latency_ms_p50" in trial.user_attrs) for trial in reader.trials] == [False, True]


def test_a_finished_study_has_its_times_measured_again_where_it_is_run_in_another_environment(
    studies: StudiesFolder,
) -> None:
    path = studies.file("new", **THREE)
    studies.run(path, worker(OLD))
    before = studies.results(path)
    assert {configuration.latency_ms for configuration in before.rows} == {3.0, 13.0} and before.time_notes == ()
    events = studies.run(path, worker(HERE, latency_ms=2.0))
    assert (number_trained(studies), len(studies.jobs)) == (0, 6)
    assert [event.state for event in events if isinstance(event, TrialEnded)] == ["complete"] * 2
    after = studies.results(path)
    assert {configuration.latency_ms for configuration in after.rows} == {6.0, 26.0}
    assert [configuration.values for configuration in after.rows] == [
        configuration.values for configuration in before.rows
    ]
    with open_study_reader(path, studies.workspace) as reader:
        assert [trial.user_attrs["latency_ms_p50"] for trial in reader.trials] == [6.0, 26.0]
    studies.run(path, worker(HERE))
    assert studies.jobs == []


def test_an_interrupted_measurement_is_resumed(studies: StudiesFolder) -> None:
    path = studies.file("new", **THREE)
    studies.run(path, worker(OLD))
    studies.run(path, worker(HERE, latency_ms=2.0), stop_at=RunEnded)
    studies.run(path, worker(HERE, latency_ms=2.0))
    assert number_trained(studies) == 0
    assert {configuration.latency_ms for configuration in studies.results(path).rows} == {6.0, 26.0}


def test_a_measurement_that_fails_leaves_the_times_out(studies: StudiesFolder) -> None:
    path = studies.file("new", **ONE)
    studies.run(path, worker(OLD))

    def fails(_: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, environment=HERE)
        yield Ended(RunState.FAILED, 1.0, "no weights of the last epoch are kept")

    studies.run(path, fails)
    with open_study_reader(path, studies.workspace) as reader:
        assert "latency_ms_p50" not in reader.trials[0].user_attrs and reader.trials[0].state.name == "COMPLETE"
        assert sum(event.kind == "times left out" for event in reader.store.events("new")) == 3


@pytest.mark.parametrize("keeps_weights", [True, False])
def test_a_budget_on_a_time_is_decided_by_times_of_this_environment(
    studies: StudiesFolder, keeps_weights: bool
) -> None:
    path = studies.file("new", **THREE, budgets={"latency_ms": 20})
    studies.run(path, worker(OLD, keeps_weights=keeps_weights))
    assert [configuration.state for configuration in studies.results(path).rows] == ["complete"] * 2
    studies.run(path, worker(HERE, latency_ms=2.0))
    assert number_trained(studies) == (0 if keeps_weights else 6)
    assert {configuration.spec.K[0]: configuration.state for configuration in studies.results(path).rows} == {
        3: "complete",
        13: "over budget",
    }


def test_an_objective_that_is_a_time_gets_the_new_value(studies: StudiesFolder) -> None:
    path = studies.file("new", **THREE, objectives={"latency_ms_p50": "minimize"})
    studies.run(path, worker(OLD))
    studies.run(path, worker(HERE, latency_ms=2.0))
    with open_study_reader(path, studies.workspace) as reader:
        assert [trial.value for trial in reader.trials] == [6.0, 26.0]
    assert [configuration.values for configuration in studies.results(path).rows] == [(6.0,) * 3, (26.0,) * 3]


def test_a_claim_compares_times_of_one_environment_only(studies: StudiesFolder) -> None:
    claim = CLAIM | {"metric": "latency_ms_p50"}
    path = studies.file("new", **THREE, claims=[claim])
    studies.run(studies.file("old", **ONE), worker(OLD))
    with open_study_reader(studies.folder / "old" / "study.yaml", studies.workspace) as reader:
        ids = [run_id for ids in reader.store.trial_runs("old").values() for run_id in ids]
    studies.run(path, worker(HERE, latency_ms=2.0))
    assert studies.results(path).claims[0].values == (20.0,) * 3
    with studies.store() as store:
        store.set_times(ids[0], {"latency_ms_p50": 3.0}, OLD)
    assert studies.results(path).claims[0].seeds == (1, 2)
