"""Values that are not finite end what would count them, and the first layer or entry that has one is named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_scale_cases import job_of, recipe_of, trained, write_folder
from random_statistics import randomize
from tiny_runs import tiny_spec
from tiny_studies import called
from torch import Tensor, nn

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import Dataset, Split
from harness.data.dataset import DataInfo
from harness.data.image_sources import InMemoryImages
from harness.data.preprocessing import Preprocessing
from harness.errors import Diverged, UserError
from harness.measures.base import TrainedRun
from harness.measures.erf_comparison import compare_fields
from harness.measures.merge_error import merge_error
from harness.models.build import build
from harness.models.finite import (
    count_nonfinite,
    describe_fault,
    first_nonfinite_layer,
    nonfinite_entries,
    require_finite,
)
from harness.models.spec.network import NetworkSpec
from harness.models.weights import Weights, write_weights
from harness.storage.load_network import LoadedNetwork, WeightsOrigin
from harness.training.accuracy import measure_accuracy
from harness.training.accuracy_results import AccuracyResult
from harness.training.fit import predict_logits, validate
from harness.training.tasks.dense import feature_difference

SPEC = tiny_spec(in_channels=3, classes=3, K=5, reparam=3)
CPU = torch.device("cpu")
NAN, INF = float("nan"), float("inf")


class Overflow(nn.Module):
    """A layer without weights that makes what is too large infinite, as float16 does."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, INF)


def network(value: float | None = None, spec: NetworkSpec = SPEC) -> nn.Module:
    """A network; with a value, the bias of a layer in its second stage has it."""
    model = build(spec, seed=1).eval()
    randomize(model, seed=0)
    if value is not None:
        model.get_parameter(fault_of(model)).data[0] = value
    return model


def fault_of(model: nn.Module) -> str:
    return next(name for name, _ in model.named_parameters() if name.startswith("stages.1") and name.endswith("bias"))


def head_of(model: nn.Module) -> nn.Linear:
    head = model.head
    assert isinstance(head, nn.Linear)
    return head


def dataset(spec: NetworkSpec = SPEC, count: int = 6) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (count, spec.in_channels, 16, 16)).astype(np.uint8)
    split = Split(images, np.arange(count) % spec.classes)
    info = DataInfo(spec.classes, spec.in_channels, tuple("abc"))
    return Dataset(info, split, split, (0.5,) * spec.in_channels, (0.5,) * spec.in_channels)


# The helper


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_entries_are_counted_and_named(value: float) -> None:
    model = network(value)
    name = fault_of(model)
    counts = nonfinite_entries(model.state_dict())
    assert counts == {name: 1}
    assert count_nonfinite(counts) == f"1 entry holds values that are NaN or infinite (`{name}`: 1)"
    assert nonfinite_entries(network().state_dict()) == {}


def test_the_first_layer_in_the_order_of_computation_is_named() -> None:
    first = nn.Linear(2, 2)
    model = nn.Sequential(first, nn.Sequential(nn.Linear(2, 2), Overflow()), nn.Linear(2, 2))
    assert first_nonfinite_layer(lambda: model(torch.ones(1, 2)), model) == "1.1"
    assert "the first layer whose output is NaN or infinite is `1.1`" in describe_fault(model, torch.ones(1, 2), "x")
    assert first_nonfinite_layer(lambda: first(torch.ones(1, 2)), model) is None
    assert not any(module._forward_hooks for module in model.modules())


def test_what_is_finite_passes() -> None:
    require_finite(torch.ones(2), nn.Identity(), torch.ones(2))
    with pytest.raises(Diverged, match="the logits of an image must be finite"):
        require_finite(torch.tensor([1.0, -INF]), nn.Identity(), torch.ones(2))


# Everything that takes an argmax, a mean or a difference


@pytest.mark.parametrize("value", [NAN, INF])
def test_validation_of_a_run_diverges_and_names_the_entry(value: float) -> None:
    model = network(value)
    with pytest.raises(Diverged, match=fault_of(model)):
        validate(model, dataset(), ProxyRecipe(resolution=16), CPU)


def test_a_logit_of_minus_infinity_is_no_answer() -> None:
    """Its cross-entropy is finite for images of other classes."""
    model = network()
    model.head = nn.Sequential(head_of(model), _Minus())
    with pytest.raises(Diverged, match=r"`head\.1`"):
        list(predict_logits(model, dataset().val, dataset(), ProxyRecipe(resolution=16), CPU))


class _Minus(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.index_fill(1, torch.tensor([0]), -INF)


def examined(*models: nn.Module) -> AccuracyResult:
    preprocessing = Preprocessing(16, crop=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
    forms = dict(zip(("training", "merged"), models, strict=False))
    records: Iterator[Any] = measure_accuracy(forms, InMemoryImages(dataset().val), preprocessing, CPU, loaders=0)
    accuracy = list(records)[-1]
    assert isinstance(accuracy, AccuracyResult)
    return accuracy


def test_an_examination_ends_at_the_first_logit_that_is_none() -> None:
    assert not any("largest logit" in note for note in examined(network()).notes)
    for value in (NAN, INF):
        with pytest.raises(Diverged, match="must be finite"):
            examined(network(value))
        with pytest.raises(Diverged, match="must be finite"):
            examined(network(), network(value))


def test_equal_logits_and_constant_answers_are_reported() -> None:
    model = network()
    for parameter in head_of(model).parameters():
        nn.init.zeros_(parameter)
    notes = examined(model).notes
    assert "the largest logit is that of several classes for 6 of 6 images" in notes[0]
    assert "the prediction is class 0 for every image" in notes[1]
    head_of(model).bias.data[2] = 1.0
    assert len(examined(model).notes) == 1 and "class 2 for every image" in examined(model).notes[0]


def test_merge_error_of_what_is_not_finite_is_no_figure() -> None:
    with pytest.raises(Diverged, match="must be finite"):
        list(merge_error(TrainedRun(network(NAN), dataset(), ProxyRecipe(resolution=16), CPU)))


def test_a_field_of_no_image_is_not_zero() -> None:
    subject = LoadedNetwork("mine", SPEC, network(NAN), WeightsOrigin.FILE)
    with pytest.raises(UserError, match="the gradients of all images are NaN or infinite") as caught:
        list(compare_fields([subject], images=2, resolution=32, data="shapes"))
    assert fault_of(subject.model) in str(caught.value)


class _Maps(nn.Module):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values, self.weight = values, nn.Parameter(torch.ones(1, 1, 1, 1))

    def features(self, x: Tensor) -> list[Tensor]:
        return [torch.full_like(x, value) for value in self.values]


@pytest.mark.parametrize("values", [(NAN, 1.0), (1.0, NAN)])
def test_a_difference_that_is_nan_stays_nan_at_any_position(values: tuple[float, ...]) -> None:
    one, other = nn.ModuleDict({"n": _Maps(1.0, 1.0)}), nn.ModuleDict({"n": _Maps(*values)})
    assert np.isnan(feature_difference(one, other, "n"))


def test_a_training_without_validation_images_keeps_no_weights_that_are_nan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.training.full_scale import loop

    def broken(optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        optimizer.param_groups[0]["params"][0].data.fill_(NAN)

    monkeypatch.setattr(loop, "optimizer_step", broken)
    root = write_folder(tmp_path / "images", train=6, val=0)
    recipe = recipe_of(data={"dataset": "imagefolder", "has_val": False}, epochs=1, batch_size=16, ema=None)
    with pytest.raises(Diverged):
        trained(job_of(tmp_path / "job", recipe, root=root, spec=tiny_spec(in_channels=3, drop_path=0.2, classes=3)))
    assert not list((tmp_path / "job").glob("*.safetensors"))


# The verbs


def test_verbs_end_at_weights_that_are_nan(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", train=0, val=2)
    path, model = tmp_path / "x.safetensors", network(NAN)
    write_weights(path, Weights(SPEC, False, dict(model.state_dict()), {"source": "a test"}))
    for command in (
        ("evaluate", path, "--data", "images", "--both"),
        ("kernels", path),
        ("erf", path),
        ("export", path),
    ):
        result = called(*command, cwd=tmp_path)
        assert (result.returncode, result.stdout) == (2, ""), command
        assert fault_of(model) in result.stderr and "Traceback" not in result.stderr


def test_evaluate_ends_where_finite_weights_overflow(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", train=0, val=2)
    path, model = tmp_path / "x.safetensors", network()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 1e30
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(1e30)
    write_weights(path, Weights(SPEC, False, dict(model.state_dict()), {"source": "a test"}))
    result = called("evaluate", path, "--data", "images", "--resolution", "16", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "the first layer whose output is NaN or infinite is `stem.0" in result.stderr


def test_evaluate_tells_of_constant_answers(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", train=0, val=2)
    model = network()
    for parameter in head_of(model).parameters():
        nn.init.zeros_(parameter)
    path = tmp_path / "x.safetensors"
    write_weights(path, Weights(SPEC, False, dict(model.state_dict()), {"source": "a test"}))
    command = ("evaluate", path, "--data", "images", "--resolution", "16")
    assert "warning    training form: the prediction is class 0" in called(*command, cwd=tmp_path).stdout.replace(
        "\n", " "
    )
    assert len(json.loads(called(*command, "--json", cwd=tmp_path).stdout)["notes"]) == 2
