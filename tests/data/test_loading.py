"""Images are read ahead by processes that live on, over epochs and validations, and always in the same order."""

import gc
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from full_scale_cases import CPU, job_of, recipe_of
from torch.utils.data import Dataset

from harness.config.recipes.full_scale import ClassificationRecipe
from harness.data.batching import BatchPlan
from harness.data.loading import BatchReader, step_batches
from harness.training.tasks.classification import ClassificationTask

KEYS = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


class KeyItems(Dataset[tuple[object, int, int]]):
    """Each item tells its key, and the process that reads it."""

    def __getitem__(self, key: object) -> tuple[object, int, int]:
        return key, os.getpid(), 0


def collated(items: list[tuple[object, int, int]]) -> tuple[list[object], set[int], torch.Tensor]:
    keys, processes, passed = zip(*items, strict=True)
    return list(keys), set(processes), torch.tensor(passed)


@pytest.mark.parametrize("loaders", [0, 1, 2])
def test_readings_follow_each_other_in_the_same_processes(loaders: int) -> None:
    reader = BatchReader(KeyItems(), loaders, collated)
    seen = []
    for _ in range(3):
        batches = list(reader.read(KEYS))
        assert [keys for keys, _, _ in batches] == KEYS
        seen.append(set().union(*(processes for _, processes, _ in batches)))
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == max(1, loaders)
    assert (os.getpid() in seen[0]) == (loaders == 0)


@pytest.mark.parametrize("loaders", [0, 2])
def test_a_reading_may_be_broken_off(loaders: int) -> None:
    reader = BatchReader(KeyItems(), loaders, collated)
    broken = reader.read(KEYS)
    assert next(broken)[0] == KEYS[0]
    broken.close()
    assert [keys for keys, _, _ in reader.read(KEYS[::-1])] == KEYS[::-1]


def test_parts_are_asked_for_as_they_are_needed() -> None:
    requests = 0

    def endless() -> Iterator[list[int]]:
        nonlocal requests
        while True:
            requests += 1
            yield [requests]

    batches = BatchReader(KeyItems(), 1, collated).read(endless())
    assert [next(batches)[0] for _ in range(3)] == [[1], [2], [3]]
    assert 3 <= requests < 10


def test_processes_end_with_their_reader() -> None:
    reader = BatchReader(KeyItems(), 2, collated)
    processes = set().union(*(readers for _, readers, _ in reader.read(KEYS)))
    assert {child.pid for child in multiprocessing.active_children()} >= processes
    del reader
    gc.collect()
    deadline = time.monotonic() + 10
    while {child.pid for child in multiprocessing.active_children()} & processes:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_stream_of_a_training_goes_over_all_its_epochs() -> None:
    recipe = recipe_of(epochs=3)
    batch_plan = BatchPlan.of(recipe, 40, 1)  # 2 steps of 2 parts of 8 images, and 8 images left over
    whole = [keys for keys, _, _ in _read(recipe, batch_plan, epoch=1, first_step=0)]
    assert len(whole) == 12 and [{number for number, _ in part} for part in whole] == [{1}] * 4 + [{2}] * 4 + [{3}] * 4
    for epoch in range(3):
        images = [i for part in whole[4 * epoch : 4 * epoch + 4] for _, i in part]
        assert len(set(images)) == 32 and set(images) < set(range(40))
    assert [keys for keys, _, _ in _read(recipe, batch_plan, epoch=2, first_step=1)] == whole[6:]


class Endless(ClassificationRecipe):
    """Counts its steps, whatever the number of images."""

    @property
    def is_iteration_based(self) -> bool:
        return True

    def steps_per_interval(self, images: int) -> int:  # noqa: ARG002
        return 3


def test_endless_passes_leave_no_image_out() -> None:
    recipe = Endless.model_validate(recipe_of(epochs=4, batch_size=16, micro_batch=16).model_dump())
    batch_plan = BatchPlan.of(recipe, 20, 1)
    parts = [keys for keys, _, _ in _read(recipe, batch_plan, epoch=1, first_step=0)]
    stream = [key for part in parts for key in part]
    assert len(stream) == 4 * 3 * 16
    for number in range(1, 10):
        assert sorted(i for n, i in stream if n == number) == list(range(20))
    assert [keys for keys, _, _ in _read(recipe, batch_plan, epoch=3, first_step=2)] == parts[8:]


def _read(
    recipe: ClassificationRecipe, batch_plan: BatchPlan, *, epoch: int, first_step: int
) -> Iterator[tuple[list[tuple[int, int]], ...]]:
    return step_batches(
        KeyItems(), recipe, batch_plan, epoch=epoch, rank=0, first_step=first_step, loaders=0, collate=collated
    )


def test_both_validations_of_an_epoch_are_read_by_the_same_processes(tmp_path: Path) -> None:
    task = ClassificationTask(job_of(tmp_path / "run", loaders=1), CPU)
    model, _ = task.build()
    scores, children = [], []
    for _ in range(2):
        scores.append(task.validate(model))
        children.append({child.pid for child in multiprocessing.active_children()})
    assert scores[0] == scores[1] and scores[0] is not None
    assert len(children[0] & children[1]) >= 1
