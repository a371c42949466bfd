"""A training at full scale learns, resumes at any step as if undisturbed, and writes the files that it should."""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from full_scale_cases import (
    CPU,
    epochs_of,
    full_spec,
    job_of,
    outcome,
    recipe_of,
    trained,
    write_folder,
)
from full_scale_states import after, equal, last_state
from safetensors import safe_open

from harness.errors import Diverged, Stopped, UserError
from harness.models.build import build, merge
from harness.models.weights import load_weights, read_weights
from harness.training.checkpoint import read_state
from harness.training.environment import Environment
from harness.training.full_scale import timer
from harness.training.full_scale.messages import (
    FullScaleEpoch,
    FullScaleMessage,
    Message,
    StepProgress,
    from_plain,
    to_plain,
)
from harness.training.full_scale.records import earlier_environments, read_environments, record_environment
from harness.training.full_scale.worker import run_worker
from harness.training.run import Started

HELPERS = Path(__file__).parents[1] / "helpers"

Whole = tuple[Path, list[FullScaleEpoch]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An undisturbed training: its folder, and its epochs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, epochs_of(trained(job_of(folder)))


def test_one_record_per_epoch_with_scores_of_network_and_average(whole: Whole) -> None:
    _, epochs = whole
    assert [(epoch.epoch, epoch.epochs, epoch.steps) for epoch in epochs] == [(1, 2, 2), (2, 2, 4)]
    for epoch in epochs:
        assert epoch.val is not None and epoch.ema is not None and epoch.val != epoch.ema
        assert 0 <= epoch.val["top1"] <= epoch.val["top5"] <= 100
        assert 0 < epoch.waiting < 1 and epoch.images_per_s > 0 and epoch.train_s < epoch.wall_s
    assert epochs[0].is_best


@pytest.mark.long
def test_learns_to_tell_easy_shapes_apart(tmp_path: Path) -> None:
    recipe = recipe_of(
        data={"dataset": "shapes", "difficulty": 0.0, "train_size": 256, "val_size": 64},
        resolution=32,
        epochs=12,
        batch_size=32,
        micro_batch=32,
        augmentation={"crop_scale": [0.8, 1.0]},
        evaluation={"crop": 1.0},
        optimizer={"lr": 0.01},
        drop_path=None,
        ema=None,
    )
    job = job_of(tmp_path / "run", recipe, spec=full_spec(recipe, C=[8, 8, 16, 16], K=7))
    epochs = epochs_of(trained(job))
    assert epochs[-1].train_loss < epochs[0].train_loss - 0.2
    assert max(epoch.val["top1"] for epoch in epochs if epoch.val) > 4 * 12.5  # of chance
    assert all(epoch.ema is None for epoch in epochs)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_resumes_bitwise_from_any_step(whole: Whole, tmp_path: Path, step: int) -> None:
    folder, undisturbed = whole
    job = job_of(tmp_path / "parts")
    with pytest.raises(Stopped, match="steps"):
        trained(job, after(step))
    rest = trained(job)
    (message,) = [record for record in rest if isinstance(record, Message)]
    assert message.text.startswith(f"resuming in epoch {1 + step // 2} after {step % 2} steps")
    lines = (job.folder / "epochs.jsonl").read_text().splitlines()
    epochs_done = [from_plain(json.loads(line) | {"kind": "epoch"}) for line in lines]
    assert outcome([epoch for epoch in epochs_done if isinstance(epoch, FullScaleEpoch)]) == outcome(undisturbed)
    assert equal(last_state(job.folder), last_state(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"name": "sgd", "lr": 0.1, "layer_decay": 0.5, "clip_norm": 1.0}, "ema": None},
        {"precision": "bfloat16", "checkpointing": True, "augmentation": {}, "channels_last": False},
    ],
)
def test_so_do_other_recipes(tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = recipe_of(**changes)
    trained(job_of(tmp_path / "whole", recipe))
    job = job_of(tmp_path / "parts", recipe)
    with pytest.raises(Stopped):
        trained(job, after(3))
    trained(job)
    assert equal(last_state(job.folder), last_state(tmp_path / "whole"))


@pytest.mark.long
def test_a_killed_training_resumes_bitwise(tmp_path: Path) -> None:
    """Whenever the kill comes, behind some checkpoint within the first epoch or later."""
    recipe = recipe_of(epochs=3, save_minutes=1e-9, keep_last=20)
    code = (
        "import sys; from pathlib import Path; from full_scale_cases import job_of, recipe_of, trained; "
        "trained(job_of(Path(sys.argv[1]), recipe_of(epochs=3, save_minutes=1e-9, keep_last=20)))"
    )
    job = job_of(tmp_path / "parts", recipe)
    with subprocess.Popen([sys.executable, "-c", code, str(job.folder)], cwd=HELPERS) as process:
        deadline = time.monotonic() + 100
        while not (job.checkpoints / "epoch-0001-step-000001.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    trained(job)
    trained(job_of(tmp_path / "whole", recipe))
    assert equal(last_state(job.folder), last_state(tmp_path / "whole"))


def test_a_damaged_state_gives_way_to_the_one_before_and_a_finished_training_has_nothing_to_do(tmp_path: Path) -> None:
    job = job_of(tmp_path / "run")
    trained(job)
    state = last_state(job.folder)
    assert epochs_of(trained(job)) == []
    max(job.checkpoints.glob("*.pt")).write_bytes(b"torn")
    assert [epoch.epoch for epoch in epochs_of(trained(job))] == [2]
    assert equal(last_state(job.folder), state)


def test_another_seed_gives_other_bits(whole: Whole, tmp_path: Path) -> None:
    assert outcome(epochs_of(trained(job_of(tmp_path / "run", recipe_of(seed=1))))) != outcome(whole[1])


def test_the_last_states_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    job = job_of(tmp_path / "run", recipe_of(epochs=4, keep_last=2))
    epochs = epochs_of(trained(job))
    assert [path.name for path in sorted(job.checkpoints.iterdir())] == [f"epoch-000{n}-step-000000.pt" for n in (4, 5)]
    best = max(epochs, key=lambda epoch: epoch.value or 0)
    assert [epoch.epoch for epoch in epochs if epoch.is_best][-1] == best.epoch
    for name in ("best", "last", "last_ema"):
        spec, model = load_weights(job.folder / f"{name}.safetensors")
        assert spec == job.run.spec and not model.training
    state = last_state(job.folder)
    last = read_weights(job.folder / "last.safetensors").entries
    average = read_weights(job.folder / "last_ema.safetensors").entries
    assert equal(last, dict(state["model"])) and equal(average, dict(state["ema"])) and not equal(last, average)


def test_files_for_tensorboard_and_a_line_for_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "PROGRESS_EVERY_S", 0.0)
    job = job_of(tmp_path / "run")
    records = trained(job)
    pulses = [record for record in records if isinstance(record, StepProgress)]
    assert [(progress.epoch, progress.step, progress.steps) for progress in pulses] == [
        (1, 1, 2),
        (1, 2, 2),
        (2, 1, 2),
        (2, 2, 2),
    ]
    assert all(progress.left_s > 0 and 0 < progress.waiting < 1 for progress in pulses[:-1])
    lines = [json.loads(line) for line in (job.folder / "epochs.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2] and lines[0]["val"]["top5"] >= lines[0]["val"]["top1"]
    (events,) = (job.folder / "tensorboard").glob("events.out.tfevents.*")
    content = events.read_bytes()
    for tag in (b"epoch/val_top1", b"epoch/ema_top1", b"step/loss", b"epoch/waiting"):
        assert tag in content


def test_records_travel_as_json(whole: Whole) -> None:
    started = Started("host", 1, "cpu", 1, {"torch": "2.15.0"}, epochs=2)
    records: list[FullScaleMessage] = [
        *whole[1],
        started,
        Message("hear"),
        StepProgress(1, 2, 3, 0.5, 0.1, 9.0, 0.01, 60.0),
    ]
    assert [from_plain(json.loads(json.dumps(to_plain(record)))) for record in records] == records


def test_gathered_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    """In a network without batch norms, whose parts know nothing of each other."""
    changes: dict[str, Any] = {"augmentation": {}, "drop_path": None, "ema": None, "epochs": 1}
    changes |= {"schedule": {"warmup_epochs": 0.0}, "optimizer": {"name": "sgd", "lr": 0.05}}
    outcomes = []
    for micro in (4, 16):
        recipe = recipe_of(micro_batch=micro, **changes)
        spec = full_spec(recipe, family="convnext", K=3)
        (epoch,) = epochs_of(trained(job_of(tmp_path / str(micro), recipe, spec=spec)))
        outcomes.append((epoch.train_loss, last_state(tmp_path / str(micro))["model"]))
    (loss, weights), (whole_loss, whole_weights) = outcomes
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert all(torch.allclose(weights[name], whole_weights[name], atol=1e-5) for name in weights)


def test_the_moving_average_moves_by_its_decay(tmp_path: Path) -> None:
    job = job_of(tmp_path / "run", recipe_of(save_minutes=1e-9, keep_last=9, epochs=1, schedule={"warmup_epochs": 0}))
    trained(job)
    states = [read_state(path) for path in sorted(job.checkpoints.iterdir())]
    for before, now in itertools.pairwise(states):
        assert before is not None and now is not None
        expected = {name: 0.8 * before["ema"][name] + 0.2 * value for name, value in now["model"].items()}
        assert all(
            torch.allclose(now["ema"][name], value, atol=1e-6)
            for name, value in expected.items()
            if value.is_floating_point() and "num_batches" not in name
        )


def test_starts_from_weights_and_makes_a_new_classifier_for_other_classes(tmp_path: Path) -> None:
    first = job_of(tmp_path / "first", recipe_of(epochs=1))
    trained(first)
    root = write_folder(tmp_path / "images", train=8, val=4)
    recipe = recipe_of(
        data={"dataset": "imagefolder"},
        batch_size=8,
        epochs=1,
        optimizer={"lr": 1e-9},
        schedule={"warmup_epochs": 0, "min_lr": 0.0},
    )
    file = first.folder / "last.safetensors"
    job = job_of(tmp_path / "second", recipe, spec=full_spec(recipe, classes=3), root=root, weights=file)
    records = trained(job)
    assert records[0] == Message("a fresh classifier for 3 classes; the weights are for 8")
    before, now = read_weights(file).entries, read_weights(job.folder / "last.safetensors").entries
    assert now["head.weight"].shape[0] == 3
    assert torch.allclose(now["stem.0.conv.weight"], before["stem.0.conv.weight"], atol=1e-6)


def test_merged_weights_cannot_be_trained(tmp_path: Path) -> None:
    recipe = recipe_of()
    spec = full_spec(recipe, K=5, reparam=3)
    merged = tmp_path / "merged.pth"
    torch.save(merge(build(spec, seed=0).eval()).state_dict(), merged)
    with pytest.raises(UserError, match="training form"):
        trained(job_of(tmp_path / "run", recipe, spec=spec, weights=merged))


def test_trains_on_a_folder_without_validation(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images", val=0)
    recipe = recipe_of(
        data={"dataset": "imagefolder", "has_val": False}, batch_size=8, epochs=1, schedule={"warmup_epochs": 0}
    )
    job = job_of(tmp_path / "run", recipe, spec=full_spec(recipe, classes=3), root=root, loaders=1)
    (epoch,) = epochs_of(trained(job))
    assert epoch.val is None and epoch.ema is None and epoch.value is None
    assert epoch.is_best and job.best.is_file()


def test_a_loss_that_is_not_finite_ends_it_at_once(tmp_path: Path) -> None:
    recipe = recipe_of(optimizer={"name": "sgd", "lr": 1e15, "weight_decay": 1e15}, schedule={"warmup_epochs": 0})
    with pytest.raises(Diverged, match="epoch 1, step 2"):
        trained(job_of(tmp_path / "run", recipe))


def test_checkpointing_needs_a_network_that_can(tmp_path: Path) -> None:
    recipe = recipe_of(checkpointing=True)
    job = job_of(tmp_path / "run", recipe, spec=full_spec(recipe, family="convnext"))
    with pytest.raises(UserError, match="`checkpointing` needs"):
        trained(job)


def test_the_id_follows_from_all_that_decides() -> None:
    run = job_of(Path("a")).run
    others = [
        replace(run, weights="d"),
        replace(run, recipe=recipe_of(seed=3)),
        replace(run, spec=full_spec(run.recipe, K=5)),
    ]
    assert len({run.id, *(other.id for other in others)}) == 4
    assert replace(run, recipe=recipe_of(keep_last=7)).id == run.id


def test_saved_weights_record_where_they_come_from(tmp_path: Path) -> None:
    job = job_of(tmp_path / "run", recipe_of(epochs=1, schedule={"warmup_epochs": 0}))
    records = run_worker(job, CPU)
    assert isinstance(next(records), Started) and isinstance(next(records), FullScaleEpoch)
    with safe_open(job.best, framework="pt") as file:
        assert file.metadata()["source"].startswith(f"{job.run.id}, ")


def test_a_training_resumed_in_another_environment_is_marked_and_keeps_both(tmp_path: Path) -> None:
    job = job_of(tmp_path / "t", recipe_of(epochs=2))
    seen: list[FullScaleMessage] = []
    with pytest.raises(Stopped):
        for record in run_worker(
            job, CPU, should_stop=lambda: any(isinstance(message, FullScaleEpoch) for message in seen)
        ):
            seen.append(record)  # noqa: PERF402 (its length is asked meanwhile)
    path = job.folder / "environments.json"
    (kept,) = json.loads(path.read_text())
    assert kept["epoch"] == 1
    kept["environment"] |= {"operator": "a1b2", "torch": "2.14"}
    path.write_text(json.dumps([kept]))
    notes = [record.text for record in trained(job) if isinstance(record, Message)]
    assert any("another environment (before: operator revision a1b2, torch 2.14)" in text for text in notes)
    assert [(entry["epoch"], entry["environment"]["operator"] == "a1b2") for entry in json.loads(path.read_text())] == [
        (1, True),
        (2, False),
    ]
    assert [environment and environment.torch for environment in earlier_environments(job.folder)] == ["2.14"]
    assert not any("another environment" in str(record) for record in trained(job))
    finished = path.read_text()
    path.write_text(finished.replace('"torch": "', '"torch": "0.'))
    elsewhere = path.read_text()
    assert not any("another environment" in str(record) for record in trained(job))
    assert path.read_text() == elsewhere, "of a training that is at its end, nothing is computed here"


def test_a_training_of_before_environments_were_kept_is_resumed_from_an_unknown_one(tmp_path: Path) -> None:
    environment = Environment(operator="a1b2")
    (message,) = record_environment(tmp_path, environment, 3, is_resumed=True)
    assert "(before: unknown environment" in message.text
    assert read_environments(tmp_path) == [(1, None), (3, environment)]
    assert list(record_environment(tmp_path, environment, 4, is_resumed=True)) == []
    assert len(read_environments(tmp_path)) == 2
