"""The training loop learns, is deterministic, resumes where it was, and stops at values that are not finite."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from plain_loop import plain_epochs, same_weights
from tiny_runs import RECIPE, tiny_spec, with_
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config.recipes.proxy import Optimizer, ProxyRecipe
from harness.data import Dataset, load
from harness.data.augment import augment
from harness.errors import Diverged, Stopped
from harness.models.build import build
from harness.training.checkpoint import Checkpoint
from harness.training.device import place_images
from harness.training.fit import ProxyContext, fit, on_device, prepare, train_epochs, validate
from harness.training.optim import build_proxy_optimizer, proxy_learning_rate
from harness.training.run import Epoch

CPU = torch.device("cpu")
RUN = "0123456789abcdef"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(RECIPE, tmp_path_factory.mktemp("data"), 0)


def train(
    dataset: Dataset,
    recipe: ProxyRecipe = RECIPE,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    drop_path: float = 0.0,
) -> tuple[nn.Module, list[Epoch]]:
    torch.manual_seed(seed)
    model = build(tiny_spec(drop_path=drop_path))
    kept = None if checkpoint is None else Checkpoint.open(checkpoint, RUN, epochs=recipe.epochs, model=model)
    return model, list(fit(model, dataset, recipe, seed=seed, device=CPU, checkpoint=kept))


def outcome(epochs: list[Epoch]) -> list[tuple[float, float, float]]:
    """What must not depend on when and where a run was trained."""
    return [(epoch.train_loss, epoch.val_loss, epoch.top1) for epoch in epochs]


def test_one_record_per_epoch(dataset: Dataset) -> None:
    _, epochs = train(dataset)
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert all(0 <= epoch.top1 <= 100 and epoch.images_per_s > 0 for epoch in epochs)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_is_bit_for_bit_what_a_plain_loop_gives(dataset: Dataset, optimizer: str) -> None:
    recipe = with_(optimizer={"name": optimizer, "lr": 0.01}, augmentation={"shift": 2, "mixup": 0.2})
    model, epochs = train(dataset, recipe, seed=3, drop_path=0.2)
    torch.manual_seed(3)
    plain = build(tiny_spec(drop_path=0.2))
    images, labels = torch.from_numpy(dataset.train.images), torch.from_numpy(dataset.train.labels)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        batch, targets = augment(images[index], labels[index], recipe.augmentation, dataset, generator)
        memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        output = plain(batch.contiguous(memory_format=memory_format))
        return F.cross_entropy(output, targets, label_smoothing=recipe.label_smoothing)

    losses = plain_epochs(plain, recipe, loss, count=len(labels), seed=3)
    assert [epoch.train_loss for epoch in epochs] == losses
    assert same_weights(model, plain)


@pytest.mark.long
def test_learns_to_tell_easy_shapes_apart(tmp_path: Path) -> None:
    recipe = with_(train_size=256, val_size=128, difficulty=0.0, resolution=32, epochs=6)
    dataset = load(recipe, tmp_path, 0)
    torch.manual_seed(0)
    model = build(tiny_spec(C=[8, 8, 16, 16], K=7))
    epochs = list(fit(model, dataset, recipe, seed=0, device=CPU))
    assert epochs[-1].train_loss < epochs[0].train_loss - 0.3
    assert epochs[-1].top1 > 3 * 12.5  # three times chance


@pytest.mark.parametrize("drop_path", [0.0, 0.3])
def test_same_seed_same_bits_other_seed_others(dataset: Dataset, drop_path: float) -> None:
    first = outcome(train(dataset, drop_path=drop_path)[1])
    assert first == outcome(train(dataset, drop_path=drop_path)[1])
    assert first != outcome(train(dataset, drop_path=drop_path, seed=1)[1])


def test_the_moving_average_is_validated_and_kept(dataset: Dataset) -> None:
    decay = 0.9
    recipe = with_(ema=decay)
    plain, plain_records = train(dataset, seed=3)
    model, records = train(dataset, recipe, seed=3)
    assert [record.train_loss for record in records] == [record.train_loss for record in plain_records]

    torch.manual_seed(3)
    raw = build(tiny_spec())
    averages: dict[str, Tensor] = {}

    def average() -> None:
        for name, value in raw.state_dict().items():
            value = value.double()
            averages[name] = value if name not in averages else decay * averages[name] + (1 - decay) * value

    optimizer, scaler = prepare(raw, context := ProxyContext(dataset, RECIPE, 3, CPU))
    images, labels = on_device(dataset.train, CPU)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        batch, targets = augment(images[index], labels[index], RECIPE.augmentation, dataset, generator)
        logits = raw(place_images(batch, RECIPE, CPU))
        return F.cross_entropy(logits, targets, label_smoothing=RECIPE.label_smoothing)

    for _ in train_epochs(raw, optimizer, scaler, loss, context, len(labels), "the loss", after_step=average):
        pass
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, averages[name].float(), msg=name)
    assert (records[-1].val_loss, records[-1].top1) == validate(model, dataset, recipe, CPU)
    assert not same_weights(model, plain)


@pytest.mark.parametrize(("optimizer", "ema"), [("sgd", None), ("adamw", None), ("sgd", 0.9)])
def test_goes_on_from_its_checkpoint_as_if_undisturbed(
    dataset: Dataset, tmp_path: Path, optimizer: str, ema: float | None
) -> None:
    recipe = with_(optimizer={"name": optimizer, "lr": 0.01}, augmentation={"shift": 2, "mixup": 0.2}, ema=ema)
    whole, undisturbed = train(dataset, recipe, drop_path=0.2)
    path = tmp_path / "run.pt"
    model = build(tiny_spec(drop_path=0.2), seed=0)
    checkpoint = Checkpoint.open(path, RUN, epochs=recipe.epochs, model=model)
    first = list(itertools.islice(fit(model, dataset, recipe, seed=0, device=CPU, checkpoint=checkpoint), 2))
    model, resumed = train(dataset, recipe, checkpoint=path, drop_path=0.2)
    assert same_weights(model, whole)
    again, _ = train(dataset, recipe, checkpoint=path, drop_path=0.2)
    assert same_weights(again, whole), "nothing is left to train"
    assert [epoch.epoch for epoch in resumed] == [1, 2, 3]
    assert resumed[:2] == first, "the records of the checkpoint, as they were first yielded"
    assert outcome(resumed) == outcome(undisturbed)


def test_a_damaged_checkpoint_counts_as_none(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(b"no checkpoint")
    _, epochs = train(dataset, checkpoint=path)
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert not path.with_suffix(".partial").exists()


def test_a_loss_that_is_not_finite_ends_the_run_at_once(dataset: Dataset) -> None:
    recipe = with_(optimizer={"lr": 1e12}, schedule={"name": "constant", "warmup_epochs": 0})
    with pytest.raises(Diverged, match="epoch 1, step"):
        train(dataset, recipe)


def test_check_is_called_before_every_step(dataset: Dataset) -> None:
    calls = itertools.count(1)

    def check() -> None:
        if next(calls) == 6:  # four steps an epoch
            raise Stopped("enough")

    epochs = fit(build(tiny_spec()), dataset, RECIPE, seed=0, device=CPU, check=check)
    assert next(epochs).epoch == 1
    with pytest.raises(Stopped):
        next(epochs)


def test_learning_rate_warms_up_to_its_peak_and_falls_to_its_end() -> None:
    recipe = with_(epochs=10, schedule={"warmup_epochs": 2, "final": 0.1}, optimizer={"lr": 0.5})
    rates = [proxy_learning_rate(recipe, step, 8) for step in range(80)]
    assert rates[:16] == sorted(rates[:16]) and rates[0] > 0
    assert rates[16] == 0.5 == max(rates)
    assert rates[16:] == sorted(rates[16:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, rel=0.05)


def test_constant_schedule_stays_at_its_peak() -> None:
    recipe = with_(schedule={"name": "constant", "warmup_epochs": 0}, optimizer={"lr": 0.5})
    assert {proxy_learning_rate(recipe, step, 4) for step in range(12)} == {0.5}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_are_not_decayed(name: str) -> None:
    model = build(tiny_spec())
    optimizer = build_proxy_optimizer(model, Optimizer(name=name, weight_decay=0.1))  # type: ignore[arg-type]
    decayed, others = optimizer.param_groups
    assert all(p.ndim > 1 for p in decayed["params"]) and decayed["weight_decay"] == 0.1
    assert all(p.ndim == 1 for p in others["params"]) and others["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.9), ("sgd", 0.0), ("adamw", 0.9)])
def test_the_optimisers_are_torchs_own_to_the_last_bit(name: Literal["sgd", "adamw"], momentum: float) -> None:
    config = Optimizer(name=name, lr=0.05, momentum=momentum)

    def trained(stock: bool) -> tuple[list[Tensor], dict[str, Any]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
        optimizer = build_proxy_optimizer(model, config)
        if stock:
            kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
            groups = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]
            optimizer = kind(groups, lr=config.lr)
        for _ in range(10):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(model(torch.randn(4, 5)).square().sum())
            optimizer.step()
        return list(model.parameters()), optimizer.state_dict()

    ours, theirs = trained(stock=False), trained(stock=True)
    assert all(torch.equal(a, b) for a, b in zip(ours[0], theirs[0], strict=True))
    assert ours[1]["param_groups"] == theirs[1]["param_groups"]
    assert ours[1]["state"].keys() == theirs[1]["state"].keys()


@pytest.mark.long
def test_training_does_not_load_torchs_compiler(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tiny_runs import tiny_run; "
        "from harness.executors.run_job import run_job; "
        "from harness.training.run import Job; said = list(run_job(Job(tiny_run(), Path(sys.argv[1]) / 'study'))); "
        "print(said[-1].state, 'torch._dynamo' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[1] / "helpers",
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["complete", "False"]


def test_clipping_bounds_the_step(dataset: Dataset) -> None:
    recipe = with_(
        epochs=1,
        optimizer={"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 1e-6},
        schedule={"name": "constant", "warmup_epochs": 0},
    )
    before = build(tiny_spec(), seed=0)
    after = build(tiny_spec(), seed=0)
    list(fit(after, dataset, recipe, seed=0, device=CPU))
    moved = [(a - b).norm() for a, b in zip(after.parameters(), before.parameters(), strict=True)]
    assert 0 < torch.stack(moved).norm() <= 4.1e-6  # four steps


def test_bfloat16_trains_and_keeps_float32_weights(dataset: Dataset) -> None:
    model, epochs = train(dataset, with_(precision="bfloat16", epochs=2))
    assert len(epochs) == 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert outcome(epochs) != outcome(train(dataset, with_(epochs=2))[1])


def test_validation_leaves_the_network_alone(dataset: Dataset) -> None:
    model = build(tiny_spec(), seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    validate(model, dataset, RECIPE, CPU)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
