"""`--reuse same`: runs of another environment are trained again, and every study that has them agrees afterwards."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from studies_folder import OLD, ONE, THREE, WORDS, StudiesFolder, number_trained, shared, worker
from tiny_studies import EPOCHS, HERE, VERSIONS, called

from harness.analysis.study_reader import open_study_reader
from harness.errors import StoreError
from harness.storage import DriverLock
from harness.training.run import Ended, Job, Record, RunState, Started


@pytest.fixture
def studies(tmp_path: Path) -> StudiesFolder:
    return StudiesFolder(tmp_path)


def test_reuse_same_trains_again_and_keeps_what_was(studies: StudiesFolder) -> None:
    studies.run(studies.file("old", **ONE), worker(OLD))
    path = studies.file("new", **THREE)
    studies.run(path, worker(HERE, gain=5.0), reuse="same")
    assert number_trained(studies) == 6
    results = studies.results(path)
    assert results.origins == () and {
        configuration.spec.K[0]: configuration.mean for configuration in results.rows
    } == pytest.approx({3: 68.2, 13: 80.2})
    kept = sorted((studies.workspace.folder("old") / "replaced").iterdir())
    assert [path.suffix for path in kept] == [".json", ".pt"] * 3
    record = json.loads(kept[0].read_text())
    assert record["environment"]["trained"]["operator"] == "a1b2" and len(record["epochs"]) == EPOCHS
    assert record["measures"]["latency_ms_p50"] == 3.0
    with studies.store() as store:
        assert sum(event.kind == "replaced" and WORDS in event.message for event in store.events("new")) == 3


def test_a_study_that_shares_the_runs_agrees_with_them_afterwards(studies: StudiesFolder) -> None:
    other = studies.file("old", **ONE)
    studies.run(other, worker(OLD))
    studies.run(studies.file("new", **THREE), worker(HERE, gain=5.0), reuse="same")
    configuration = studies.results(other).rows[0]
    assert configuration.state == "waiting" and configuration.values == pytest.approx((68.0, 68.2, 68.4))
    with open_study_reader(other, studies.workspace) as reader:
        assert reader.trials[0].values is None and not reader.trials[0].intermediate_values
    studies.run(other, worker(HERE))
    assert studies.jobs == []
    configuration = studies.results(other).rows[0]
    with open_study_reader(other, studies.workspace) as reader:
        assert (configuration.state, configuration.mean) == ("complete", reader.trials[0].value)


def test_a_finished_study_is_trained_again_with_reuse_same(studies: StudiesFolder) -> None:
    path = studies.file("new", **THREE)
    studies.run(path, worker(OLD))
    studies.run(path, worker(HERE, gain=5.0), reuse="same")
    assert number_trained(studies) == 6
    with open_study_reader(path, studies.workspace) as reader:
        assert [trial.value for trial in reader.trials] == [
            configuration.mean for configuration in reversed(studies.results(path).rows)
        ]
        assert [trial.state.name for trial in reader.trials] == ["COMPLETE"] * 2
        assert len(reader.trials[0].intermediate_values) == EPOCHS + 2
    studies.run(path, worker(HERE), reuse="same")
    assert studies.jobs == []


def test_runs_of_a_study_that_is_being_driven_are_not_replaced(studies: StudiesFolder) -> None:
    studies.run(studies.file("old", **ONE), worker(OLD))
    path = studies.file("new", **THREE)
    with (
        studies.store() as store,
        DriverLock(store, "old"),
        pytest.raises(StoreError, match="one driver at a time"),
    ):
        studies.run(path, worker(HERE), reuse="same")
    with open_study_reader(studies.folder / "old" / "study.yaml", studies.workspace) as reader:
        assert reader.trials[0].state.name == "COMPLETE"
        assert all(
            row.state == RunState.COMPLETE for row in reader.store.runs(reader.store.trial_runs("old")[0]).values()
        )


def test_a_diverged_run_of_another_environment_is_trained_again_too(studies: StudiesFolder) -> None:
    path = studies.file("new", **ONE)

    def diverges(_: Job) -> Iterator[Record]:
        yield Started("host", 1, "cpu", 1, VERSIONS, epochs=EPOCHS, environment=OLD)
        yield Ended(RunState.DIVERGED, 1.0, "nan")

    studies.run(path, diverges)
    studies.run(path, worker(HERE))
    assert studies.jobs == []
    studies.run(path, worker(HERE), reuse="same")
    assert number_trained(studies) == 3 and studies.results(path).rows[0].state == "complete"


def test_a_dry_run_counts_what_reuse_same_would_train(studies: StudiesFolder) -> None:
    path = studies.file("new", **ONE)
    studies.run(path, worker(OLD))
    for reuse, words in (
        ("any", "0 to train\n3 runs are of another environment: times would be measured again"),
        ("same", "has 0; 3 to train"),
    ):
        result = called(
            "run",
            path,
            "--dry-run",
            "--reuse",
            reuse,
            "--results",
            studies.workspace.results,
            cwd=studies.folder,
        )
        assert result.returncode == 0 and words in result.stdout


def test_a_value_that_does_not_agree_with_the_runs_is_computed_again(studies: StudiesFolder) -> None:
    path = studies.file("new", **ONE)
    studies.run(path, worker(HERE))
    with studies.store() as store, store.session() as session:
        session.execute(text("UPDATE epochs SET top1 = 1.0 WHERE epoch = 4"))
    studies.run(path, worker(HERE))
    assert studies.jobs == []
    with open_study_reader(path, studies.workspace) as reader:
        assert reader.trials[0].value == 1.0


def test_verify_marks_recorded_claims_of_another_environment(studies: StudiesFolder) -> None:
    shared(studies)
    result = called("verify", "--only", "claims", "--results", studies.workspace.results, cwd=studies.folder)
    assert result.returncode == 0
    assert f"new, c: other environments: 3 of 6 runs: {WORDS}" in " ".join(result.stdout.split())


def test_times_of_another_number_of_threads_are_those_of_another_environment(studies: StudiesFolder) -> None:
    studies.run(studies.file("new", **ONE), worker(HERE))
    path = studies.file("new", **ONE, resources={"cpus": 2})
    studies.run(path, worker(replace(HERE, threads=2), latency_ms=2.0))
    assert [job.only_times for job in studies.jobs] == [True] * 3
    assert [origin.text for origin in studies.results(path).origins] == ["3 of 3 runs: 1 thread"]
