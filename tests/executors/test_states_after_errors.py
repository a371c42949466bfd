"""The state in which each error leaves a run, and a training at full scale: one mapping for both."""

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from full_scale_cases import full_row
from tiny_runs import tiny_run

from harness import errors
from harness.errors import (
    Diverged,
    HarnessError,
    OutOfMemory,
    RunFailure,
    StateNotWritten,
    Stopped,
    TimedOut,
    UserError,
    WorkerLost,
)
from harness.executors.full_scale import raise_worker_error, write_worker_error
from harness.executors.run_job import run_job
from harness.storage import FullScaleRuns, Store
from harness.storage.full_run_recorder import recording_run
from harness.training.run import STATE_BY_ERROR, Ended, Job, RunState, state_after

STATES: list[tuple[BaseException, RunState, str | None]] = [
    (Stopped("stopped in epoch 2"), RunState.STOPPED, "stopped in epoch 2"),
    (Diverged("the training loss is nan"), RunState.DIVERGED, "the training loss is nan"),
    (OutOfMemory("needs memory"), RunState.OUT_OF_MEMORY, "needs memory"),
    (torch.OutOfMemoryError("CUDA out of memory"), RunState.OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory"),
    (MemoryError("no more"), RunState.OUT_OF_MEMORY, "MemoryError: no more"),
    (TimedOut("took longer"), RunState.TIMED_OUT, "took longer"),
    (WorkerLost("the node is gone"), RunState.LOST, "the node is gone"),
    (StateNotWritten("the disk is full"), RunState.FAILED, "the disk is full"),
    (RunFailure("no result"), RunState.FAILED, "no result"),
    (UserError("`K` must be odd"), RunState.FAILED, "`K` must be odd."),
    (HarnessError("another"), RunState.FAILED, "another"),
    (ValueError("a fault of ours"), RunState.FAILED, "ValueError: a fault of ours"),
    (KeyboardInterrupt(), RunState.STOPPED, None),
]
"""Each with the cause that is recorded."""
names = [type(error).__name__ for error, _, _ in STATES]


def kinds(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from kinds(subclass)


def test_every_failure_of_a_run_has_a_state_here() -> None:
    listed = {type(error) for error, _, _ in STATES}
    assert {kind for kind in kinds(RunFailure) if kind.__module__ == errors.__name__} <= listed
    assert STATE_BY_ERROR.keys() <= listed


@pytest.mark.parametrize(("error", "state", "cause"), STATES, ids=names)
def test_a_training_at_full_scale_ends_in_the_state(
    tmp_path: Path, error: BaseException, state: RunState, cause: str | None
) -> None:
    assert state_after(error) == state
    with pytest.raises(type(error)), recording_run(full_row(tmp_path / "run"), tmp_path / "studies.db"):
        raise error
    with Store.open(tmp_path / "studies.db", read_only=True) as store:
        (row,) = FullScaleRuns(store).all()
    assert (row.state, row.cause) == (state, cause)


@pytest.mark.parametrize(("error", "state", "cause"), STATES[:-1], ids=names[:-1])
def test_a_run_ends_in_the_state(tmp_path: Path, error: Exception, state: RunState, cause: str | None) -> None:
    """All but Ctrl-C, which ends the worker."""

    def should_stop() -> bool:
        raise error

    *_, ended = run_job(Job(tiny_run(), tmp_path / "study"), should_stop)
    assert isinstance(ended, Ended) and (ended.state, ended.cause) == (state, cause)


@pytest.mark.parametrize("error", [error for error, _, _ in STATES if isinstance(error, HarnessError)], ids=repr)
def test_a_worker_of_ray_train_passes_the_state_on(tmp_path: Path, error: HarnessError) -> None:
    write_worker_error(tmp_path, error)
    with pytest.raises(HarnessError) as caught:
        raise_worker_error(tmp_path, _failed())
    assert state_after(caught.value) == state_after(error)
    assert str(caught.value).rstrip(".") == str(error).rstrip(".")


def _failed() -> "Future[None]":
    future: Future[None] = Future()
    future.set_exception(RuntimeError("as Ray puts it"))
    return future
