"""The training loop of what a network learns downstream, in the manner of `harness.training.fit`.

Everything random in an epoch follows from (seed, epoch).
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.config.recipes.proxy import Recipe
from harness.errors import Diverged
from harness.system.device_slot import offer
from harness.training.fit import autocast, build_optimizer, descend, learning_rate, seed_epoch

EVAL_BATCH = 64

BatchLoss = Callable[[Tensor, torch.Generator], Tensor]
"""The loss, (), of the training images of some indices, int64 (N,); what it draws, it draws from the generator."""


@dataclass(frozen=True, slots=True)
class DownstreamEpoch:
    """One epoch of training downstream."""

    epoch: int
    """From 1."""
    train_loss: float
    wall_s: float
    images_per_s: float


def train(
    model: nn.Module,
    batch_loss: BatchLoss,
    recipe: Recipe,
    *,
    count: int,
    seed: int,
    device: torch.device,
    check: Callable[[], None],
    task: str,
) -> Iterator[DownstreamEpoch]:
    """Train `model` in place on `count` images; yields after each epoch.

    `check` is called before every step and raises to end the training. Raises `Diverged`, in the name of `task`, at the
    first loss that is not finite.
    """
    model.to(device).to(memory_format=layout(recipe))
    optimizer = build_optimizer(model, recipe.optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    steps = max(1, count // recipe.batch_size)  # a last, smaller batch would disturb the batch norms

    for epoch in range(1, recipe.epochs + 1):
        start = time.perf_counter()
        generator = seed_epoch(seed, epoch)
        order = torch.randperm(count, generator=generator).to(device)
        losses = torch.zeros((), device=device)
        model.train()

        for step, index in enumerate(torch.split(order, recipe.batch_size)[:steps]):
            check()
            offer()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, (epoch - 1) * steps + step, steps)

            with autocast(recipe, device):
                loss = batch_loss(index, generator)

            descend(loss, model, optimizer, scaler, clip_norm=recipe.optimizer.clip_norm)

            losses += loss.detach()
            if device.type == "cpu" and not math.isfinite(loss.item()):  # on a GPU this would wait for it: see below
                raise Diverged(f"the {task}'s loss is {loss.item()} in epoch {epoch}, step {step + 1}")

        train_loss = losses.item() / steps
        if not math.isfinite(train_loss):
            raise Diverged(f"the {task}'s loss is {train_loss} in epoch {epoch}")
        wall_s = time.perf_counter() - start
        yield DownstreamEpoch(epoch, train_loss, wall_s, images_per_s=steps * recipe.batch_size / wall_s)


def layout(recipe: Recipe) -> torch.memory_format:
    """How images and weights lie in memory."""
    return torch.channels_last if recipe.channels_last else torch.contiguous_format
