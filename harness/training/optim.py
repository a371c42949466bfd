"""Optimizers, and the two schedules of the learning rate: of a proxy's training, and of training at full scale."""

import inspect
import math
import re
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from harness.config.recipes.proxy import Optimizer, ProxyRecipe
from harness.models.spec.network import NetworkSpec

if TYPE_CHECKING:
    from harness.config.recipes.full_scale import FullScaleRecipe

BLOCKS_PER_GROUP = {"replknet": 4}
"""Number of modules `stages.S.blocks.J` in a group of layers, if not 2: a RepLKNet block consists of two."""
LR_SCALE = "lr_scale"
"""Key of a parameter group for the factor of the scheduled learning rate; timm's name."""

OptimizerT = TypeVar("OptimizerT", bound=torch.optim.Optimizer)
ParameterGroups = list[dict[str, object]]


def backward_and_step(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    clip_norm: float | None,
) -> None:
    """Backward pass and optimizer step; the norm of the gradient is clipped to `clip_norm`, if set."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(scaler.scale(loss))
    optimizer_step(optimizer, scaler, clip_norm=clip_norm)


def optimizer_step(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, *, clip_norm: float | None) -> None:
    """Optimizer step with the gradients of a backward pass; their norm is clipped to `clip_norm`, if set."""
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(trained, clip_norm)
    scaler.step(optimizer)
    scaler.update()


# Optimizers


def build_proxy_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW, with a parameter group for each weight decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: ParameterGroups = [
        {"params": [parameter for parameter in trained if is_decayed(parameter)], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in trained if not is_decayed(parameter)], "weight_decay": 0.0},
    ]
    momentum = config.momentum
    return _optimizer(config.name, groups, config.lr, momentum, (momentum, 0.999), is_nesterov=momentum > 0)


def build_full_scale_optimizer(
    model: nn.Module, spec: NetworkSpec, recipe: "FullScaleRecipe", backbone: str = ""
) -> torch.optim.Optimizer:
    """SGD or AdamW, with a parameter group for each weight decay and learning rate scale."""
    config, groups = recipe.optimizer, parameter_groups(model, spec, recipe, backbone)
    beta1, beta2 = config.betas
    return _optimizer(config.name, groups, config.lr, config.momentum, (beta1, beta2), eps=config.eps)


def is_decayed(parameter: nn.Parameter) -> bool:
    """Whether a parameter has weight decay: vectors (norms, biases) have none, as in the paper's code."""
    return parameter.ndim > 1


def _optimizer(
    name: str,
    groups: ParameterGroups,
    lr: float,
    momentum: float,
    betas: tuple[float, float],
    *,
    is_nesterov: bool = False,
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    if name == "sgd":
        sgd = without_compiler_wrappers(torch.optim.SGD)
        return sgd(groups, lr=lr, momentum=momentum, nesterov=is_nesterov, fused=True)
    return without_compiler_wrappers(torch.optim.AdamW)(groups, lr=lr, betas=betas, eps=eps, fused=True)


def without_compiler_wrappers(optimizer: type[OptimizerT]) -> type[OptimizerT]:
    """The same optimizer without the wrappers for torch's compiler, which would load it: one second and 150 MB."""
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    bare = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    return type(optimizer.__name__, (optimizer,), {**bare, "step": torch.no_grad()(inspect.unwrap(optimizer.step))})


def parameter_groups(
    model: nn.Module, spec: NetworkSpec, recipe: "FullScaleRecipe", backbone: str = ""
) -> ParameterGroups:
    """Parameter groups by depth and weight decay. Without layer decay, all have one depth.

    `backbone` is the name of the network within the model; parameters outside it belong to the last group.
    """
    config, layers, prefix = recipe.optimizer, layer_count(spec), f"{backbone}." if backbone else ""
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_last = config.layer_decay == 1 or not name.startswith(prefix)
        depth = layers - 1 if is_last else layer_of(name.removeprefix(prefix), spec)
        groups.setdefault((depth, is_decayed(parameter)), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            LR_SCALE: config.layer_decay ** (layers - 1 - depth),
        }
        for (depth, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def layer_of(name: str, spec: NetworkSpec) -> int:
    """Index of the group of layers that a parameter belongs to, from 0 for the stem.

    As in RepLKNet's code: the stem; two blocks each, stage by stage, a transition with the last of the stage before
    it; the rest. RepLKNet-31B has 14 groups. In ConvNeXt, a downsampling layer belongs to the stage after it.
    """
    if name.startswith("stem"):
        return 0
    if match := re.match(r"transitions\.(\d+)\.", name):
        return _first(spec, int(match[1]) + 1) - 1
    if match := re.match(r"stages\.(\d+)\.(?:blocks\.)?(\d+)\.", name):
        return _first(spec, int(match[1])) + int(match[2]) // BLOCKS_PER_GROUP.get(spec.family, 2)
    if match := re.match(r"stages\.(\d+)\.", name):
        return _first(spec, int(match[1]))
    return layer_count(spec) - 1


def layer_count(spec: NetworkSpec) -> int:
    """The number of groups of layers."""
    return _first(spec, len(spec.B)) + 1


def _first(spec: NetworkSpec, stage: int) -> int:
    """Index of the first group of a stage."""
    return 1 + sum(math.ceil(blocks / 2) for blocks in spec.B[:stage])


# Schedules


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to `rate`, times the group's scale if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(LR_SCALE, 1.0)


def proxy_learning_rate(recipe: ProxyRecipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step counted from 0: linear warm-up, then a cosine to `final` times the peak."""
    schedule = recipe.schedule
    warmup = schedule.warmup_epochs * steps_per_epoch
    total = recipe.epochs * steps_per_epoch
    if step < warmup:
        return recipe.optimizer.lr * (step + 1) / (warmup + 1)
    if schedule.name == "constant":
        return recipe.optimizer.lr
    progress = (step - warmup) / max(1.0, total - warmup)
    return recipe.optimizer.lr * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2)


def full_scale_learning_rate(recipe: "FullScaleRecipe", step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0, by the recipe's schedule."""
    schedule = recipe.schedule
    warmup: float = schedule.warmup_epochs * steps_per_epoch
    if schedule.warmup_steps is not None:
        warmup = schedule.warmup_steps
    rate = _rate_after_warmup(recipe, step, steps_per_epoch, warmup)
    if step >= warmup:
        return rate
    if schedule.warmup == "constant":
        return rate * schedule.warmup_start
    return rate * (schedule.warmup_start * (warmup - step) + step) / warmup


def _rate_after_warmup(recipe: "FullScaleRecipe", step: int, steps_per_epoch: int, warmup: float) -> float:
    """The rate after a warm-up of `warmup` steps; within the warm-up, the rate without it."""
    schedule, peak = recipe.schedule, recipe.optimizer.lr
    total, drop = recipe.intervals * steps_per_epoch, peak - schedule.min_lr
    if schedule.name == "step":
        return peak * schedule.factor ** sum(step >= epoch * steps_per_epoch for epoch in schedule.milestones)
    if schedule.name == "poly":
        rate: float = schedule.min_lr + drop * (1 - step / total) ** schedule.power
        return rate
    if step < warmup:
        return peak
    return schedule.min_lr + drop * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
