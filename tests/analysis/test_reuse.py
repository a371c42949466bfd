"""Runs of another environment: their accuracy is taken and said to be so, their times never; or they are trained again.

Workers are played by a script; what they would measure depends on the environment that they have.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import EPOCHS, HERE, SCRIPTED, VERSIONS, called, epoch, quality, text_of, write_study

from harness.analysis.claims import evaluate_claims
from harness.analysis.results import StudyResults, study_results
from harness.analysis.reuse import ReuseMode
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.study_file import load_study
from harness.errors import StoreError
from harness.executors.scripted import ScriptedExecutor
from harness.report.study import results_view
from harness.report.summary import write_summary
from harness.search.events import RunEnded, StudyEvent, TrialEnded
from harness.search.session import open_for_driving
from harness.storage import DriverLock, Store
from harness.storage.workspace import Workspace
from harness.training.environment import Environment
from harness.training.run import Ended, Job, Measured, Record, RunState, Started

OLD = replace(HERE, operator="a1b2", torch="2.14")
WORDS = "operator revision a1b2, torch 2.14"
THREE: dict[str, Any] = {"axes": {"K": [[3, 3, 3, 3], [13, 13, 13, 13]]}, "when": {}, "search": {"seeds": 3}}
ONE: dict[str, Any] = THREE | {"axes": {"K": [[3, 3, 3, 3]]}}
CLAIM = {"name": "c", "says": "larger is better", "metric": "top1", "contrast": {"K=13": 1, "K=3": -1}, "expect": "> 0"}


def worker(
    environment: Environment | None, *, latency_ms: float = 1.0, gain: float = 0.0, keeps_weights: bool = True
) -> Callable[[Job], Iterator[Record]]:
    """What a worker of an environment says of a job; it writes weights as a file."""

    def script(job: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu (test, 1 thread)", 1, VERSIONS, epochs=EPOCHS, environment=environment)
        if not job.only_times:
            for n in range(1, EPOCHS + 1):
                yield epoch(n, (quality(job) + gain) * n / EPOCHS)
            yield Measured("peak_memory_bytes", 5e8)
            if keeps_weights:
                job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
                job.checkpoint.write_text("weights")
        yield Measured("latency_ms_p50", latency_ms * job.run.spec.K[0])
        yield Ended(RunState.COMPLETE, wall_s=12.0 if not job.only_times else 0.1)

    return script


class Lab:
    """Several studies in one results folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = Workspace(folder / "results")
        self.jobs: list[Job] = []
        """What the last driver submitted."""

    def file(self, name: str, **keys: Any) -> Path:
        (self.folder / name).mkdir(exist_ok=True)
        return write_study(self.folder / name, SCRIPTED | keys, study=name)

    def run(
        self,
        path: Path,
        script: Callable[[Job], Iterator[Record]],
        *,
        reuse: ReuseMode = "any",
        is_cluster: bool = False,
        stop_at: type[StudyEvent] | None = None,
    ) -> list[StudyEvent]:
        file = load_study(path)
        executor = ScriptedExecutor(script)
        events = []
        space = open_space(file)
        with open_for_driving(file, space, self.place, lambda: executor, reuse=reuse, is_cluster=is_cluster) as driven:
            happening = driven.driver.events()
            for event in happening:
                events.append(event)
                if stop_at is not None and isinstance(event, stop_at):
                    happening.close()
        self.jobs = executor.submitted
        return events

    def said(self, path: Path, here: Environment | None = None) -> StudyResults:
        with open_study_reader(path, self.place) as reader:
            study = reader.file.study
            claims = evaluate_claims(study, open_space(reader.file), reader.store, here)
            return study_results(study, reader.store, reader.trials, {}, claims, here)

    def store(self) -> Store:
        return Store.open(self.place.database)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def trained(lab: Lab) -> int:
    return sum(not job.only_times for job in lab.jobs)


def shared(lab: Lab, **options: Any) -> Path:
    """A study that takes three runs of an older environment, and has had three of its own trained."""
    lab.run(lab.file("old", **ONE), worker(OLD, **options))
    path = lab.file("new", **THREE, claims=[CLAIM])
    lab.run(path, worker(HERE, latency_ms=2.0))
    return path


# Accuracy


def test_accuracy_of_another_environment_is_taken_and_every_view_says_so(lab: Lab) -> None:
    path = shared(lab)
    assert trained(lab) == 3
    results = lab.said(path)
    assert [len(configuration.values) for configuration in results.rows] == [3, 3]
    words = f"3 of 6 runs: {WORDS}"
    assert [origin.text for origin in results.origins] == [words]
    assert f"{words} (here: operator revision {HERE.operator}, torch {HERE.torch})" in text_of(
        results_view(results), width=1000
    )
    values = results.to_dict()
    assert words in values["conditions"] and values["other_environments"][0]["text"] == words
    assert values["claims"][0]["other_environments"] == [words]
    write_summary(lab.folder, results)
    assert words in " ".join((lab.folder / "summary.txt").read_text().split())
    runs = [run for row in values["configurations"] for run in row["runs"]]
    assert sorted(run["environment"]["torch"] for run in runs) == sorted(["2.14"] * 3 + [str(HERE.torch)] * 3)


def test_show_and_a_trial_from_close_up_say_so_too(lab: Lab) -> None:
    path = shared(lab)
    where = ("--results", lab.place.results)
    assert f"3 of 6 runs: {WORDS}" in " ".join(called("show", path, *where, cwd=lab.folder).stdout.split())
    assert f"not here   {WORDS}" in called("show", path, "0", *where, cwd=lab.folder).stdout
    assert "not here" not in called("show", path, "1", *where, cwd=lab.folder).stdout
    run = json.loads(called("show", path, "0", "--json", *where, cwd=lab.folder).stdout)["runs"][0]
    assert (run["environment"]["operator"], run["times_environment"]["operator"]) == ("a1b2", HERE.operator)


def test_runs_of_this_environment_are_not_mentioned(lab: Lab) -> None:
    path = lab.file("new", **THREE)
    lab.run(path, worker(HERE))
    results = lab.said(path)
    assert results.origins == () and "environments" not in results.to_dict()["conditions"]
    events = lab.run(path, worker(HERE))
    assert lab.jobs == [] and not any(isinstance(event, TrialEnded) for event in events)


def test_runs_that_were_recorded_before_environments_are_of_an_unknown_one(lab: Lab) -> None:
    path = lab.file("new", **ONE)
    lab.run(path, worker(None))
    assert [origin.text for origin in lab.said(path).origins] == [
        "3 of 3 runs: unknown environment, recorded before environments were kept"
    ]


def test_a_run_that_was_resumed_in_another_environment_is_of_both(lab: Lab) -> None:
    path = lab.file("new", **ONE | {"search": {"seeds": 1}})

    def first_half(_: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, environment=OLD)
        yield epoch(1, 10.0)
        yield Ended(RunState.STOPPED, 1.0, "stopped")

    def second_half(_: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, first_epoch=2, environment=HERE)
        yield from (epoch(n, 60.0) for n in range(2, EPOCHS + 1))
        yield Ended(RunState.COMPLETE, 1.0)

    lab.run(path, first_half, stop_at=RunEnded)
    lab.run(path, second_half)
    first = lab.said(path).origins[0]
    assert first.differs_by == f"first epochs: {WORDS}"


def test_a_run_that_another_environment_began_begins_anew_with_reuse_same(lab: Lab) -> None:
    path = lab.file("new", **ONE | {"search": {"seeds": 1}})

    def first_half(job: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, environment=OLD)
        job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        job.checkpoint.write_text("half")
        yield epoch(1, 10.0)
        yield Ended(RunState.STOPPED, 1.0, "stopped")

    lab.run(path, first_half, stop_at=RunEnded)
    lab.run(path, worker(HERE), reuse="same")
    assert lab.said(path).origins == ()
    assert (lab.place.folder("new") / "replaced" / f"{lab.jobs[0].run.id}.1.pt").read_text() == "half"


def test_status_names_the_environments_too(lab: Lab) -> None:
    path = shared(lab)
    where = ("--results", lab.place.results)
    assert f"environments    3 of 6 runs: {WORDS}" in called("status", path, *where, cwd=lab.folder).stdout
    output = called("status", path, "--json", *where, cwd=lab.folder).stdout
    assert json.loads(output)["other_environments"] == [f"3 of 6 runs: {WORDS}"]


def test_an_estimate_rests_on_times_of_this_environment(lab: Lab) -> None:
    path = lab.file("new", **THREE)
    lab.run(lab.file("old", **ONE), worker(OLD))
    where = ("--dry-run", "--results", lab.place.results)
    assert "a rough rule" in called("run", path, *where, cwd=lab.folder).stdout
    lab.run(path, worker(HERE))
    done = called("run", path, "--reuse", "same", *where, cwd=lab.folder).stdout
    assert "from the wall times of 3 stored runs" in done


def test_of_a_cluster_only_what_is_known_here_is_compared(lab: Lab) -> None:
    lab.run(lab.file("old", **ONE), worker(replace(HERE, torch="2.14", device="cuda")))
    path = lab.file("new", **ONE)
    lab.run(path, worker(HERE), is_cluster=True)
    assert lab.jobs == []
    lab.run(lab.file("third", **ONE), worker(HERE))
    assert len(lab.jobs) == 3


# Times


def test_times_of_another_environment_are_measured_again_on_the_stored_weights(lab: Lab) -> None:
    path = shared(lab)
    assert [job.only_times for job in lab.jobs].count(True) == 3
    results = lab.said(path)
    assert {configuration.spec.K[0]: configuration.latency_ms for configuration in results.rows} == {3: 6.0, 13: 26.0}
    assert {configuration.spec.K[0]: configuration.wall_s for configuration in results.rows} == {3: None, 13: 12.0}
    assert "peak_memory_bytes" not in results.rows[1].runs[0].measures
    assert "Peak memory of 3 of 6 runs, whose times" in " ".join(results.time_notes)
    with lab.store() as store:
        again = [event for event in store.events("new") if event.kind == "times measured again"]
        assert len(again) == 3 and f"latency_ms_p50 3.0, peak_memory_bytes 500000000.0 ({WORDS})" in again[0].message
        row = store.run(results.rows[1].runs[0].row.id)
    assert (row.environment, row.timed, row.state) == (OLD, HERE, RunState.COMPLETE)


def test_without_weights_times_are_left_out_and_the_answer_says_why(lab: Lab) -> None:
    path = shared(lab, keeps_weights=False)
    assert not any(job.only_times for job in lab.jobs)
    results = lab.said(path)
    assert {configuration.spec.K[0]: configuration.latency_ms for configuration in results.rows} == {3: None, 13: 26.0}
    notes = " ".join(results.time_notes)
    assert "Times and memory of 3 of 6 runs are left out" in notes and "No weights of 3 of these are kept" in notes
    assert notes in results.to_dict()["conditions"]
    with open_study_reader(path, lab.place) as reader:
        assert [("latency_ms_p50" in trial.user_attrs) for trial in reader.trials] == [False, True]


def test_a_finished_study_has_its_times_measured_again_where_it_is_run_in_another_environment(lab: Lab) -> None:
    path = lab.file("new", **THREE)
    lab.run(path, worker(OLD))
    before = lab.said(path)
    assert {configuration.latency_ms for configuration in before.rows} == {3.0, 13.0} and before.time_notes == ()
    events = lab.run(path, worker(HERE, latency_ms=2.0))
    assert (trained(lab), len(lab.jobs)) == (0, 6)
    assert [event.state for event in events if isinstance(event, TrialEnded)] == ["complete"] * 2
    after = lab.said(path)
    assert {configuration.latency_ms for configuration in after.rows} == {6.0, 26.0}
    assert [configuration.values for configuration in after.rows] == [
        configuration.values for configuration in before.rows
    ]
    with open_study_reader(path, lab.place) as reader:
        assert [trial.user_attrs["latency_ms_p50"] for trial in reader.trials] == [6.0, 26.0]
    lab.run(path, worker(HERE))
    assert lab.jobs == []


def test_an_interrupted_measuring_goes_on(lab: Lab) -> None:
    path = lab.file("new", **THREE)
    lab.run(path, worker(OLD))
    lab.run(path, worker(HERE, latency_ms=2.0), stop_at=RunEnded)
    lab.run(path, worker(HERE, latency_ms=2.0))
    assert trained(lab) == 0
    assert {configuration.latency_ms for configuration in lab.said(path).rows} == {6.0, 26.0}


def test_a_measuring_that_fails_leaves_the_times_out(lab: Lab) -> None:
    path = lab.file("new", **ONE)
    lab.run(path, worker(OLD))

    def fails(_: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, environment=HERE)
        yield Ended(RunState.FAILED, 1.0, "no weights of the last epoch are kept")

    lab.run(path, fails)
    with open_study_reader(path, lab.place) as reader:
        assert "latency_ms_p50" not in reader.trials[0].user_attrs and reader.trials[0].state.name == "COMPLETE"
        assert sum(event.kind == "times left out" for event in reader.store.events("new")) == 3


@pytest.mark.parametrize("keeps_weights", [True, False])
def test_a_budget_on_a_time_is_decided_by_times_of_this_environment(lab: Lab, keeps_weights: bool) -> None:
    path = lab.file("new", **THREE, budgets={"latency_ms": 20})
    lab.run(path, worker(OLD, keeps_weights=keeps_weights))
    assert [configuration.state for configuration in lab.said(path).rows] == ["complete"] * 2
    lab.run(path, worker(HERE, latency_ms=2.0))
    assert trained(lab) == (0 if keeps_weights else 6)
    assert {configuration.spec.K[0]: configuration.state for configuration in lab.said(path).rows} == {
        3: "complete",
        13: "over budget",
    }


def test_an_objective_that_is_a_time_is_told_anew(lab: Lab) -> None:
    path = lab.file("new", **THREE, objectives={"latency_ms_p50": "minimize"})
    lab.run(path, worker(OLD))
    lab.run(path, worker(HERE, latency_ms=2.0))
    with open_study_reader(path, lab.place) as reader:
        assert [trial.value for trial in reader.trials] == [6.0, 26.0]
    assert [configuration.values for configuration in lab.said(path).rows] == [(6.0,) * 3, (26.0,) * 3]


def test_a_claim_compares_times_of_one_environment_only(lab: Lab) -> None:
    claim = CLAIM | {"metric": "latency_ms_p50"}
    path = lab.file("new", **THREE, claims=[claim])
    lab.run(lab.file("old", **ONE), worker(OLD))
    with open_study_reader(lab.folder / "old" / "study.yaml", lab.place) as reader:
        ids = [run_id for ids in reader.store.trial_runs("old").values() for run_id in ids]
    lab.run(path, worker(HERE, latency_ms=2.0))
    assert lab.said(path).claims[0].values == (20.0,) * 3
    with lab.store() as store:
        store.set_times(ids[0], {"latency_ms_p50": 3.0}, OLD)
    assert lab.said(path).claims[0].seeds == (1, 2)


# Training again


def test_reuse_same_trains_again_and_keeps_what_was(lab: Lab) -> None:
    lab.run(lab.file("old", **ONE), worker(OLD))
    path = lab.file("new", **THREE)
    lab.run(path, worker(HERE, gain=5.0), reuse="same")
    assert trained(lab) == 6
    results = lab.said(path)
    assert results.origins == () and {
        configuration.spec.K[0]: configuration.mean for configuration in results.rows
    } == pytest.approx({3: 68.2, 13: 80.2})
    kept = sorted((lab.place.folder("old") / "replaced").iterdir())
    assert [path.suffix for path in kept] == [".json", ".pt"] * 3
    record = json.loads(kept[0].read_text())
    assert record["environment"]["trained"]["operator"] == "a1b2" and len(record["epochs"]) == EPOCHS
    assert record["measures"]["latency_ms_p50"] == 3.0
    with lab.store() as store:
        assert sum(event.kind == "replaced" and WORDS in event.message for event in store.events("new")) == 3


def test_a_study_that_shares_the_runs_agrees_with_them_afterwards(lab: Lab) -> None:
    other = lab.file("old", **ONE)
    lab.run(other, worker(OLD))
    lab.run(lab.file("new", **THREE), worker(HERE, gain=5.0), reuse="same")
    configuration = lab.said(other).rows[0]
    assert configuration.state == "waiting" and configuration.values == pytest.approx((68.0, 68.2, 68.4))
    with open_study_reader(other, lab.place) as reader:
        assert reader.trials[0].values is None and not reader.trials[0].intermediate_values
    lab.run(other, worker(HERE))
    assert lab.jobs == []
    configuration = lab.said(other).rows[0]
    with open_study_reader(other, lab.place) as reader:
        assert (configuration.state, configuration.mean) == ("complete", reader.trials[0].value)


def test_a_finished_study_is_trained_again_with_reuse_same(lab: Lab) -> None:
    path = lab.file("new", **THREE)
    lab.run(path, worker(OLD))
    lab.run(path, worker(HERE, gain=5.0), reuse="same")
    assert trained(lab) == 6
    with open_study_reader(path, lab.place) as reader:
        assert [trial.value for trial in reader.trials] == [
            configuration.mean for configuration in reversed(lab.said(path).rows)
        ]
        assert [trial.state.name for trial in reader.trials] == ["COMPLETE"] * 2
        assert len(reader.trials[0].intermediate_values) == EPOCHS + 2
    lab.run(path, worker(HERE), reuse="same")
    assert lab.jobs == []


def test_runs_of_a_study_that_is_being_driven_are_not_taken_back(lab: Lab) -> None:
    lab.run(lab.file("old", **ONE), worker(OLD))
    path = lab.file("new", **THREE)
    with lab.store() as store, DriverLock(store, "old"), pytest.raises(StoreError, match="one driver at a time"):
        lab.run(path, worker(HERE), reuse="same")
    with open_study_reader(lab.folder / "old" / "study.yaml", lab.place) as reader:
        assert reader.trials[0].state.name == "COMPLETE"
        assert all(
            row.state == RunState.COMPLETE for row in reader.store.runs(reader.store.trial_runs("old")[0]).values()
        )


def test_a_diverged_run_of_another_environment_is_trained_again_too(lab: Lab) -> None:
    path = lab.file("new", **ONE)

    def diverges(_: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, environment=OLD)
        yield Ended(RunState.DIVERGED, 1.0, "nan")

    lab.run(path, diverges)
    lab.run(path, worker(HERE))
    assert lab.jobs == []
    lab.run(path, worker(HERE), reuse="same")
    assert trained(lab) == 3 and lab.said(path).rows[0].state == "complete"


def test_a_dry_run_counts_what_reuse_same_would_train(lab: Lab) -> None:
    path = lab.file("new", **ONE)
    lab.run(path, worker(OLD))
    for reuse, words in (
        ("any", "0 to train\n3 runs are of another environment: times would be measured again"),
        ("same", "has 0; 3 to train"),
    ):
        result = called("run", path, "--dry-run", "--reuse", reuse, "--results", lab.place.results, cwd=lab.folder)
        assert result.returncode == 0 and words in result.stdout


def test_a_value_that_does_not_agree_with_the_runs_is_told_anew(lab: Lab) -> None:
    path = lab.file("new", **ONE)
    lab.run(path, worker(HERE))
    with lab.store() as store, store.session() as session:
        from sqlalchemy import text

        session.execute(text("UPDATE epochs SET top1 = 1.0 WHERE epoch = 4"))
    lab.run(path, worker(HERE))
    assert lab.jobs == []
    with open_study_reader(path, lab.place) as reader:
        assert reader.trials[0].value == 1.0


def test_verify_marks_recorded_claims_of_another_environment(lab: Lab) -> None:
    shared(lab)
    done = called("verify", "--only", "claims", "--results", lab.place.results, cwd=lab.folder)
    assert done.returncode == 0
    assert f"new, c: other environments: 3 of 6 runs: {WORDS}" in " ".join(done.stdout.split())


def test_times_of_another_number_of_threads_are_those_of_another_environment(lab: Lab) -> None:
    lab.run(lab.file("new", **ONE), worker(HERE))
    path = lab.file("new", **ONE, resources={"cpus": 2})
    lab.run(path, worker(replace(HERE, threads=2), latency_ms=2.0))
    assert [job.only_times for job in lab.jobs] == [True] * 3
    assert [origin.text for origin in lab.said(path).origins] == ["3 of 3 runs: 1 thread"]
