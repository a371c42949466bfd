"""The training loop of a run and of a transfer as PyTorch's tutorials write it, to compare bits with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.config.recipes.proxy import ProxyRecipe
from harness.training.optim import build_proxy_optimizer, proxy_learning_rate


def plain_epochs(
    model: nn.Module,
    recipe: ProxyRecipe,
    batch_loss: Callable[[Tensor, torch.Generator], Tensor],
    *,
    count: int,
    seed: int,
) -> list[float]:
    """Train in place on a CPU, in float32; gives the mean loss of each epoch."""
    model.to(memory_format=torch.channels_last if recipe.channels_last else torch.contiguous_format)
    optimizer = build_proxy_optimizer(model, recipe.optimizer)
    steps = count // recipe.batch_size
    losses = []
    for epoch in range(1, recipe.epochs + 1):
        mixed = seed * 1_000_003 + epoch
        torch.manual_seed(mixed)
        generator = torch.Generator().manual_seed(mixed)
        order = torch.randperm(count, generator=generator)
        model.train()
        total = torch.zeros(())
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = proxy_learning_rate(recipe, (epoch - 1) * steps + step, steps)
            loss = batch_loss(order[step * recipe.batch_size : (step + 1) * recipe.batch_size], generator)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            if recipe.optimizer.clip_norm is not None:
                trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                nn.utils.clip_grad_norm_(trained, recipe.optimizer.clip_norm)
            optimizer.step()
            total += loss.detach()
        losses.append(total.item() / steps)
    return losses


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether all parameters and statistics are equal bit for bit."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())
