"""The training loop of proxy runs, `train_epochs`: a generator that yields after each epoch.

`fit` trains and validates a run's network with it; `harness.training.transfer` trains networks with a head.

All randomness of an epoch follows from (seed, epoch), so on a CPU with the same number of threads, a run that is
resumed from its checkpoint has bitwise the same result as one that was not interrupted.

Shapes: N images, C channels, H W height and width; images come as uint8 (N, C, H, W), labels as int64 (N,).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import Dataset, Rows, Split
from harness.data.augment import augment, normalize
from harness.errors import Diverged
from harness.models.finite import require_finite
from harness.system.device_slot import yield_slot
from harness.training.checkpoint import Checkpoint
from harness.training.device import ComputeFormat, autocast, place_images, place_network
from harness.training.optim import backward_and_step, build_proxy_optimizer, proxy_learning_rate, set_learning_rate
from harness.training.run import Epoch

EVAL_BATCH = 250

BatchLoss = Callable[[Tensor, torch.Generator], Tensor]
"""Loss, (), of the training images with the indices int64 (N,); all random numbers come from the generator."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class ProxyContext:
    """The inputs of a proxy's training, or of a transfer, besides the network: they do not change meanwhile."""

    dataset: Dataset
    recipe: ProxyRecipe
    """Of a transfer, the recipe of its own training; see `harness.training.transfer.transfer_recipe`."""
    seed: int
    device: torch.device
    check: Callable[[], None] = lambda: None
    """Called before every step; raises an error to end the training."""


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

    The records in the checkpoint are yielded first, in case the caller has lost them. With the recipe's `ema`, the
    moving average of the weights is validated, and is what the model has after the last epoch. With 0 epochs the model
    is only moved to the device. `check` is called before every step and raises an error to end the run. Raises
    `Diverged` at the first loss that is not finite.
    """
    context = ProxyContext(dataset, recipe, seed, device, check)
    optimizer, scaler = prepare(model, context)
    ema = None if recipe.ema is None else moving_average(model, recipe.ema)
    images, labels = on_device(dataset.train, device)
    done: list[Epoch] = []
    if checkpoint is not None:
        checkpoint.restore(model, optimizer, scaler, ema)
        done = list(checkpoint.epochs)
    yield from done

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        batch, targets = images[index].to(device), labels[index].to(device)
        batch, targets = augment(batch, targets, recipe.augmentation, dataset, generator)
        with autocast(recipe, device):
            output = model(place_images(batch, recipe, device))
            return F.cross_entropy(output.float(), targets, label_smoothing=recipe.label_smoothing)

    epochs = train_epochs(
        model,
        optimizer,
        scaler,
        batch_loss,
        context,
        len(labels),
        "the training loss",
        first_epoch=len(done) + 1,
        after_step=(lambda: None) if ema is None else (lambda: ema.update_parameters(model)),
    )
    for trained in epochs:
        start = time.perf_counter()
        is_last = trained.epoch == recipe.epochs
        if ema is not None and is_last:
            model.load_state_dict(ema.module.state_dict())
        count = len(dataset.val) if is_last else dataset.interim_val
        judged = model if ema is None else ema.module
        val_loss, top1 = validate(judged, dataset, recipe, device, count=count)
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
            checkpoint.save(model, optimizer, scaler, record, ema)
        yield record


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model's weights and batch norm statistics, updated after every step.

    PyTorch's own, because timm's, which trainings at full scale use, takes seconds to import in every worker.
    """
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def prepare(model: nn.Module, context: ProxyContext) -> tuple[torch.optim.Optimizer, torch.amp.GradScaler]:
    """Move the model to the device; returns its optimizer and gradient scaler."""
    recipe, device = context.recipe, context.device
    place_network(model, recipe, device)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    return build_proxy_optimizer(model, recipe.optimizer), scaler


def train_epochs(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch_loss: BatchLoss,
    context: ProxyContext,
    count: int,
    loss_name: str,
    *,
    first_epoch: int = 1,
    after_step: Callable[[], None] = lambda: None,
) -> Iterator[TrainedEpoch]:
    """Train from `first_epoch` to the last on `count` images with a loss function of their indices.

    Yields after each epoch, so that the caller can validate and save. `after_step` is called after each step. Raises
    `Diverged`, which contains `loss_name`, at the first loss that is not finite.
    """
    recipe, device = context.recipe, context.device
    steps = max(1, count // recipe.batch_size)  # a smaller last batch would disturb the batch norms
    for epoch in range(first_epoch, recipe.epochs + 1):
        start = time.perf_counter()
        generator = epoch_generator(context.seed, epoch)
        order = torch.randperm(count, generator=generator).to(device)
        losses = torch.zeros((), device=device)
        model.train()

        for step, index in enumerate(torch.split(order, recipe.batch_size)[:steps]):
            context.check()
            yield_slot()
            lr = proxy_learning_rate(recipe, (epoch - 1) * steps + step, steps)
            set_learning_rate(optimizer, lr)

            loss = batch_loss(index, generator)

            backward_and_step(loss, optimizer, scaler, clip_norm=recipe.optimizer.clip_norm)
            after_step()

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
    count = len(dataset.val.labels[:count])
    loss = torch.zeros((), device=device)
    correct = torch.zeros((), device=device)
    for logits, labels in predict_logits(model, dataset.val, dataset, recipe, device, count=count):
        loss += F.cross_entropy(logits, labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    return loss.item() / count, 100 * correct.item() / count


def predict_logits(
    model: nn.Module,
    split: Split,
    dataset: Dataset,
    recipe: ProxyRecipe,
    device: torch.device,
    *,
    count: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (N, classes), in float32, and labels (N,) of the first `count` images of a split, or of all, by batch.

    See `predict`.
    """
    images, labels = on_device(split, device)
    count = len(split.labels[:count])
    parts = (slice(start, min(start + EVAL_BATCH, count)) for start in range(0, count, EVAL_BATCH))
    batches = ((normalize(images[part].to(device), dataset), labels[part]) for part in parts)
    for logits, targets in predict(model, batches, recipe, device, "the logits of a validation image"):
        yield logits.float(), targets


@torch.no_grad()
def predict(
    model: nn.Module, batches: Iterable[tuple[Tensor, T]], recipe: ComputeFormat, device: torch.device, subject: str
) -> Iterator[tuple[Tensor, T]]:
    """The outputs of a network for batches of normalized images (N, C, H, W), each with the batch's other value.

    The network is in evaluation mode meanwhile and afterwards. Raises `Diverged`, with `subject` as that of the
    message, if an output is not finite.
    """
    model.eval()
    for batch, rest in batches:
        yield_slot()
        images = place_images(batch, recipe, device)
        with autocast(recipe, device):
            output = model(images)
            require_finite(output, model, images, subject)
        yield output, rest


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


def on_device(split: Split, device: torch.device) -> tuple[Tensor | _ConcatenatedImages, Tensor]:
    """Images and labels as tensors: on a GPU in its memory; on a CPU the shared pages of the file, without a copy."""
    labels = torch.from_numpy(split.labels).to(device)
    if device.type != "cpu":
        return torch.from_numpy(split.images[:]).to(device), labels
    images = _ConcatenatedImages(split.images) if isinstance(split.images, Rows) else torch.from_numpy(split.images)
    return images, labels
