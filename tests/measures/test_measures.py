"""What is measured on demand: the tables and the recipe agree, and each measure has the property that it measures."""

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from random_statistics import randomize
from tiny_runs import RECIPE, tiny_run, tiny_spec, with_
from torch import Tensor, nn

from harness.config.measures import MEASURES
from harness.config.recipes.proxy import ProxyRecipe
from harness.data import Dataset, load
from harness.errors import OutOfMemory
from harness.executors.run_job import run_job
from harness.measures import ALWAYS_MEASURES, ON_DEMAND_MEASURES, measures_of, speed
from harness.measures.base import TrainedRun, merged_for_inference
from harness.models.build import build
from harness.models.large_kernels import reparam
from harness.models.spec.network import NetworkSpec
from harness.ops.timing import Timings
from harness.training.fit import predict_logits
from harness.training.run import Ended, Job, Measured, RunState

CPU = torch.device("cpu")
"""The module; the package has the function under this name."""
TEXTURED = with_(rendering="textured", measures=list(ON_DEMAND_MEASURES))
SPEC = tiny_spec(K=7, reparam=3, drop_path=0.3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(TEXTURED, tmp_path_factory.mktemp("data"), 0)


def trained(dataset: Dataset, recipe: ProxyRecipe = TEXTURED, spec: NetworkSpec = SPEC) -> TrainedRun:
    return TrainedRun(build(spec, seed=0), dataset, recipe, CPU)


def figures(measure: str, trained: TrainedRun) -> dict[str, float]:
    return dict(ON_DEMAND_MEASURES[measure](trained))


# The tables


def test_the_recipe_accepts_the_names_of_the_table() -> None:
    (names,) = get_args(ProxyRecipe.model_fields["measures"].annotation)
    assert sorted(get_args(names)) == sorted(ON_DEMAND_MEASURES) == sorted(MEASURES)
    assert not ALWAYS_MEASURES.keys() & ON_DEMAND_MEASURES.keys()


def test_what_is_always_measured_comes_first_and_on_demand_only_what_is_named() -> None:
    assert list(measures_of(RECIPE)) == list(ALWAYS_MEASURES.values())
    both = with_(measures=["throughput", "erf"])
    assert list(measures_of(both)) == [
        *ALWAYS_MEASURES.values(),
        ON_DEMAND_MEASURES["erf"],
        ON_DEMAND_MEASURES["throughput"],
    ]


def test_the_order_of_measures_changes_no_fingerprint_and_their_names_do() -> None:
    recipes = [with_(measures=names) for names in (["erf", "throughput"], ["throughput", "erf"], ["erf"], [])]
    prints = [recipe.fingerprint() for recipe in recipes]
    assert prints[0] == prints[1] and len(set(prints)) == 3
    assert prints[3] == RECIPE.fingerprint()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"measures": ["erf", "erf"]}, "must name each measure once, but got erf, erf"),
        ({"measures": ["shape_bias"]}, "must leave shape_bias out"),
        ({"measures": ["shape_bias"], "dataset": "cifar10", "rendering": "textured"}, "must leave shape_bias out"),
        ({"measures": ["accuracy"]}, "Input should be 'brier_score'"),
    ],
)
def test_measures_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        with_(**changes)


@pytest.mark.parametrize("name", ON_DEMAND_MEASURES)
def test_every_measure_yields_finite_figures_and_leaves_the_network_alone(name: str, dataset: Dataset) -> None:
    subject = trained(dataset)
    before = copy.deepcopy(subject.model.state_dict())
    state = torch.get_rng_state()
    metrics = figures(name, subject)
    assert metrics and all(math.isfinite(value) for value in metrics.values())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in subject.model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in subject.model.parameters())


def test_a_run_has_the_figures_that_its_recipe_names(tmp_path: Path) -> None:
    recipe = with_(TEXTURED, epochs=1, schedule={"warmup_epochs": 0})
    *records, ended = run_job(Job(tiny_run(recipe=recipe, K=7, reparam=3), tmp_path / "study"))
    assert isinstance(ended, Ended) and ended.state == RunState.COMPLETE, ended
    names = [record.name for record in records if isinstance(record, Measured)]
    assert len(names) == len(set(names))
    assert {"latency_ms_p50", "merge_error_max_abs", "shape_decisions", "cue_decisions"} <= set(names)
    assert {"throughput_images_per_s_batch32", "train_step_s", "erf_raw_r50_pct"} <= set(names)
    assert names.index("peak_memory_bytes") < names.index("train_step_s")


def test_a_figure_that_is_not_finite_is_left_out_and_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: TrainedRun) -> Iterator[tuple[str, float]]:
        yield from (("good_s", 1.0), ("bad_s", math.nan), ("worse_s", math.inf))

    monkeypatch.setitem(ON_DEMAND_MEASURES, "erf", nothing)
    job = Job(tiny_run(recipe=with_(epochs=0, measures=["erf"])), tmp_path / "study")
    names = [record.name for record in run_job(job) if isinstance(record, Measured)]
    assert "good_s" in names and not {"bad_s", "worse_s"} & set(names)
    assert "bad_s is nan, and left out" in job.log.read_text()


# Throughput


def test_throughput_names_its_batch_and_is_what_its_passes_take(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Size] = []

    def instant(calls: dict[str, Callable[[], Tensor]], *_: object) -> dict[str, Timings]:
        seen.extend(call().shape for call in calls.values())
        return {"merged": Timings((0.25, 0.5, 4.0))}

    monkeypatch.setattr(speed, "time_interleaved", instant)
    assert figures("throughput", trained(dataset)) == {"throughput_images_per_s_batch32": 64.0}
    assert seen == [(32, 8)]


def test_a_larger_network_has_less_throughput(dataset: Dataset) -> None:
    small, large = (
        figures("throughput", trained(dataset, spec=tiny_spec(C=width, B=blocks)))["throughput_images_per_s_batch32"]
        for width, blocks in (([4, 4, 8, 8], 1), ([32, 64, 64, 64], 2))
    )
    assert 0 < large < small


def test_too_little_memory_for_a_batch_is_reported(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "time_interleaved", lambda *_: {"merged": None})
    with pytest.raises(OutOfMemory, match="32 images at once"):
        figures("throughput", trained(dataset))


def test_what_is_deployed_is_merged_and_in_the_recipes_layout(dataset: Dataset) -> None:
    subject = trained(dataset)
    model, images = merged_for_inference(subject, 3)
    assert images.shape == (3, 1, 16, 16) and images.is_contiguous(memory_format=torch.channels_last)
    assert not model.training and len(model.state_dict()) < len(subject.model.state_dict())


# Merge error


def test_a_right_merge_leaves_rounding(dataset: Dataset) -> None:
    subject = trained(dataset)
    randomize(subject.model, seed=1)
    metrics = figures("merge_error", subject)
    assert 0 <= metrics["merge_error_max_abs"] < 1e-11 and metrics["merge_error_relative"] < 1e-11
    assert next(subject.model.parameters()).dtype == torch.float32


def test_a_merge_that_is_broken_on_purpose_shows(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    right = reparam.pad_to_kernel
    monkeypatch.setattr(reparam, "pad_to_kernel", lambda small, kernel: right(small, kernel).roll(1, dims=3))
    subject = trained(dataset)
    randomize(subject.model, seed=1)
    metrics = figures("merge_error", subject)
    assert metrics["merge_error_max_abs"] > 1e-3 and metrics["merge_error_relative"] > 1e-3


def test_a_broken_merge_shows_in_an_untrained_network_too(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, right = with_(TEXTURED, epochs=0), reparam.pad_to_kernel
    metrics = figures("merge_error", trained(dataset, recipe))
    assert metrics["merge_error_max_abs"] < 1e-11
    monkeypatch.setattr(reparam, "pad_to_kernel", lambda small, kernel: right(small, kernel).roll(1, dims=3))
    metrics = figures("merge_error", trained(dataset, recipe))
    assert metrics["merge_error_max_abs"] > 1e-3 and metrics["merge_error_relative"] > 1e-3


# A step of training


def test_a_step_takes_more_memory_and_time_for_a_larger_batch(dataset: Dataset) -> None:
    small, large = (figures("train_step", trained(dataset, with_(TEXTURED, batch_size=size))) for size in (2, 32))
    weights = 4 * sum(parameter.numel() for parameter in build(SPEC).parameters())
    assert 2 * weights < small["train_step_peak_bytes"] < large["train_step_peak_bytes"]
    assert large["train_step_images_per_s"] == pytest.approx(32 / large["train_step_s"])
    assert small["train_step_gradients_finite"] == large["train_step_gradients_finite"] == 1.0


def test_a_batch_larger_than_the_split_is_filled_up(dataset: Dataset) -> None:
    metrics = figures("train_step", trained(dataset, with_(TEXTURED, batch_size=len(dataset.train) + 8)))
    assert metrics["train_step_gradients_finite"] == 1.0


@pytest.mark.parametrize("flaw", ["nan", "unused"])
def test_gradients_that_are_not_there_or_not_finite_are_found(flaw: str, dataset: Dataset) -> None:
    subject = trained(dataset)
    if flaw == "nan":
        with torch.no_grad():
            next(subject.model.parameters()).fill_(math.nan)
    else:
        subject.model.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    assert figures("train_step", subject)["train_step_gradients_finite"] == 0.0


# The Brier score


class SureOfClass0(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([[100.0] + 7 * [-100.0]]).expand(len(x), 8)


def test_the_brier_score_is_that_of_its_definition(dataset: Dataset) -> None:
    labels = torch.from_numpy(dataset.val.labels)
    sure = TrainedRun(SureOfClass0(), dataset, TEXTURED, CPU)
    assert figures("brier_score", sure)["brier_score"] == pytest.approx(2 * (labels != 0).double().mean().item())
    subject = trained(dataset)
    probabilities = torch.cat([p for p, _ in predict_logits(subject.model, dataset.val, dataset, TEXTURED, CPU)])
    expected = sum(
        sum((row[k].item() - (k == label)) ** 2 for k in range(8))
        for row, label in zip(probabilities.softmax(1), labels.tolist(), strict=True)
    )
    assert figures("brier_score", subject)["brier_score"] == pytest.approx(expected / len(labels), rel=1e-5)
