"""Scores before training: by hand on small networks, against brute force, deterministic, and without side effects."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run, tiny_spec, with_
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config.measures import MEASURES, SCORE_METRICS, SCORES, ScoreName
from harness.data import load
from harness.executors.run_job import run_job
from harness.measures import zero_cost
from harness.measures.zero_cost import SCORE_FUNCTIONS, ScoreInputs, _Linear, score, score_images
from harness.models.build import build
from harness.models.spec.kernel import KERNEL_KINDS
from harness.models.spec.network import NetworkSpec
from harness.training.run import Epoch, Job, Measured

IMAGES = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


class TwoLayers(nn.Module):
    """relu(w1 * x) through a linear layer, on one pixel with one channel."""

    def __init__(self, first: float, second: list[float], activation: str = "relu") -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(1)
        self.fc = nn.Linear(1, len(second), bias=False)
        self.activation = activation
        with torch.no_grad():
            self.conv.weight.fill_(first)
            self.fc.weight.copy_(torch.tensor(second)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x)) if self.activation != "plain" else self.conv(x)
        y = F.gelu(y) if self.activation == "gelu" else F.relu(y)
        logits: Tensor = self.fc(y.flatten(1))
        return logits


def inputs(model: nn.Module, images: Tensor = IMAGES, labels: Tensor = LABELS) -> ScoreInputs:
    return ScoreInputs(model, images, labels)


def test_the_scores_have_a_function_and_a_metric_each() -> None:
    assert SCORE_FUNCTIONS.keys() == SCORES.keys()
    assert MEASURES["zero_cost"].metrics == SCORE_METRICS
    assert {column.name for column in MEASURES["zero_cost"].columns} == set(SCORE_METRICS)


# SynFlow


@pytest.mark.parametrize("activation", ["plain", "relu", "gelu"])
def test_synflow_by_hand(activation: str) -> None:
    """The output for a one is |w1| (|a| + |b|), and each of the two layers has this flow."""
    model = TwoLayers(-3.0, [2.0, -5.0], activation)
    expected = 2 * (3 * (2 + 5))
    assert score("synflow", inputs(model, torch.zeros(1, 1, 1, 1))) == pytest.approx(math.log10(expected))


def test_synflow_adds_the_paths_of_a_kernel_and_of_its_channels() -> None:
    """Of a 3x3 kernel of 9 weights on one padded pixel, the center alone has a flow; two channels have one each."""
    conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)
    nn.init.constant_(conv.weight, -0.5)
    model = nn.Sequential(conv, nn.Flatten())
    assert score("synflow", inputs(model, torch.zeros(1, 2, 1, 1))) == pytest.approx(math.log10(2 * 0.5))


def test_synflow_of_a_network_without_a_path_is_minus_infinity() -> None:
    assert score("synflow", inputs(TwoLayers(0.0, [1.0, 1.0]), torch.zeros(1, 1, 1, 1))) == -math.inf


# Gradient norm


def test_grad_norm_by_hand() -> None:
    """Logits (a h, b h) with h = w x > 0: dL/dw and dL/d(a, b) follow from the softmax p."""
    w, a, b, x = 0.5, 1.0, -1.0, 2.0
    model = TwoLayers(w, [a, b], "plain")
    h = w * x
    p = math.exp(a * h) / (math.exp(a * h) + math.exp(b * h))
    of_logits = (p - 1, 1 - p)  # of the label 0
    of_second = math.hypot(*(g * h for g in of_logits))
    of_first = abs((of_logits[0] * a + of_logits[1] * b) * x)
    result = score("grad_norm", inputs(model, torch.full((1, 1, 1, 1), x), torch.tensor([0])))
    assert result == pytest.approx(of_first + of_second, rel=1e-5)


# NASWOT


def test_naswot_by_hand() -> None:
    """Codes (1, 1), (1, 0) and (0, 0) of two units: K has 2 on the diagonal, and 1, 0 and 1 next to it."""
    model = nn.Sequential(nn.Flatten(), _Activated())
    images = torch.tensor([[1.0, 2.0], [3.0, -1.0], [-1.0, -2.0]]).reshape(3, 1, 1, 2)
    kernel = np.array([[2, 1, 0], [1, 2, 1], [0, 1, 2]], float)
    assert score("naswot", inputs(model, images)) == pytest.approx(math.log(np.linalg.det(kernel)))


def test_naswot_of_images_with_one_code_is_not_finite() -> None:
    model = nn.Sequential(nn.Flatten(), _Activated())
    assert score("naswot", inputs(model, torch.ones(2, 1, 1, 2))) == -math.inf


class _Activated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


def test_naswot_counts_the_units_of_every_activation_also_of_fused_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The diagonal of K is the number of units; maps this large go through the compiled batch norm in training."""
    kernels: list[Tensor] = []
    slogdet = torch.linalg.slogdet

    def noticed(kernel: Tensor) -> object:
        kernels.append(kernel.clone())
        return slogdet(kernel)

    monkeypatch.setattr(torch.linalg, "slogdet", noticed)
    spec = tiny_spec(C=[16, 16, 16, 16], K=3, B=1)
    images = torch.randn(32, spec.in_channels, 32, 32, generator=torch.Generator().manual_seed(1))
    score("naswot", inputs(build(spec, seed=0), images.contiguous(memory_format=torch.channels_last)))
    units = _units(spec, 32)
    assert units > 0 and torch.equal(kernels[0].diagonal(), torch.full((32,), float(units), dtype=torch.float64))


def _units(spec: NetworkSpec, side: int) -> int:
    """Of a RepLKNet with one block a stage: the stem, transitions, and two activations and a wide one in each block."""
    assert spec.stem_stride == 2 and spec.dw_ratio == 1
    half, total = side // 2, 0
    total += 4 * spec.C[0] * half**2
    for i, c in enumerate(spec.C):
        area = (half // 2**i) ** 2
        if i > 0:
            total += c * (4 * area) + c * area
        total += 2 * c * area + int(spec.at("ffn_ratio", i) * c) * area
    return total


# Receptive field


def test_the_field_by_hand() -> None:
    """Stem of stride 2: 3 + 2 * (3 - 1) * 2 = 11, then 2 for each of K - 1, and 3x3 transitions of stride 2."""
    spec = tiny_spec(K=[5, 3, 3, 3], B=1)
    assert spec.stem_stride == 2
    field, step = 3 + 4 + 4, 2
    for i, k in enumerate(spec.K):
        if i > 0:
            field, step = field + 2 * step, 2 * step
        field += (k - 1) * step
    assert score("receptive_field", inputs(build(spec, seed=0))) == field


def specs() -> Iterator[NetworkSpec]:
    base = {"B": 1, "C": 8, "K": 7, "in_channels": 1, "stem_stride": 2}
    for kind, traits in KERNEL_KINDS.items():
        yield NetworkSpec.from_mapping(base | {"kernel": kind, "dilation": traits.dilations[0], "ffn_ratio": 2})
    others = {"B": 2, "C": [4, 4, 8, 8], "K": [5, 3, 9, 3], "reparam": 3, "stem_stride": 4}
    yield NetworkSpec.from_mapping(base | others)
    yield NetworkSpec.from_mapping(base | {"family": "mobilenet_v2", "K": 5})
    yield NetworkSpec.from_mapping({"family": "convnext", "B": 1, "C": 8, "K": 7, "in_channels": 1})


@pytest.mark.parametrize("spec", list(specs()), ids=lambda spec: f"{spec.family}-{spec.kernel}")
def test_the_field_is_the_reach_of_the_gradient(spec: NetworkSpec) -> None:
    """Of the linear network with positive weights, the gradient of the middle position is positive in the field."""
    model = build(spec, seed=0).double().eval()
    counted = score("receptive_field", inputs(model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_().add_(0.01)
    side = 2 * int(counted) + 64
    image = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    with _Linear():
        last = model.features(image)[-1]  # type: ignore[operator]
    last[0, :, last.shape[2] // 2, last.shape[3] // 2].sum().backward()
    assert image.grad is not None
    reached = image.grad[0, 0] != 0
    assert counted == max(int(reached.any(axis).sum()) for axis in (0, 1))


# All of them


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_deterministic_and_changes_nothing(name: ScoreName) -> None:
    model = build(tiny_spec(K=7, reparam=3, drop_path=0.5), seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn(4, model.stem[0].conv.in_channels, 16, 16)  # type: ignore[index,union-attr]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = score(name, inputs(model.train(), images))
        assert torch.get_num_threads() == 2
        torch.manual_seed(123)
        model.eval()
        other = torch.get_rng_state()
        with torch.no_grad():
            assert score(name, inputs(model, images)) == first
        assert torch.equal(torch.get_rng_state(), other) and not model.training
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def test_a_network_that_draws_in_training_has_one_score_whatever_the_random_state() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 4))
    scores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores.append(score("grad_norm", inputs(model)))
    assert scores[0] == scores[1]


def test_images_are_those_of_the_training_balanced_over_the_classes(tmp_path: Path) -> None:
    dataset = load(with_(), tmp_path, 0)
    images, labels = score_images(dataset)
    assert len(images) == len(labels) == zero_cost.SCORE_IMAGES
    counts = torch.bincount(labels)
    assert int(counts.max() - counts.min()) <= 1
    assert torch.equal(images, score_images(load(with_(), tmp_path, 0))[0])


def test_a_run_has_its_scores_before_its_first_epoch_and_the_same_training(tmp_path: Path) -> None:
    recipe = with_(epochs=2, schedule={"warmup_epochs": 0})
    with_scores = with_(recipe, measures=["zero_cost"])
    plain = list(run_job(Job(tiny_run(recipe=recipe), tmp_path / "plain")))
    scored = list(run_job(Job(tiny_run(recipe=with_scores), tmp_path / "scored")))
    curves = [[(r.train_loss, r.top1) for r in records if isinstance(r, Epoch)] for records in (plain, scored)]
    assert curves[0] == curves[1] and len(curves[0]) == 2
    names = [record.name if isinstance(record, Measured) else type(record).__name__ for record in scored]
    assert [name for name in names if name in SCORE_METRICS] == list(SCORE_METRICS)
    assert max(map(names.index, SCORE_METRICS)) < names.index("Epoch")
    assert all(math.isfinite(r.value) for r in scored if isinstance(r, Measured) and r.name in SCORE_METRICS)


def test_the_scores_follow_from_the_seed_and_not_from_the_epochs(tmp_path: Path) -> None:
    values = []
    for epochs, seed in ((0, 0), (1, 0), (0, 1)):
        recipe = with_(epochs=epochs, schedule={"warmup_epochs": 0}, measures=["zero_cost"])
        records = run_job(Job(tiny_run(recipe=recipe, seed=seed), tmp_path / f"{epochs}{seed}"))
        values.append({r.name: r.value for r in records if isinstance(r, Measured) and r.name in SCORE_METRICS})
    assert values[0] == values[1] != values[2]
    assert values[0]["receptive_field_px"] == values[2]["receptive_field_px"]
