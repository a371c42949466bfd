"""`epochs: 0`: a network is measured but not trained; every view states it, and nothing divides by its epochs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_run, with_
from tiny_studies import HERE, TINY, VERSIONS, Played, called, files_of, text_of, write_study

from harness.analysis.conclusions import conclusions, conditions_text
from harness.analysis.configuration_result import read_run_results
from harness.analysis.plan import plan_study
from harness.analysis.results import study_results
from harness.analysis.run_times import images_per_run, measured_images
from harness.analysis.study_reader import open_space, open_study_reader
from harness.config.study_file import load_study
from harness.data import load
from harness.errors import StudyError
from harness.executors.run_job import run_job
from harness.measures import ON_DEMAND_MEASURES, merge_error, receptive_field, speed
from harness.models.build import build
from harness.report.event_log import EventFormatter
from harness.report.live import LiveState
from harness.report.plan import plan_view
from harness.report.status import StudyStatus, status_view
from harness.report.trial import trial_view
from harness.search.runs import TimeLeftEstimator
from harness.training.checkpoint import Checkpoint
from harness.training.fit import fit
from harness.training.run import Ended, Job, Measured, Record, RunState, Started

UNTRAINED: dict[str, Any] = {"epochs": 0}
LATENCY = {"latency_ms_p50": "minimize"}
RECIPE = with_(epochs=0)

# A run


def test_a_run_is_built_and_measured_and_keeps_no_weights(tmp_path: Path) -> None:
    job = Job(tiny_run(recipe=with_(epochs=0, measures=["throughput"])), tmp_path / "study")
    started, *records, ended = run_job(job)
    assert isinstance(started, Started) and (started.epochs, started.first_epoch) == (0, 1)
    assert isinstance(ended, Ended) and ended.state == RunState.COMPLETE, ended
    assert all(isinstance(record, Measured) for record in records)
    assert {"latency_ms_p50", "throughput_images_per_s_batch32"} <= {r.name for r in records if isinstance(r, Measured)}
    assert not job.checkpoint.exists()


def test_nothing_is_trained_or_validated(tmp_path: Path) -> None:
    model = build(tiny_run().spec, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dataset = load(RECIPE, tmp_path, 0)
    checkpoint = Checkpoint(tmp_path / "run.pt", "0" * 16)
    assert list(fit(model, dataset, RECIPE, seed=0, device=torch.device("cpu"), checkpoint=checkpoint)) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not (tmp_path / "run.pt").exists()


def test_a_warm_up_is_no_error_where_there_are_no_epochs() -> None:
    assert RECIPE.schedule.warmup_epochs == 1.0
    with pytest.raises(ValueError, match="must be below `epochs`"):
        with_(epochs=1)


# A study


def no_training(job: Job) -> Iterator[Record]:
    """The records of an untrained network: the larger the first kernel, the slower."""
    yield Started("host", 1, "cpu (test, 1 thread)", 1, VERSIONS, epochs=0, environment=HERE)
    yield Measured("latency_ms_p50", job.run.spec.K[0] + 0.1 * job.run.seed)
    yield Measured("peak_memory_bytes", 5e8)
    yield Ended(RunState.COMPLETE, wall_s=2.0)


@pytest.fixture
def study(tmp_path: Path) -> Played:
    return Played(tmp_path, proxy=UNTRAINED, objectives=LATENCY)


@pytest.mark.parametrize("objective", ["top1", "val_loss"])
def test_objectives_that_only_training_gives_are_refused(objective: str, tmp_path: Path) -> None:
    path = write_study(tmp_path, TINY, proxy=UNTRAINED, objectives={objective: "maximize"})
    with pytest.raises(StudyError, match=f"where `proxy.epochs` is 0 .* but got {objective}; take params, macs or lat"):
        load_study(path)


def test_a_study_is_answered_by_its_measure_and_states_that_nothing_was_trained(study: Played) -> None:
    results = study.answer(no_training)
    assert results.best is not None and results.best.params["K"] == [3, 3, 3, 3]
    assert results.best.values == (3.0, 3.1, 3.2) and all(
        configuration.state == "complete" for configuration in results.rows
    )
    assert conditions_text(results).startswith("Measured untrained on cpu (test, 1 thread); ")


def test_costs_are_no_matter_of_chance(tmp_path: Path) -> None:
    results = Played(tmp_path, proxy=UNTRAINED, objectives={"macs": "minimize"}, search={"seeds": 1}).answer(
        no_training
    )
    (sentence,) = conclusions(results)
    assert sentence.endswith("macs follow from the network alone, so chance plays no role.")


def test_one_seed_of_a_measure_was_measured_and_not_trained(tmp_path: Path) -> None:
    results = Played(tmp_path, proxy=UNTRAINED, objectives=LATENCY, search={"seeds": 1}).answer(no_training)
    assert "both were measured untrained with one seed" in conclusions(results)[0]


def test_the_views_show_untrained_in_place_of_the_epochs(study: Played) -> None:
    state = LiveState("question", None, "latency_ms_p50", "minimize", EventFormatter("latency_ms_p50"))
    formatter, lines, frames, tables = EventFormatter("latency_ms_p50"), [], [], []
    for event, progress, driven in study.events(no_training, slots=2):
        state.update(event, progress)
        lines.append(formatter.format_event(event))
        frames.append(text_of(state.draw(), width=100))
        trials = driven.trials()
        results = study_results(study.file.study, driven.store, trials, {})
        seen = StudyStatus(results, trials, driver="me", trials_total=5, seeds=3, last=())
        tables.append(text_of(status_view(seen)))
    assert any("seed 0: untrained, measuring on host, cpu (test, 1 thread)" in line for line in lines)
    assert lines[-1].startswith("question: measured 15 runs in")
    assert any("seed 0" in line and "untrained" in line for frame in frames for line in frame.splitlines())
    assert any("seed 0" in line and "untrained" in line for table in tables for line in table.splitlines())
    assert not any("/0" in text for text in (*frames, *tables))


def test_a_run_from_close_up_has_its_first_weights(study: Played) -> None:
    study.answer(no_training)
    with open_study_reader(study.path, study.workspace) as reader:
        runs = list(read_run_results(reader.store, reader.store.trial_runs("question")[0]).values())
        text = text_of(trial_view(reader.trials[0], runs, study.file.study), width=160)
    assert "untrained  on host, cpu (test, 1 thread)" in text and "trained    on" not in text
    assert "weights    untrained: the initial weights of seed 1" in text


def test_the_time_left_follows_from_runs_that_have_no_epochs() -> None:
    estimate = TimeLeftEstimator([])
    estimate.started("a", 1, epochs=0)
    assert estimate.left_s(3, workers=1) is None
    estimate.ended("a", 4.0)
    estimate.started("b", 1, epochs=0)
    assert estimate.left_s(2, workers=1) == 8.0


# A rehearsal


def test_the_plan_counts_the_images_that_are_measured(tmp_path: Path) -> None:
    study = Played(tmp_path, proxy=UNTRAINED | {"measures": ["throughput"]}, objectives={"macs": "minimize"})
    planned = plan_study(study.file.study, open_space(study.file), None, workers=1)
    text = text_of(plan_view(planned), width=160)
    assert "what would be measured, untrained" in text and "15 to measure, untrained" in text
    assert "MACs x images that are measured" in text
    assert images_per_run(study.file.study.proxy) == 35 + 32 * 5
    no_sizes = with_(epochs=0, dataset="imagefolder", train_size=None, val_size=None)
    assert images_per_run(no_sizes) == 35
    assert images_per_run(with_(no_sizes, epochs=2)) is None


def test_the_plan_counts_what_the_measures_take() -> None:
    batch = speed.THROUGHPUT_BATCHES["cpu"]
    latency = speed.LATENCY_WARM_UP + speed.LATENCY_PASSES
    assert measured_images(RECIPE, 0) == latency
    image_counts = {
        name: measured_images(RECIPE.model_copy(update={"measures": [name]}), val=200) - latency
        for name in ON_DEMAND_MEASURES
    }
    assert image_counts["shape_bias"] == 200 and image_counts["throughput"] == 5 * batch
    enlarged = (receptive_field.erf_resolution(RECIPE.resolution) / RECIPE.resolution) ** 2
    assert image_counts["erf"] == 5 * receptive_field.ERF_IMAGES * enlarged and enlarged == 16
    assert image_counts["merge_error"] == 6 * merge_error.COMPARED_IMAGES
    assert image_counts["train_step"] == 6 * 3 * RECIPE.batch_size


# All of it


def test_a_study_of_untrained_networks_from_end_to_end(tmp_path: Path) -> None:
    proxy = TINY["proxy"] | {"epochs": 0, "measures": ["merge_error"]}
    write_study(tmp_path, TINY, proxy=proxy, objectives={"merge_error_max_abs": "minimize"}, search={"seeds": 2})
    result = called("run", "study.yaml", "--executor", "inline", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "merge_error_max_abs" in result.stdout and "Measured untrained on cpu" in result.stdout
    assert not [name for name in files_of(tmp_path) if name.endswith(".pt")]
    shown = json.loads(called("show", "study.yaml", "0", "--json", cwd=tmp_path).stdout)
    assert [run["epochs"] for run in shown["runs"]] == [0, 0]
    assert all(0 <= run["measures"]["merge_error_max_abs"] < 1e-11 for run in shown["runs"])
    again = called("run", "study.yaml", "--executor", "inline", cwd=tmp_path)
    assert again.returncode == 0 and "nothing was left to train" in again.stdout
