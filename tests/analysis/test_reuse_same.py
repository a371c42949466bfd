"""`--reuse same`: runs of another environment are trained again, and every study that has them agrees afterwards."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from environment_lab import OLD, ONE, THREE, WORDS, Lab, number_trained, shared, worker
from sqlalchemy import text
from tiny_studies import EPOCHS, HERE, VERSIONS, called

from harness.analysis.study_reader import open_study_reader
from harness.errors import StoreError
from harness.storage import DriverLock
from harness.training.run import Ended, Job, Record, RunState, Started


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_reuse_same_trains_again_and_keeps_what_was(lab: Lab) -> None:
    lab.run(lab.file("old", **ONE), worker(OLD))
    path = lab.file("new", **THREE)
    lab.run(path, worker(HERE, gain=5.0), reuse="same")
    assert number_trained(lab) == 6
    results = lab.results(path)
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
    configuration = lab.results(other).rows[0]
    assert configuration.state == "waiting" and configuration.values == pytest.approx((68.0, 68.2, 68.4))
    with open_study_reader(other, lab.place) as reader:
        assert reader.trials[0].values is None and not reader.trials[0].intermediate_values
    lab.run(other, worker(HERE))
    assert lab.jobs == []
    configuration = lab.results(other).rows[0]
    with open_study_reader(other, lab.place) as reader:
        assert (configuration.state, configuration.mean) == ("complete", reader.trials[0].value)


def test_a_finished_study_is_trained_again_with_reuse_same(lab: Lab) -> None:
    path = lab.file("new", **THREE)
    lab.run(path, worker(OLD))
    lab.run(path, worker(HERE, gain=5.0), reuse="same")
    assert number_trained(lab) == 6
    with open_study_reader(path, lab.place) as reader:
        assert [trial.value for trial in reader.trials] == [
            configuration.mean for configuration in reversed(lab.results(path).rows)
        ]
        assert [trial.state.name for trial in reader.trials] == ["COMPLETE"] * 2
        assert len(reader.trials[0].intermediate_values) == EPOCHS + 2
    lab.run(path, worker(HERE), reuse="same")
    assert lab.jobs == []


def test_runs_of_a_study_that_is_being_driven_are_not_replaced(lab: Lab) -> None:
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
    assert number_trained(lab) == 3 and lab.results(path).rows[0].state == "complete"


def test_a_dry_run_counts_what_reuse_same_would_train(lab: Lab) -> None:
    path = lab.file("new", **ONE)
    lab.run(path, worker(OLD))
    for reuse, words in (
        ("any", "0 to train\n3 runs are of another environment: times would be measured again"),
        ("same", "has 0; 3 to train"),
    ):
        result = called("run", path, "--dry-run", "--reuse", reuse, "--results", lab.place.results, cwd=lab.folder)
        assert result.returncode == 0 and words in result.stdout


def test_a_value_that_does_not_agree_with_the_runs_is_computed_again(lab: Lab) -> None:
    path = lab.file("new", **ONE)
    lab.run(path, worker(HERE))
    with lab.store() as store, store.session() as session:
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
    assert [origin.text for origin in lab.results(path).origins] == ["3 of 3 runs: 1 thread"]
