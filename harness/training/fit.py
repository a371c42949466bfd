"""The training loop of proxy runs, `train_epochs`: a generator that yields after each epoch.

`fit` trains and validates a run's network with it; `fit_loss` trains a network with a head on masks or boxes.

All randomness of an epoch follows from (seed, epoch), so on a CPU with the same number of threads, a run that is
resumed from its checkpoint has bitwise the same result as one that was not interrupted.

Shapes: N images, C channels, H W height and width; images come as uint8 (N, C, H, W), labels as int64 (N,).
"""

import inspect
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config.recipes.proxy import Optimizer, ProxyRecipe, Schedule
from harness.data import Dataset, Rows, Split
from harness.data.augment import augment, normalize
from harness.errors import Diverged, UserError
from harness.models.finite import require_finite
from harness.system.device_slot import yield_slot
from harness.training.checkpoint import Checkpoint
from harness.training.device import memory_format
from harness.training.run import Epoch

EVAL_BATCH = 250
DENSE_EVAL_BATCH = 64
"""Batch size for the evaluation of a transfer, which has larger maps and outputs."""

BatchLoss = Callable[[Tensor, torch.Generator], Tensor]
"""Loss, (), of the training images with the indices int64 (N,); all random numbers come from the generator."""

OptimizerT = TypeVar("OptimizerT", bound=torch.optim.Optimizer)


@dataclass(frozen=True, slots=True)
class TrainedEpoch:
    """One epoch of training, without the validation after it."""

    epoch: int
    """From 1."""
    train_loss: float
    lr: float
    """Learning rate of the epoch's last step."""
    wall_s: float
    images_per_s: float


def fit(
    model: nn.Module,
    dataset: Dataset,
    recipe: ProxyRecipe,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Epoch]:
    """Train `model` in place and yield an `Epoch` after each; resumes after the last epoch of `checkpoint`.

    The records in the checkpoint are yielded first, in case the caller has lost them. With 0 epochs the model is only
    moved to the device. `check` is called before every step and raises an error to end the run. Raises `Diverged` at
    the first loss that is not finite.
    """
    optimizer, scaler = prepare(model, recipe, device)
    images, labels = _on_device(dataset.train, device)
    done: list[Epoch] = []
    if checkpoint is not None:
        checkpoint.restore(model, optimizer, scaler)
        done = list(checkpoint.epochs)
    yield from done

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        batch, targets = images[index].to(device), labels[index].to(device)
        batch, targets = augment(batch, targets, recipe.augmentation, dataset, generator)
        with autocast(recipe, device):
            output = model(batch.contiguous(memory_format=memory_format(recipe)))
            return F.cross_entropy(output.float(), targets, label_smoothing=recipe.label_smoothing)

    for trained in train_epochs(
        model,
        optimizer,
        scaler,
        batch_loss,
        recipe,
        count=len(labels),
        seed=seed,
        device=device,
        check=check,
        loss_name="the training loss",
        first_epoch=len(done) + 1,
    ):
        start = time.perf_counter()
        count = len(dataset.val) if trained.epoch == recipe.epochs else dataset.interim_val
        val_loss, top1 = validate(model, dataset, recipe, device, count=count)
        if not math.isfinite(val_loss):
            raise Diverged(f"the validation loss is {val_loss} after epoch {trained.epoch}")
        record = Epoch(
            epoch=trained.epoch,
            train_loss=trained.train_loss,
            val_loss=val_loss,
            top1=top1,
            lr=trained.lr,
            wall_s=trained.wall_s + time.perf_counter() - start,
            images_per_s=trained.images_per_s,
        )
        if checkpoint is not None:
            checkpoint.save(model, optimizer, scaler, record)
        yield record


def fit_loss(
    model: nn.Module,
    batch_loss: BatchLoss,
    recipe: ProxyRecipe,
    *,
    count: int,
    seed: int,
    device: torch.device,
    check: Callable[[], None],
    task: str,
) -> Iterator[TrainedEpoch]:
    """Train `model` in place on `count` images with a loss function of their indices; yields after each epoch.

    `check` is called before every step and raises an error to end the training. Raises `Diverged`, which names `task`,
    at the first loss that is not finite.
    """
    optimizer, scaler = prepare(model, recipe, device)
    yield from train_epochs(
        model,
        optimizer,
        scaler,
        batch_loss,
        recipe,
        count=count,
        seed=seed,
        device=device,
        check=check,
        loss_name=f"the {task}'s loss",
    )


def prepare(
    model: nn.Module, recipe: ProxyRecipe, device: torch.device
) -> tuple[torch.optim.Optimizer, torch.amp.GradScaler]:
    """Move the model to the device; returns its optimizer and gradient scaler."""
    model.to(device).to(memory_format=memory_format(recipe))
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    return build_optimizer(model, recipe.optimizer), scaler


def train_epochs(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch_loss: BatchLoss,
    recipe: ProxyRecipe,
    *,
    count: int,
    seed: int,
    device: torch.device,
    check: Callable[[], None],
    loss_name: str,
    first_epoch: int = 1,
) -> Iterator[TrainedEpoch]:
    """Train from `first_epoch` to the last; yields after each epoch, so that the caller can validate and save."""
    steps = max(1, count // recipe.batch_size)  # a smaller last batch would disturb the batch norms
    for epoch in range(first_epoch, recipe.epochs + 1):
        start = time.perf_counter()
        generator = epoch_generator(seed, epoch)
        order = torch.randperm(count, generator=generator).to(device)
        losses = torch.zeros((), device=device)
        model.train()

        for step, index in enumerate(torch.split(order, recipe.batch_size)[:steps]):
            check()
            yield_slot()
            lr = learning_rate(recipe, (epoch - 1) * steps + step, steps)
            for group in optimizer.param_groups:
                group["lr"] = lr

            loss = batch_loss(index, generator)

            backward_and_step(loss, model, optimizer, scaler, clip_norm=recipe.optimizer.clip_norm)

            losses += loss.detach()
            if device.type == "cpu" and not math.isfinite(loss.item()):  # would synchronize a GPU: checked below
                raise Diverged(f"{loss_name} is {loss.item()} in epoch {epoch}, step {step + 1}")

        train_loss = losses.item() / steps
        if not math.isfinite(train_loss):
            raise Diverged(f"{loss_name} is {train_loss} in epoch {epoch}")
        wall_s = time.perf_counter() - start
        yield TrainedEpoch(epoch, train_loss, lr, wall_s, images_per_s=steps * recipe.batch_size / wall_s)


@torch.no_grad()
def validate(
    model: nn.Module, dataset: Dataset, recipe: ProxyRecipe, device: torch.device, *, count: int | None = None
) -> tuple[float, float]:
    """Mean cross-entropy and top-1 accuracy in percent on the first `count` validation images, or on all."""
    labels = torch.from_numpy(dataset.val.labels[:count]).to(device)
    logits = predict_logits(model, dataset.val, dataset, recipe, device, count=len(labels))
    loss = torch.zeros((), device=device)
    correct = torch.zeros((), device=device)
    for output, target in zip(logits, torch.split(labels, EVAL_BATCH), strict=True):
        loss += F.cross_entropy(output, target, reduction="sum")
        correct += (output.argmax(1) == target).sum()
    return loss.item() / len(labels), 100 * correct.item() / len(labels)


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    split: Split,
    dataset: Dataset,
    recipe: ProxyRecipe,
    device: torch.device,
    *,
    count: int | None = None,
) -> Iterator[Tensor]:
    """Logits of the first `count` images of a split, or of all, in evaluation mode, batch by batch, in float32.

    Each batch is (N, classes). Raises `Diverged` if a logit is not finite.
    """
    images, _ = _on_device(split, device)
    model.eval()
    for index in torch.split(torch.arange(len(split))[:count], EVAL_BATCH):
        yield_slot()
        batch = images[index[0] : index[-1] + 1]
        with autocast(recipe, device):
            logits = normalize(batch.to(device), dataset).contiguous(memory_format=memory_format(recipe))
            output = model(logits).float()
            require_finite(output, model, logits, "the logits of a validation image")
        yield output


def backward_and_step(
    loss: Tensor,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    clip_norm: float | None,
) -> None:
    """Backward pass and optimizer step; the norm of the gradient is clipped to `clip_norm`, if set."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(scaler.scale(loss))
    optimizer_step(model, optimizer, scaler, clip_norm=clip_norm)


def optimizer_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, *, clip_norm: float | None
) -> None:
    """Optimizer step with the gradients of a backward pass; their norm is clipped to `clip_norm`, if set."""
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    scaler.step(optimizer)
    scaler.update()


def build_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; no weight decay for vectors (norms, biases), as in the paper's code."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if config.name == "sgd":
        sgd = without_compiler_wrappers(torch.optim.SGD)
        return sgd(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)
    return without_compiler_wrappers(torch.optim.AdamW)(
        groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True
    )


def without_compiler_wrappers(optimizer: type[OptimizerT]) -> type[OptimizerT]:
    """The same optimizer without the wrappers for torch's compiler, which would load it: one second and 150 MB."""
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    bare = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    return type(optimizer.__name__, (optimizer,), {**bare, "step": torch.no_grad()(inspect.unwrap(optimizer.step))})


def learning_rate(recipe: ProxyRecipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step counted from 0: linear warm-up, then a cosine to `final` times the peak."""
    schedule: Schedule = recipe.schedule
    warmup = schedule.warmup_epochs * steps_per_epoch
    total = recipe.epochs * steps_per_epoch
    if step < warmup:
        return recipe.optimizer.lr * (step + 1) / (warmup + 1)
    if schedule.name == "constant":
        return recipe.optimizer.lr
    progress = (step - warmup) / max(1.0, total - warmup)
    return recipe.optimizer.lr * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Seed torch's global generator, which stochastic depth uses, and return the epoch's own generator."""
    mixed = (seed * 1_000_003 + epoch) % 2**63
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


class _ConcatenatedImages:
    """Images from several arrays, as tensors; copied when they are indexed."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __getitem__(self, key: Tensor | slice) -> Tensor:
        return torch.from_numpy(self._rows[key if isinstance(key, slice) else key.numpy()])


def _on_device(split: Split, device: torch.device) -> tuple[Tensor | _ConcatenatedImages, Tensor]:
    """Images and labels as tensors: on a GPU in its memory; on a CPU the shared pages of the file, without a copy."""
    labels = torch.from_numpy(split.labels).to(device)
    if device.type != "cpu":
        return torch.from_numpy(split.images[:]).to(device), labels
    return _ConcatenatedImages(split.images) if isinstance(split.images, Rows) else torch.from_numpy(
        split.images
    ), labels


class HasPrecision(Protocol):
    """Protocol of an object with the precision of a network: a recipe, or an evaluation."""

    @property
    def precision(self) -> str:
        """`float32`, `bfloat16` or `float16`."""
        ...


def autocast(recipe: HasPrecision, device: torch.device) -> AbstractContextManager[object]:
    """Context of mixed precision in the recipe's precision; does nothing for float32."""
    return torch.autocast(device.type, getattr(torch, recipe.precision), enabled=recipe.precision != "float32")


def find_device(name: str | None) -> torch.device:
    """The device of that name; by default a GPU if there is one. Raises `UserError` for a GPU that is not available."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "the device must be one that PyTorch can use", value=name, remedy="Leave --device out, or use cpu."
        )
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
