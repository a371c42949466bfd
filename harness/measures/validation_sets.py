"""Evaluation of trained networks on further validation sets of generated images, shared by all networks.

The results are stored in the study's folder after every set, with all conditions they depend on: an interrupted command
continues, and a command with more sets evaluates only the new ones.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from harness.config.recipes.proxy import ProxyRecipe
from harness.data import Dataset, load
from harness.data.shapes.dataset import GENERATOR, make
from harness.errors import NotFound, UserError
from harness.models.finite import as_user_error
from harness.models.weights import read_weights, sha256
from harness.storage import RunRow
from harness.system.atomic_write import atomic_write_text
from harness.system.device_slot import computing
from harness.system.fingerprint import fingerprint
from harness.system.machine import keep_freed_memory
from harness.training.device import find_device, place_network
from harness.training.fit import validate
from harness.training.run import Job, Run

METRICS = ("val_loss", "top1")
"""The metrics of a network, in the order in which `validate` returns them."""

Values = dict[str, list[float]]
"""Values by metric, one for each set."""


def judge_runs(
    rows: Sequence[RunRow], *, sets: int, images: int, cache: Path, folder: Path, tell: Callable[[int], None]
) -> dict[str, Values]:
    """The metrics of complete runs of one recipe, by run, on `sets` validation sets of `images` images each.

    `cache` is the folder of prepared data sets, `folder` the study's; `tell` is called with the number of sets done.
    Raises `NotFound` for a run without weights, and `UserError` for logits that are not finite.
    """
    keep_freed_memory()
    recipe, files = rows[0].run.recipe, {row.id: _weights_file(row) for row in rows}
    kept = _Kept(folder / f"validation_sets_{images}.json", recipe, images, files)
    networks = {row.id: _Network(row.run, files[row.id], cache) for row in rows}
    for number in range(sets):
        waiting = [run_id for run_id in networks if kept.count(run_id) <= number]
        if waiting:
            split = make(recipe, "val", images, seed=set_seed(recipe, number), annotated=False)
            for run_id in waiting:
                kept.add(run_id, networks[run_id].judge(replace(networks[run_id].dataset, val=split)))
            kept.write()
        tell(number + 1)
    return {run_id: {name: kept.runs[run_id][name][:sets] for name in METRICS} for run_id in networks}


def set_seed(recipe: ProxyRecipe, number: int) -> int:
    """Generator seed of a further validation set; it differs from the seed of any run's images."""
    return int(fingerprint(["validation set", recipe.data_seed, number]), base=16)


def _weights_file(row: RunRow) -> Path:
    file = None if row.folder is None else Job(row.run, row.folder).checkpoint
    if file is None or not file.is_file():
        raise NotFound(
            "the weights of every run of the claim must exist",
            value=row.id,
            place=None if file is None else str(file),
            remedy="Put the checkpoints back, or train the study again with `--fresh`.",
        )
    return file


class _Network:
    """A run's trained network and its data set, loaded on first use."""

    def __init__(self, run: Run, file: Path, cache: Path) -> None:
        self._run, self._file, self._cache = run, file, cache
        self._device = find_device()

    @cached_property
    def dataset(self) -> Dataset:
        """The data set of the run; images are normalized with its statistics."""
        return load(self._run.recipe, self._cache, self._run.seed)

    @cached_property
    def _model(self) -> nn.Module:
        network = read_weights(self._file, self._run.spec).network()
        return place_network(network, self._run.recipe, self._device)

    def judge(self, dataset: Dataset) -> tuple[float, float]:
        """The values of `METRICS` on the validation images of `dataset`."""
        model = self._model
        with as_user_error(str(self._file)), computing(self._device):
            return validate(model, dataset, self._run.recipe, self._device)


class _Kept:
    """The file of stored results; values for other conditions or weights are not used."""

    def __init__(self, path: Path, recipe: ProxyRecipe, images: int, files: dict[str, Path]) -> None:
        self._path = path
        self._conditions = {"recipe": recipe.fingerprint(), "generator": GENERATOR, "images": images}
        stored = self._read()
        self.runs: dict[str, dict[str, Any]] = {}
        for run_id, file in files.items():
            empty = {"weights": sha256(file), **{name: [] for name in METRICS}}
            values = stored.get(run_id, empty)
            self.runs[run_id] = values if values["weights"] == empty["weights"] else empty
        self._other_runs = {run_id: values for run_id, values in stored.items() if run_id not in files}

    def count(self, run_id: str) -> int:
        """Number of sets that a run was evaluated on."""
        return min(len(self.runs[run_id][name]) for name in METRICS)

    def add(self, run_id: str, values: Sequence[float]) -> None:
        """Add the values of the next set."""
        for name, value in zip(METRICS, values, strict=True):
            self.runs[run_id][name].append(value)

    def write(self) -> None:
        """Write all results atomically. Raises `UserError` if the folder is not writable."""
        content = {"conditions": self._conditions, "runs": self._other_runs | self.runs}
        try:
            atomic_write_text(self._path, json.dumps(content, indent=1), is_shared=True)
        except OSError as error:
            raise UserError(f"the study's folder must be writable: {error}", place=str(self._path.parent)) from error

    def _read(self) -> dict[str, dict[str, Any]]:
        """The stored results by run; empty if the file is missing, damaged, or for other conditions."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["conditions"] != self._conditions:
                return {}
            return {
                str(run_id): {
                    "weights": str(values["weights"]),
                    **{name: list(map(float, values[name])) for name in METRICS},
                }
                for run_id, values in content["runs"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
