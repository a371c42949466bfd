"""Trainings at full scale that take a second: a tiny network, a recipe with every part, images of `shapes`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from tiny_runs import tiny_spec
from tiny_studies import CommandResult, called

from harness.config.recipes.full_scale import ClassificationRecipe, FullScaleRecipe
from harness.models.spec.network import NetworkSpec
from harness.storage import FullScaleRow
from harness.training.full_scale.job import FullScaleJob, FullScaleRun
from harness.training.full_scale.messages import FullScaleEpoch, FullScaleMessage
from harness.training.full_scale.process_group import ProcessGroup
from harness.training.full_scale.worker import run_worker

RECIPE: dict[str, Any] = {
    "about": "a test",
    "data": {"dataset": "shapes", "train_size": 40, "val_size": 24},
    "resolution": 16,
    "epochs": 2,
    "batch_size": 16,
    "micro_batch": 8,
    "optimizer": {"lr": 0.003},
    "schedule": {"warmup_epochs": 0.5},
    "augmentation": {
        "randaugment": "rand-m5-mstd0.5-inc1",
        "erasing": 0.25,
        "mixup": 0.4,
        "cutmix": 0.4,
        "color_jitter": 0.2,
    },
    "drop_path": 0.2,
    "ema": 0.8,
}
"""Two steps of two parts in each of two epochs, and 8 images left over."""
CPU = ProcessGroup(torch.device("cpu"))


def recipe_of(**changes: Any) -> ClassificationRecipe:
    return ClassificationRecipe.model_validate(RECIPE | changes)


def job_of(
    folder: Path, recipe: ClassificationRecipe | None = None, **fields: Any
) -> FullScaleJob[ClassificationRecipe]:
    """A training of a tiny network; its data are in the parent of its folder."""
    recipe = recipe or recipe_of()
    spec = fields.pop("spec", None) or full_spec(recipe)
    return FullScaleJob(FullScaleRun(spec, recipe), folder, cache=folder.parent / "data", **fields)


def full_spec(recipe: FullScaleRecipe, **fields: Any) -> NetworkSpec:
    return tiny_spec(in_channels=3, drop_path=recipe.drop_path or 0.0, **fields)


def trained(job: FullScaleJob[Any], should_stop: Callable[[], bool] = lambda: False) -> list[FullScaleMessage]:
    return list(run_worker(job, CPU, should_stop=should_stop))


def epochs_of(records: list[FullScaleMessage]) -> list[FullScaleEpoch]:
    return [record for record in records if isinstance(record, FullScaleEpoch)]


def outcome(epochs: list[FullScaleEpoch]) -> list[tuple[Any, ...]]:
    """What must not depend on when a training was interrupted."""
    return [(epoch.epoch, epoch.train_loss, epoch.val, epoch.ema, epoch.lr, epoch.is_best) for epoch in epochs]


def write_folder(root: Path, *, train: int = 8, val: int = 4, classes: int = 3, side: int = 24) -> Path:
    """Images in ImageNet's layout, a colour for every class."""
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            for i, image in enumerate(_pictures(label, count, side)):
                image.save(folder / f"n{label:08d}_{i}.JPEG")
    return root


def _pictures(label: int, count: int, side: int) -> Iterator[Image.Image]:
    rng = np.random.default_rng(label)
    for i in range(count):
        pixels = rng.integers(0, 60, (side + i, side, 3)).astype(np.uint8)
        pixels[:, :, label % 3] += 180
        yield Image.fromarray(pixels)


def full_row(folder: Path, **fields: Any) -> FullScaleRow:
    """A training as the results database has it."""
    run = job_of(folder).run
    defaults: dict[str, Any] = {
        "id": run.id,
        "name": "net",
        "spec": run.spec,
        "recipe": run.recipe.model_dump(mode="json"),
        "recipe_name": "recipe",
        "recipe_fingerprint": run.recipe.fingerprint(),
        "folder": folder,
        "epochs": run.recipe.intervals,
    }
    return FullScaleRow(**defaults | fields)


# On the command line


def write(folder: Path, recipe: dict[str, Any] = RECIPE) -> None:
    """The files of a training, `net.yaml` and `recipe.yaml`."""
    (folder / "net.yaml").write_text(yaml.safe_dump({"B": 1, "C": [4, 4, 8, 8], "K": 3, "stem_stride": 2}))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def train(folder: Path, *options: str | Path) -> CommandResult:
    """`harness train` in this process."""
    return called("train", "net.yaml", "--recipe", "recipe.yaml", *options, cwd=folder)


def folder_of(results: Path) -> Path:
    """The folder of the only training at full scale."""
    (path,) = (path for path in (results / "full_scale").iterdir() if path.is_dir())
    return path
