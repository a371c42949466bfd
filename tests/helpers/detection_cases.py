"""Trainings of detectors that take a second or two."""

from pathlib import Path
from typing import Any

import torch
from tiny_runs import tiny_spec

from harness.config.recipes.detection import DetectionRecipe
from harness.models.spec.network import NetworkSpec
from harness.training.full_scale.job import FullScaleJob, FullScaleRun
from harness.training.full_scale.process_group import ProcessGroup

DETECTORS: dict[str, dict[str, Any]] = {
    "fcos": {"name": "fcos", "channels": 64},
    "mask_rcnn": {"name": "mask_rcnn", "channels": 8, "hidden": 16, "sampled": 8},
    "cascade_mask_rcnn": {"name": "cascade_mask_rcnn", "channels": 8, "hidden": 16, "sampled": 8, "loss": "giou"},
}
RECIPE: dict[str, Any] = {
    "task": "detection",
    "about": "a test",
    "data": {"dataset": "shapes", "side": 32, "difficulty": 0.0, "train_size": 10, "val_size": 8},
    "epochs": 2,
    "batch_size": 4,
    "micro_batch": 2,
    "views": {"short": [28, 32, 40], "longest": 48, "crop": 0.3, "crop_from": [32], "crop_sides": [24, 32]},
    "evaluation": {"short": 32, "longest": 48, "batch_size": 3},
    "optimizer": {"lr": 0.002, "clip_norm": 1.0},
    "schedule": {"name": "step", "milestones": [1], "warmup_steps": 1},
    "drop_path": 0.1,
    "ema": 0.8,
}
"""Two steps of two parts in each of two epochs, and 2 images left over."""
CPU = ProcessGroup(torch.device("cpu"))


def recipe_of(kind: str = "fcos", **changes: Any) -> DetectionRecipe:
    return DetectionRecipe.model_validate(RECIPE | {"detector": DETECTORS[kind]} | changes)


def job_of(folder: Path, recipe: DetectionRecipe | None = None, **fields: Any) -> FullScaleJob[DetectionRecipe]:
    recipe = recipe or recipe_of()
    spec: NetworkSpec = fields.pop("spec", None) or tiny_spec(in_channels=3, drop_path=recipe.drop_path or 0.0)
    run = FullScaleRun(spec, recipe, fields.pop("digest", None))
    return FullScaleJob(run, folder, cache=folder.parent / "data", **fields)
