"""Studies with axes of the recipe: every run has its configuration's recipe, in the driver and wherever it is read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from claim_studies import CLAIM
from tiny_studies import HERE, VERSIONS, Played, called, epoch, text_of

from harness.analysis.claim_power import claim_powers
from harness.analysis.claims import evaluate_claims
from harness.analysis.configuration_result import read_run_results
from harness.analysis.network_forms import NETWORKS, NetworkForm, NetworkUse
from harness.analysis.networks import NetworkQuery, resolve_network
from harness.analysis.plan import plan_study
from harness.analysis.prospects import seconds_per_pair
from harness.analysis.recorded_runs import recorded_run_from_database, recorded_run_from_summary
from harness.analysis.results import StudyResults
from harness.analysis.reuse import ReuseRule, study_environment
from harness.analysis.statistics import Plan
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.recipes.proxy import ProxyRecipe
from harness.diagnostics.error_rate import RecordedClaim, measure_error_rate
from harness.diagnostics.image_noise import ValidationSettings, measure_image_noise
from harness.errors import UserError
from harness.models.spec.presets import PRESETS
from harness.report.event_log import EventFormatter
from harness.report.live import LiveState
from harness.report.plan import plan_view
from harness.report.study import write_summary
from harness.report.trial import trial_values, trial_view
from harness.search.events import TrialEnded, TrialStarted
from harness.search.runs import TimeLeftEstimator
from harness.search.samplers import SCREENING_SEEDS
from harness.storage import Store
from harness.training.run import Ended, Job, Measured, Record, RunState, Started

PROXY: dict[str, Any] = {"epochs": 4, "train_size": 512, "batch_size": 32, "schedule": {"warmup_epochs": 1}}
KEYS: dict[str, Any] = {
    "axes": {"K": [3, 13], "recipe.optimizer.lr": [0.1, 0.2], "recipe.epochs": [2, 4]},
    "when": {},
    "search": {"seeds": 2},
    "proxy": PROXY,
}
CELLS = [(k, lr, epochs) for k in (3, 13) for lr in (0.1, 0.2) for epochs in (2, 4)]


Finished = tuple[Played, StudyResults]


def well(job: Job) -> Iterator[Record]:
    """A run whose accuracy and time follow from network, recipe and seed."""
    run = job.run
    epochs = run.recipe.epochs
    yield Started("host", 1, "cpu (test, 1 thread)", 1, VERSIONS, epochs=epochs, environment=HERE)
    top1 = 50 + run.spec.K[0] / 10 + 100 * run.recipe.optimizer.lr + epochs + 0.2 * (run.seed % 1000)
    for n in range(1, epochs + 1):
        yield epoch(n, top1 * n / epochs)
    yield Measured("latency_ms_p50", 1.0)
    yield Measured("val_images", 1000.0)
    yield Ended(RunState.COMPLETE, wall_s=10.0 * epochs)


def trained(study: Played) -> list[tuple[int, float, int, int]]:
    """Kernel, learning rate, epochs and seed of every run that was trained."""
    jobs = study.executor.submitted if study.executor else []
    return [(j.run.spec.K[0], j.run.recipe.optimizer.lr, j.run.recipe.epochs, j.run.seed) for j in jobs]


def played(folder: Path, **overrides: Any) -> Played:
    folder.mkdir(exist_ok=True)
    return Played(folder, **(KEYS | overrides))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, StudyResults]:
    """A finished grid."""
    study = played(tmp_path_factory.mktemp("grid"))
    return study, study.answer(well)


# Training


def test_a_grid_trains_every_network_with_every_recipe(finished: Finished) -> None:
    study, results = finished
    assert sorted(trained(study)) == sorted((*cell, seed) for cell in CELLS for seed in (0, 1))
    assert len(results.complete) == 8 and {len(row.values) for row in results.rows} == {2}
    best = results.best
    assert best is not None
    assert best.params == {"K": 13, "recipe.optimizer.lr": 0.2, "recipe.epochs": 4}
    assert best.recipe == ProxyRecipe.model_validate(PROXY | {"optimizer": {"lr": 0.2}})
    for row in results.rows:
        assert {run.row.run.recipe for run in row.runs if run.row.run.recipe != row.recipe} == set()
        assert row.fingerprint not in {other.fingerprint for other in results.rows if other is not row}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_choose_recipes(tmp_path: Path, sampler: str) -> None:
    axes = {
        "K": [3, 13],
        "recipe.optimizer.lr": {"low": 0.1, "high": 0.5, "step": 0.05},
        "recipe.epochs": {"low": 2, "high": 6, "log": False},
    }
    study = played(tmp_path, axes=axes, search={"sampler": sampler, "trials": 12, "seeds": 1})
    results = study.answer(well)
    assert len({(lr, epochs) for _, lr, epochs, _ in trained(study)}) > 3
    for row in results.rows:
        assert row.recipe.optimizer.lr == row.params["recipe.optimizer.lr"]
        assert row.recipe.epochs == row.params["recipe.epochs"]


def test_a_configuration_that_is_proposed_again_gets_another_seed(tmp_path: Path) -> None:
    search = {"sampler": "random", "trials": 10, "seeds": 1}
    study = played(tmp_path, axes={"recipe.optimizer.lr": [0.1, 0.2]}, search=search)
    results = study.answer(well)
    assert [len(row.values) for row in results.rows].count(0) == 0 and len(results.rows) == 2
    assert sum(len(row.values) for row in results.rows) == 10
    assert len(set(trained(study))) == 10
    assert "8 proposals repeated a known configuration" in str(results.ended)


def test_a_pruner_decides_on_a_run_with_the_recipe_of_its_configuration(tmp_path: Path) -> None:
    axes = {"K": [3], "recipe.optimizer.lr": {"low": 0.05, "high": 0.4, "step": 0.05}}
    search = {"sampler": "random", "trials": 16, "seeds": 1, "pruner": "median"}
    study = played(tmp_path, axes=axes, search=search)
    ended = {event.state for event, _, _ in study.events(well) if isinstance(event, TrialEnded)}
    results = study.answer(well)
    assert ended == {"complete", "pruned"}
    jobs = study.executor.submitted if study.executor else []
    screened = {job.run.recipe.optimizer.lr for job in jobs if job.run.seed >= SCREENING_SEEDS}
    assert screened == {row.params["recipe.optimizer.lr"] for row in results.rows}


@pytest.mark.long
def test_a_stopped_study_resumes_with_the_same_recipes(tmp_path: Path) -> None:
    study = played(tmp_path)
    for count, (_, _, _) in enumerate(events := study.events(well), 1):
        if count == 40:
            events.close()
            break
    first = trained(study)
    results = study.answer(well)
    assert 0 < len(first) < 16
    assert sorted({*first, *trained(study)}) == sorted((*cell, seed) for cell in CELLS for seed in (0, 1))
    assert len(results.complete) == 8


def test_a_run_with_the_same_network_and_recipe_of_another_study_is_taken(tmp_path: Path) -> None:
    plain = Played(
        tmp_path, **(KEYS | {"study": "plain", "axes": {"K": [3]}, "proxy": PROXY | {"optimizer": {"lr": 0.1}}})
    )
    plain.answer(well)
    study = played(tmp_path)
    study.answer(well)
    assert not {(3, 0.1, 4, 0), (3, 0.1, 4, 1)} & set(trained(study))
    assert len(trained(study)) == 14


def test_further_values_of_an_axis_train_only_what_is_new(tmp_path: Path) -> None:
    axes = {"K": [3], "recipe.optimizer.lr": [0.1, 0.2]}
    played(tmp_path, axes=axes).answer(well)
    study = played(tmp_path, axes=axes | {"recipe.optimizer.lr": [0.1, 0.2, 0.4]})
    results = study.answer(well)
    assert {lr for _, lr, _, _ in trained(study)} == {0.4}
    assert len(results.complete) == 3


# Readers


def test_a_trial_shows_its_recipe_with_what_was_adapted(tmp_path: Path) -> None:
    study = played(tmp_path, axes={"K": [3], "recipe.epochs": [1], "recipe.resolution": [32]}, search={"seeds": 1})
    study.answer(well)
    with open_study_reader(study.path, study.workspace) as reader:
        runs = list(read_run_results(reader.store, reader.store.trial_runs("question")[0]).values())
        text = text_of(trial_view(reader.trials[0], runs, study.file.study), width=200)
        values = trial_values(reader.trials[0], runs, study.file.study)
    changes = {"recipe.resolution": 32, "recipe.epochs": 1, "recipe.schedule.warmup_epochs": 0.25}
    assert "recipe: the proxy with recipe.resolution=32 recipe.epochs=1 recipe.schedule.warmup_epochs=0.25" in text
    assert values["recipe_changes"] == changes
    assert values["choices"] == {"K": 3, "recipe.epochs": 1, "recipe.resolution": 32}
    assert values["network"]["resolution"] == 32


def test_the_summary_has_the_recipe_of_each_configuration(finished: Finished, tmp_path: Path) -> None:
    study, results = finished
    write_summary(tmp_path, results)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["recipe"] is None
    recipes = {tuple(c["trials"]): ProxyRecipe.model_validate(c["recipe"]) for c in summary["configurations"]}
    assert recipes == {row.trials: row.recipe for row in results.rows}
    text = (tmp_path / "summary.txt").read_text()
    assert "recipe.optimizer.lr" in text and "recipe.epochs" in text
    for row in results.rows:
        from_summary = recorded_run_from_summary(tmp_path, row.trials[0], None)
        stored = recorded_run_from_database(study.path, study.workspace, row.trials[0], None)
        assert from_summary.run == stored.run and from_summary.changed_meaning is None
        assert from_summary.run.recipe == row.recipe


def test_commands_read_such_a_study(finished: Finished) -> None:
    study, results = finished
    folder = study.path.parent
    best = results.best
    assert best is not None
    shown = called("show", study.path, cwd=folder)
    assert shown.returncode == 0 and "recipe.optimizer.lr" in shown.stdout
    status = called("status", study.path, cwd=folder)
    assert "8 complete; 8 in all" in status.stdout and "finished" in status.stdout
    network = called("best", study.path, cwd=folder)
    assert "the study's proxy with recipe.optimizer.lr" not in network.stdout  # which is that of the proxy
    assert "Its recipe is not a part of this file: the study's proxy unchanged." in network.stdout
    other = called("best", study.path, "--trial", "0", cwd=folder)
    assert "the study's proxy with recipe.epochs=2 recipe.optimizer.lr=0.1." in other.stdout


@pytest.mark.long
def test_the_recipe_at_full_scale_does_not_take_the_choices_of_the_proxy(tmp_path: Path) -> None:
    study = played(tmp_path, full_scale={"base": "replknet_31b", "recipe": "imagenet_300"})
    study.answer(well)
    use = NetworkUse(NETWORKS | {NetworkForm.BEST_OF}, is_full_scale=True)
    found = resolve_network(["best-of", str(study.path)], NetworkQuery(study.workspace, trial=0), use)
    assert found.spec == PRESETS["replknet_31b"].replace(K=3, reparam=None) and found.recipe == "imagenet_300"
    assert found.proxy_choices == "recipe.optimizer.lr=0.1 recipe.epochs=2"
    options = ("--trial", "0", "--recipe", "shapes", "--weights", "missing.pt", "--results", study.workspace.results)
    result = called("train", "best-of", study.path, *options, cwd=tmp_path)
    assert result.returncode == 2
    assert "recipe.optimizer.lr=0.1 recipe.epochs=2 is of the proxy and not applied" in result.stdout


def test_events_tell_recipes_of_one_network_apart(finished: Finished, tmp_path: Path) -> None:
    study = played(tmp_path)
    state, started = LiveState("question", "", "top1", "maximize", EventFormatter("top1")), []
    for event, progress, _ in study.events(well):
        state.update(event, progress)
        started += [event] if isinstance(event, TrialStarted) else []
    assert {len(values) for values in state.values.values()} == {2} and len(state.values) == 8
    assert len({event.configuration for event in started}) == 8 and len({e.spec for e in started}) == 2
    assert {event.configuration for event in started} == {row.fingerprint for row in finished[1].rows}


# Times


def planned(study: Played) -> Any:
    space = open_space(study.file)
    with Store.open(study.workspace.database, read_only=True) as store:
        rule = ReuseRule(study.file.study, store, study_environment(study.file.study))
        return plan_study(study.file.study, space, store, workers=1, rule=rule)


def test_a_rough_estimate_counts_the_epochs_and_pixels_of_each_recipe(tmp_path: Path) -> None:
    study = played(tmp_path, axes={"K": [3], "recipe.epochs": [2, 4, 40], "recipe.resolution": [32, 64]})
    plan = plan_study(study.file.study, open_space(study.file), None, workers=1)
    seconds: dict[Any, Any] = {
        (row.candidate.params["recipe.epochs"], row.candidate.params["recipe.resolution"]): row.run_s
        for row in plan.rows
    }
    per_epoch = {epochs: seconds[epochs, 64] / epochs for epochs in (4, 40)}
    assert per_epoch[40] == pytest.approx(per_epoch[4], rel=0.6)
    assert seconds[40, 64] > 5 * seconds[4, 64] > 5 * seconds[2, 64]
    assert seconds[40, 64] > 2 * seconds[40, 32]
    assert plan.total_s == pytest.approx(2 * sum(seconds.values()))


def test_stored_runs_of_one_recipe_tell_the_time_of_another(tmp_path: Path) -> None:
    study = played(tmp_path, axes={"K": [3], "recipe.epochs": [4]})
    study.answer(well)
    grown = played(tmp_path, axes={"K": [3], "recipe.epochs": [4, 40]})
    plan = planned(grown)
    times = {row.candidate.params["recipe.epochs"]: row.run_s for row in plan.rows}
    assert times[4] == 40.0
    assert times[40] == pytest.approx(400.0, rel=0.5) and times[40] > 200
    assert "2 stored runs; other recipes by their epochs" in text_of(plan_view(plan), width=200)
    assert plan.total_s == pytest.approx(2 * times[40])


def test_a_run_beyond_the_time_limit_is_foretold(tmp_path: Path) -> None:
    resources = {"minutes_per_run": 2}
    study = played(tmp_path, axes={"K": [3], "recipe.epochs": [4]}, resources=resources)
    study.answer(well)
    grown = played(tmp_path, axes={"K": [3], "recipe.epochs": [4, 40]}, resources=resources)
    text = text_of(plan_view(planned(grown)), width=200)
    assert "a run of 1 of 2 configurations would take longer than `resources.minutes_per_run` (2)" in text
    assert "minutes_per_run" not in text_of(plan_view(planned(study)), width=200)


def test_the_time_left_is_that_of_the_recipes_that_are_left() -> None:
    estimate = TimeLeftEstimator([])
    estimate.started("short", 1, epochs=2, work=0.5)
    estimate.advanced("short", epoch(1, 50.0))  # 2 s for a quarter of a run of the proxy
    assert estimate.left_s(0.5 + 4.0, workers=1) == pytest.approx(8 * 4.25)
    estimate.ended("short", 4.0)
    assert estimate.left_s(4.0, workers=2) == pytest.approx(8 * 4.0 / 2)


def test_progress_foretells_the_time_of_long_and_short_runs(tmp_path: Path) -> None:
    study = played(tmp_path, axes={"K": [3], "recipe.epochs": [4, 40]}, search={"seeds": 1})
    eta = [progress.eta_s for event, progress, _ in study.events(well) if isinstance(event, TrialEnded)]
    assert eta[0] == pytest.approx(400.0, rel=0.4) and eta[-1] == 0.0


# Claims

RATED = {
    "axes": {"K": [3], "recipe.optimizer.lr": [0.1, 0.2], "recipe.epochs": [2, 4]},
    "search": {"seeds": 3},
    "claims": [
        CLAIM
        | {
            "contrast": {"recipe.optimizer.lr=0.2, recipe.epochs=4": 1, "recipe.optimizer.lr=0.1, recipe.epochs=2": -1},
            "expect": "> 0",
        }
    ],
}


def test_a_claim_compares_recipes_of_one_network(tmp_path: Path) -> None:
    study = played(tmp_path, **RATED)
    study.answer(well)
    space = open_space(study.file)
    with Store.open(study.workspace.database, read_only=True) as store:
        (result,) = evaluate_claims(study.file.study, space, store)
        (power,) = claim_powers(study.file.study, space, store)
    assert result.values == pytest.approx([12.0, 12.0, 12.0])
    assert len(result.runs) == 6
    assert seconds_per_pair(study.file.study, result) == 20.0 + 40.0 == power.pair_s


def test_arms_with_different_recipes_are_no_equal_arms(tmp_path: Path) -> None:
    study = played(tmp_path, **RATED)
    study.answer(well)
    with Store.open(study.workspace.database, read_only=True) as store:
        (result,) = evaluate_claims(study.file.study, open_space(study.file), store)
    with pytest.raises(UserError, match="two arms of one network and recipe"):
        measure_error_rate(RecordedClaim("question", result, None), Plan(3, 8), studies=1000, seed=0)


def test_arms_of_two_resolutions_are_not_evaluated_on_one_set(tmp_path: Path) -> None:
    axes = {"K": [3], "recipe.resolution": [32, 64]}
    contrast = {"recipe.resolution=64": 1, "recipe.resolution=32": -1}
    study = played(tmp_path, axes=axes, search={"seeds": 3}, claims=[CLAIM | {"contrast": contrast}])
    study.answer(well)
    with Store.open(study.workspace.database, read_only=True) as store:
        (result,) = evaluate_claims(study.file.study, open_space(study.file), store)
    settings = ValidationSettings(sets=10, images=64, plan=Plan(3, 8), studies=1000, seed=0)
    with pytest.raises(UserError, match=r"one resolution.* '32, 64 px'"):
        measure_image_noise("question", result, settings, study.workspace, lambda _: None)
