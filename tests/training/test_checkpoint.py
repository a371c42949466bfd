"""A checkpoint contains its run, its records and a digest; one that fails a check is not used: the run starts over."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_run, with_

from harness.errors import StateNotWritten, UnusableState
from harness.executors.run_job import run_job
from harness.models.build import build
from harness.models.weights.files import DIGEST, content_digest
from harness.training.checkpoint import Checkpoint, read_state, write_state
from harness.training.run import Ended, Epoch, Job, Record, RunState, Started

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose cache of data sets is used by all tests."""
    return tmp_path_factory.mktemp("checkpoints")


def job_in(data: Path, name: str) -> Job:
    return Job(tiny_run(), data / name)


def trained(job: Job, epochs: int | None = None) -> list[Record]:
    """All records, or those up to an epoch, where the process is then killed."""
    records = run_job(job)
    return list(records) if epochs is None else list(itertools.islice(records, 1 + epochs))


def epochs_in(records: list[Record]) -> list[Epoch]:
    return [record for record in records if isinstance(record, Epoch)]


def curve(records: list[Record]) -> list[tuple[int, float, float, float]]:
    return [(epoch.epoch, epoch.train_loss, epoch.val_loss, epoch.top1) for epoch in epochs_in(records)]


def rewritten(path: Path, change: Change, *, is_signed: bool = True) -> None:
    """Change what a checkpoint holds; with a digest that fits, or with the old one."""
    content = torch.load(path, weights_only=True)
    change(content)
    if is_signed:
        del content[DIGEST]
        write_state(path, content)
    else:
        torch.save(content, path)


def test_a_resumed_run_yields_the_records_of_its_checkpoint_again(data: Path) -> None:
    job = job_in(data, "resumed")
    first = trained(job, epochs=2)
    started, *rest = trained(job)
    assert isinstance(started, Started) and started.first_epoch == 3 and started.notes == ()
    assert epochs_in(rest)[:2] == epochs_in(first)
    assert [epoch.epoch for epoch in epochs_in(rest)] == [1, 2, 3]
    again = trained(job)
    assert epochs_in(again) == epochs_in(rest), "a run that is trained to its end yields all of its records"


def bits(content: dict[str, Any]) -> None:
    name = next(name for name, value in content["model"].items() if value.ndim == 4)
    content["model"][name].view(-1)[0] += 0.5


def other_width(content: dict[str, Any]) -> None:
    content["model"] = build(tiny_run(C=[8, 8, 8, 8]).spec).state_dict()


CHANGES: dict[str, tuple[Change, bool, str]] = {
    "an epoch that the run does not have": (lambda c: c.update(epoch=99), True, "it is of epoch 99, and the run has 3"),
    "an epoch without its record": (lambda c: c.update(epoch=3), True, "it is of epoch 3 and has the records of 2"),
    "no epoch": (lambda c: c.update(epoch=0, epochs=[]), True, "it is of epoch 0"),
    "an epoch that was changed": (lambda c: c.update(epoch=3), False, "the digest differs"),
    "a weight that was changed": (bits, False, "the digest differs"),
    "another run": (lambda c: c.update(run="feedfacefeedface"), True, "it is of the run feedfacefeedface, not of"),
    "another network": (other_width, True, "its weights are of another network: `"),
    "no optimizer": (lambda c: c.pop("optimizer"), True, "it lacks a part"),
    "no digest": (lambda c: c.pop(DIGEST), False, "it has no digest of its content"),
    "records that are none": (lambda c: c.update(epochs=[1, 2]), True, "it lacks a part"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_that_fails_a_check_is_not_used_and_the_run_completes(name: str, data: Path) -> None:
    change, is_signed, reason = CHANGES[name]
    job = job_in(data, f"wrong {name}")
    trained(job, epochs=2)
    rewritten(job.checkpoint, change, is_signed=is_signed)
    started, *rest = trained(job)
    assert isinstance(started, Started) and started.first_epoch == 1
    (note,) = started.notes
    assert note.startswith("checkpoint not used: ") and reason in note and str(job.checkpoint) in note
    assert note in job.log.read_text()
    assert curve(rest) == curve(trained(job_in(data, "undisturbed")))
    assert isinstance(rest[-1], Ended) and rest[-1].state == RunState.COMPLETE


@pytest.mark.parametrize("at", [0.02, 0.3, 0.6, 0.9, 0.995])
def test_changed_bytes_are_found_wherever_they_are(at: float, data: Path) -> None:
    job = job_in(data, f"bytes {at}")
    trained(job, epochs=1)
    content = bytearray(job.checkpoint.read_bytes())
    first = int(at * len(content))
    content[first : first + 4000] = bytes(255 - byte for byte in content[first : first + 4000])
    job.checkpoint.write_bytes(content)
    opened = Checkpoint.open(job.checkpoint, job.run.id, epochs=3, model=build(job.run.spec))
    assert opened.epochs == [] and opened.note is not None


def test_a_single_changed_bit_of_a_weight_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    write_state(path, {"weight": torch.arange(1000.0)})
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor(500.0).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnusableState, match="digest differs"):
        read_state(path)


def test_the_digest_tells_types_shapes_and_order_apart() -> None:
    states: list[Any] = [1, 1.0, True, "1", [1], [[1]], None, [1, 2], [2, 1], torch.ones(2), torch.ones(2, 1)]
    states += [torch.ones(2, dtype=torch.int32), torch.ones((), dtype=torch.bfloat16), {"a": 1, "b": 2}, {"a": 2}]
    digests = [content_digest({"value": state}) for state in states]
    assert len(set(digests)) == len(states)
    strided = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert content_digest({"a": strided}) == content_digest({"a": strided.contiguous()})


def test_a_full_disk_ends_the_run_with_a_message_and_keeps_the_old_checkpoint(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(data, "full")
    trained(job, epochs=1)
    before = job.checkpoint.read_bytes()

    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    monkeypatch.setattr(torch, "save", full)
    *_, ended = trained(job)
    assert isinstance(ended, Ended) and ended.state == RunState.FAILED
    assert ended.cause is not None and ended.cause.startswith("the checkpoint could not be written (Pytorch")
    assert job.checkpoint.read_bytes() == before and not job.checkpoint.with_suffix(".partial").exists()
    with pytest.raises(StateNotWritten):
        write_state(job.checkpoint, {})


def test_a_checkpoint_of_another_recipe_in_its_place_is_not_used(data: Path) -> None:
    job, other = job_in(data, "own"), Job(tiny_run(recipe=with_(epochs=2)), data / "other recipe")
    trained(other)
    job.checkpoint.parent.mkdir(parents=True)
    other.checkpoint.rename(job.checkpoint)
    started = trained(job, epochs=0)[0]
    assert isinstance(started, Started) and started.first_epoch == 1 and "it is of the run" in started.notes[0]
