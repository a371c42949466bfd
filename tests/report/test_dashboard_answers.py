"""The dashboard's best, its feasible trials, curves and notes are those of the answer; through its interface."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from dashboard_cases import Api, attributes, finished, is_feasible, served, slower_with_each_seed
from tiny_studies import EPOCHS, Played, called, epoch, quality, started

from harness.analysis.results import study_results
from harness.analysis.study_reader import open_study_reader
from harness.report.dashboard_storage import DashboardStorage
from harness.storage import Store, optuna_storage
from harness.training.run import Ended, Job, Measured, Record, RunState


def best_of(folder: Path) -> Any:
    return json.loads(called("show", "study.yaml", "--json", cwd=folder).stdout)


@pytest.fixture(scope="module")
def over_budget(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any, Api]]:
    """31x31 kernels are the most accurate, and over the budget of latency."""
    folder = tmp_path_factory.mktemp("over_budget")
    with served(finished(folder, slower_with_each_seed, budgets={"latency_ms": 8})) as api:
        yield folder, api.study(), api


def test_the_best_is_the_best_within_the_budgets(over_budget: tuple[Path, Any, Api]) -> None:
    folder, study, _ = over_budget
    summary = best_of(folder)
    (best,) = study["best_trials"]
    assert best["number"] == summary["best_trial"]
    row = next(row for row in summary["configurations"] if best["number"] in row["trials"])
    assert best["values"] == [pytest.approx(row["mean"])] and row["latency_ms_p50"] <= 8


def test_feasible_is_what_the_answer_counts(over_budget: tuple[Path, Any, Api]) -> None:
    folder, study, _ = over_budget
    states = {number: row["state"] for row in best_of(folder)["configurations"] for number in row["trials"]}
    assert {trial["number"]: is_feasible(trial) for trial in study["trials"]} == {
        number: state == "complete" for number, state in states.items()
    }
    assert sorted(states.values()).count("over budget") == 2
    for trial in study["trials"]:
        assert attributes(trial)["state"].startswith(states[trial["number"]])


def test_plots_tables_and_importances_go_by_the_same_values(over_budget: tuple[Path, Any, Api]) -> None:
    _, study, api = over_budget
    table = list(csv.DictReader(io.StringIO(api.text(f"/csv/{api.study_id}"))))
    assert [float(row["top1"]) for row in table] == [trial["values"][0] for trial in study["trials"]]
    assert json.loads(api.text(f"/api/studies/{api.study_id}/param_importances"))["param_importances"]


def test_the_curve_is_the_mean_of_the_seeds_and_each_seed_is_an_attribute(over_budget: tuple[Path, Any, Api]) -> None:
    trial = over_budget[1]["trials"][0]
    seeds = {seed: quality_of(seed) for seed in (0, 1, 2)}
    curve = {point["step"]: point["value"] for point in trial["intermediate_values"]}
    mean = sum(seeds.values()) / 3
    assert curve == pytest.approx({n: mean * n / EPOCHS for n in range(1, EPOCHS + 1)})
    by_seed = json.loads(attributes(trial)["curve_by_seed"])
    assert {seed: values[-1] for seed, values in by_seed.items()} == pytest.approx(
        {str(seed): value for seed, value in seeds.items()}
    )
    assert {len(values) for values in by_seed.values()} == {EPOCHS}
    assert json.loads(attributes(trial)["value_by_seed"]) == pytest.approx({str(k): v for k, v in seeds.items()})


def quality_of(seed: int) -> float:
    """Of the first configuration, by seed."""
    return 63.0 + 0.2 * seed + 3.0 * (seed == 0)


def test_a_note_has_the_network_the_seeds_and_the_conditions(over_budget: tuple[Path, Any, Api]) -> None:
    study = over_budget[1]
    note = study["best_trials"][0]["note"]["body"]
    for part in ("best of the study", "| stage 1 |", "| K |", "| all |", "latency_ms_p50", "n = 3", "cpu (test"):
        assert part in note
    rejected_note = next(trial for trial in study["trials"] if not is_feasible(trial))["note"]["body"]
    assert "over budget" in rejected_note and "latency_ms" in rejected_note
    assert "means over the seeds" in study["note"]["body"]


def all_too_slow(job: Job) -> Iterator[Record]:
    yield started()
    for n in range(1, EPOCHS + 1):
        yield epoch(n, quality(job) * n / EPOCHS)
    yield Measured("latency_ms_p50", 13.0)
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def test_where_nothing_is_within_the_budgets_nothing_is_best(tmp_path: Path) -> None:
    with served(finished(tmp_path, all_too_slow, budgets={"latency_ms": 8})) as api:
        study = api.study()
    assert study["best_trials"] == [] and not any(is_feasible(trial) for trial in study["trials"])
    assert called("best", "study.yaml", cwd=tmp_path).returncode != 0


def some_diverge(job: Job) -> Iterator[Record]:
    yield started()
    if job.run.spec.K[0] == 13:
        yield epoch(1, 99.0)
        yield Ended(RunState.DIVERGED, wall_s=1.0, cause="the training loss is nan")
        return
    for n in range(1, EPOCHS + 1):
        yield epoch(n, quality(job) * n / EPOCHS)
    yield Ended(RunState.COMPLETE, wall_s=1.0)


def test_rejected_pruned_and_diverged_can_be_distinguished(tmp_path: Path) -> None:
    played = finished(
        tmp_path,
        some_diverge,
        budgets={"params": 420_000},
        search={"sampler": "random", "trials": 8, "seeds": 1, "pruner": "median", "seed": 3},
    )
    with served(played) as api:
        study = api.study()
    shown = {trial["number"]: (trial["state"], attributes(trial)["state"]) for trial in study["trials"]}
    rejected = [trial for trial in study["trials"] if trial["state"] == "Rejected"]
    assert rejected and all("rejected" in attributes(trial) for trial in rejected)
    for trial in rejected:
        assert attributes(trial)["state"].startswith("rejected: ") and not is_feasible(trial)
        assert "params" in attributes(trial)["constraints"] and "never trained" in trial["note"]["body"]
    diverged = [trial for trial in study["trials"] if "diverged" in attributes(trial).get("constraints", "")]
    assert diverged and not any(is_feasible(trial) for trial in diverged)
    assert all(not text.startswith("rejected") for state, text in shown.values() if state != "Rejected")


def test_replicates_of_a_configuration_share_its_mean(tmp_path: Path) -> None:
    played = finished(
        tmp_path, slower_with_each_seed, search={"sampler": "random", "trials": 12, "seeds": 1, "seed": 0}
    )
    with served(played) as api:
        study = api.study()
    summary = best_of(tmp_path)
    means = {number: row["mean"] for row in summary["configurations"] for number in row["trials"]}
    assert any(len(row["trials"]) > 1 for row in summary["configurations"])
    assert {trial["number"]: trial["values"][0] for trial in study["trials"]} == pytest.approx(means)
    assert study["best_trials"][0]["number"] == summary["best_trial"]


def test_a_study_that_is_still_trained_is_shown_as_it_is_answered(tmp_path: Path) -> None:
    played = Played(tmp_path, search={"sampler": "random", "trials": 5, "seeds": 1})
    for count, _ in enumerate(played.events()):
        if count == 20:
            with served(played) as api, open_study_reader(played.path, played.workspace) as reader:
                best = study_results(reader.file.study, reader.store, reader.trials, {}).best
                assert best is not None
                assert [trial["number"] for trial in api.study()["best_trials"]] == [best.trials[0]]
                return


def test_a_study_of_another_program_is_shown_within_its_constraints(tmp_path: Path) -> None:
    played = finished(tmp_path)
    url = f"sqlite:///{played.workspace.database}"
    other = optuna.create_study(storage=url, study_name="other", direction="minimize")
    for value, violation in ((1.0, 2.0), (3.0, -1.0)):
        trial = other.ask()
        trial.set_constraint("memory", violation)
        other.tell(trial, value)
    with served(played) as api:
        api.study_id = other._study_id
        study = api.study()
    assert [trial["values"] for trial in study["best_trials"]] == [[3.0]]
    assert [is_feasible(trial) for trial in study["trials"]] == [False, True]
    assert "each trial is shown alone" in study["note"]["body"]


def test_the_storage_writes_nothing(tmp_path: Path) -> None:
    played = finished(tmp_path)
    with Store.open(played.workspace.database, read_only=True) as store:
        storage = DashboardStorage(optuna_storage(store), store, {})
        with pytest.raises(RuntimeError, match="reading only"):
            optuna.create_study(storage=storage, study_name="new")
        study = optuna.load_study(storage=storage, study_name="question")
        with pytest.raises(RuntimeError, match="reading only"):
            study.ask()
