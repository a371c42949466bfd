"""Optimizer with optional layer-wise learning rate decay, and learning rate schedule of full-scale training."""

import math
import re

import torch
from torch import nn

from harness.config.recipes.full_scale import FullScaleRecipe
from harness.models.spec.network import NetworkSpec
from harness.training.fit import without_compiler_wrappers

BLOCKS_PER_GROUP = {"replknet": 4}
"""Number of modules `stages.S.blocks.J` in a group of layers, if not 2: a RepLKNet block consists of two."""
LR_SCALE = "lr_scale"
"""Key of a parameter group for the factor of the scheduled learning rate; timm's name."""


def build_full_scale_optimizer(
    model: nn.Module, spec: NetworkSpec, recipe: FullScaleRecipe, backbone: str = ""
) -> torch.optim.Optimizer:
    """AdamW or SGD, with a parameter group for each weight decay and learning rate scale."""
    config, groups = recipe.optimizer, parameter_groups(model, spec, recipe, backbone)
    if config.name == "sgd":
        return without_compiler_wrappers(torch.optim.SGD)(groups, lr=config.lr, momentum=config.momentum, fused=True)
    beta1, beta2 = config.betas
    return without_compiler_wrappers(torch.optim.AdamW)(
        groups, lr=config.lr, betas=(beta1, beta2), eps=config.eps, fused=True
    )


def parameter_groups(
    model: nn.Module, spec: NetworkSpec, recipe: FullScaleRecipe, backbone: str = ""
) -> list[dict[str, object]]:
    """Parameter groups by depth and weight decay; vectors have no decay. Without layer decay, all have one depth.

    `backbone` is the name of the network within the model; parameters outside it belong to the last group.
    """
    config, layers, prefix = recipe.optimizer, layer_count(spec), f"{backbone}." if backbone else ""
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_last = config.layer_decay == 1 or not name.startswith(prefix)
        depth = layers - 1 if is_last else layer_of(name.removeprefix(prefix), spec)
        groups.setdefault((depth, parameter.ndim > 1), []).append(parameter)
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


def full_scale_learning_rate(recipe: FullScaleRecipe, step: int, steps_per_epoch: int) -> float:
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


def _rate_after_warmup(recipe: FullScaleRecipe, step: int, steps_per_epoch: int, warmup: float) -> float:
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


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to `rate` times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[LR_SCALE]
