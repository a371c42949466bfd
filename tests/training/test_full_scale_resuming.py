"""What a training at full scale is resumed from is held against what it should be: its states, weights and data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cifar_folders import as_python_2, batch, write_cifar10
from coco_folders import CATEGORIES, read_json, write_coco, write_json
from detection_cases import DETECTORS
from detection_cases import RECIPE as DETECTION
from full_scale_cases import RECIPE, epochs_of, job_of, outcome, recipe_of, trained, write_folder
from PIL import Image
from safetensors.torch import load_file
from segmentation_cases import SEGMENTATION, write_ade20k
from tiny_studies import CommandResult, called

from harness.errors import UserError, WeightsError
from harness.models.weights import read_weights
from harness.models.weights.files import DIGEST, read_metadata
from harness.training.checkpoint import read_state, write_state
from harness.training.full_scale import loop
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import FullScaleEpoch, Message

SPEC = {"B": 1, "C": [4, 4, 8, 8], "K": 3, "stem_stride": 2}
Whole = tuple[FullScaleJob[Any], list[FullScaleEpoch]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An undisturbed training of three epochs."""
    job = job_of(tmp_path_factory.mktemp("whole") / "run", recipe_of(epochs=3))
    return job, epochs_of(trained(job))


@pytest.fixture
def copied(whole: Whole, tmp_path: Path) -> FullScaleJob[Any]:
    """The same training in a folder of its own, with its data."""
    shutil.copytree(whole[0].folder, tmp_path / "run")
    return FullScaleJob(whole[0].run, tmp_path / "run", cache=whole[0].cache)


def notes_of(records: list[Any]) -> str:
    return "\n".join(record.text for record in records if isinstance(record, Message))


def newest_of(job: FullScaleJob[Any]) -> Path:
    return max(job.checkpoints.glob("*.pt"))


def changed(path: Path, change: Callable[[dict[str, Any]], None], *, is_signed: bool = True) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    if is_signed:
        del content[DIGEST]
        write_state(path, content)
    else:
        torch.save(content, path)


def a_weight(content: dict[str, Any]) -> None:
    next(value for value in content["model"].values() if value.ndim == 4)[0].mul_(1.001)


STATES: dict[str, tuple[Callable[[dict[str, Any]], None], bool, str]] = {
    "a weight": (a_weight, False, "the digest differs"),
    "the epoch": (lambda c: c["progress"].update(epoch=99), False, "the digest differs"),
    "an epoch beyond the last": (lambda c: c["progress"].update(epoch=99), True, "it is in epoch 99 after 0 steps"),
    "an epoch without records": (lambda c: c.update(epochs=[]), True, "has the records of 0 epochs"),
    "steps beyond the last": (lambda c: c["progress"].update(step=77), True, "after 77 steps"),
    "another training": (lambda c: c.update(run="f" * 16), True, "it is of the training ffff"),
    "a part less": (lambda c: c.pop("scaler"), True, "it lacks a part"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", STATES)
def test_a_state_that_fails_a_check_is_reported_and_set_aside(
    name: str, whole: Whole, copied: FullScaleJob[Any]
) -> None:
    change, is_signed, reason = STATES[name]
    path = newest_of(copied)
    changed(path, change, is_signed=is_signed)
    records = trained(copied)
    assert reason in notes_of(records) and str(path) in notes_of(records)
    assert [epoch.epoch for epoch in epochs_of(records)] == [3]
    assert outcome(epochs_of(records)) == outcome(whole[1][2:])
    assert path.with_name(f"{path.name}.unusable").exists() and read_state(path) is not None
    assert epochs_of(trained(copied)) == [], "trained to its end, and nothing stands in the way"


def test_where_all_states_are_wrong_the_training_starts_over_and_completes(
    whole: Whole, copied: FullScaleJob[Any]
) -> None:
    for path in copied.checkpoints.iterdir():
        path.write_bytes(path.read_bytes()[:-4000] + bytes(4000))
    records = trained(copied)
    assert "no state of this training can be used; it starts again" in notes_of(records)
    assert outcome(epochs_of(records)) == outcome(whole[1])
    assert epochs_of(trained(copied)) == []


def test_a_state_of_an_earlier_version_is_used(whole: Whole, copied: FullScaleJob[Any]) -> None:
    newest_of(copied).unlink()
    changed(newest_of(copied), lambda content: content.pop(DIGEST), is_signed=False)
    records = trained(copied)
    assert outcome(epochs_of(records)) == outcome(whole[1][2:]) and "not used" not in notes_of(records)


def test_the_state_of_another_network_is_refused_before_anything_is_restored(copied: FullScaleJob[Any]) -> None:
    def wider(content: dict[str, Any]) -> None:
        content["model"] = {
            name: torch.cat([value, value]) if value.ndim else value for name, value in content["model"].items()
        }

    changed(newest_of(copied), wider)
    with pytest.raises(UserError, match=r"with the network and data that it began with.*has the shape") as refused:
        trained(copied)
    assert refused.value.place == str(newest_of(copied)) and "`--fresh`" in str(refused.value)


def test_best_weights_that_a_crash_left_out_are_written_again(
    tmp_path: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FullScaleJob(whole[0].run, tmp_path / "run", cache=whole[0].cache)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "keep_best", killed)
        trained(job)
    assert not job.best.exists()
    rest = trained(job)
    assert [epoch.epoch for epoch in epochs_of(rest)] == [2, 3]
    best = [epoch.epoch for epoch in whole[1] if epoch.is_best][-1]
    assert read_metadata(job.best)["source"].endswith(f"after epoch {best}")
    assert all(torch.equal(a, load_file(whole[0].best)[name]) for name, a in load_file(job.best).items())


def test_missing_best_weights_are_reported(copied: FullScaleJob[Any], whole: Whole) -> None:
    copied.best.unlink()
    records = trained(copied)
    best = [epoch.epoch for epoch in whole[1] if epoch.is_best][-1]
    assert copied.best.exists() if best == 3 else f"which is epoch {best}" in notes_of(records)


def test_changed_weights_are_refused(copied: FullScaleJob[Any]) -> None:
    content = bytearray(copied.best.read_bytes())
    content[-100] ^= 255
    copied.best.write_bytes(content)
    with pytest.raises(WeightsError, match="the digest stored in it differs"):
        read_weights(copied.best)


# The data, from the command line


def write(folder: Path, recipe: dict[str, Any]) -> None:
    (folder / "net.yaml").write_text(yaml.safe_dump(SPEC))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def train(folder: Path, data: str, *more: str) -> CommandResult:
    options = ("--recipe", "recipe.yaml", "--loaders", "0", "--data", data)
    return called("train", "net.yaml", *options, *more, cwd=folder)


def only(folder: Path, kind: str = "full_scale") -> Path:
    (path,) = (path for path in (folder / "results" / kind).iterdir() if path.is_dir())
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FOLDERS = RECIPE | {"data": {"dataset": "imagefolder"}, "epochs": 2, "batch_size": 8}


@pytest.fixture
def two_folders(tmp_path: Path) -> Path:
    """A folder with a finished training on `A`, and with `B`, whose images are of as many classes with other names."""
    write(tmp_path, FOLDERS)
    write_folder(tmp_path / "A")
    write_folder(tmp_path / "B")
    for split in ("train", "val"):
        for path in sorted((tmp_path / "B" / split).iterdir()):
            path.rename(path.with_name(f"other {path.name[-1]}"))
    assert train(tmp_path, "A").returncode == 0
    return tmp_path


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_other_data_are_refused_and_nothing_is_overwritten(two_folders: Path, more: tuple[str, ...]) -> None:
    before = contents(only(two_folders))
    result = train(two_folders, "B", *more)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    for words in ("must be resumed with the data that it began with", str(two_folders / "A"), str(two_folders / "B")):
        assert words in result.stderr
    assert "n00000000" in result.stderr and "other 0" in result.stderr and "--fresh" in result.stderr
    assert contents(only(two_folders)) == before
    assert json.loads((only(two_folders) / "classes.json").read_text())[0] == "n00000000"


@pytest.mark.long
def test_other_data_are_trained_on_in_another_folder_or_from_the_start(two_folders: Path) -> None:
    assert train(two_folders, "B", "--results", "others").returncode == 0
    assert train(two_folders, "B", "--fresh").returncode == 0
    assert json.loads((only(two_folders) / "classes.json").read_text())[0] == "other 0"
    assert train(two_folders, "A").returncode == 2


def test_data_that_were_moved_or_are_spelled_otherwise_are_the_same(two_folders: Path) -> None:
    (two_folders / "A").rename(two_folders / "elsewhere")
    (two_folders / "link").symlink_to("elsewhere")
    for path in (two_folders / "elsewhere").rglob("*.JPEG"):
        path.touch()
    for data in ("elsewhere", "./link/../elsewhere/", "link"):
        result = train(two_folders, data)
        assert result.returncode == 0 and "trained to its last epoch already" in result.stdout, result.stderr


def relabeled(root: Path) -> None:
    (root / "train/n00000000/n00000000_0.JPEG").rename(root / "train/n00000001/n00000000_0.JPEG")


def image_more(root: Path) -> None:
    shutil.copy(root / "val/n00000000/n00000000_0.JPEG", root / "val/n00000000/more.JPEG")


def other_pixels(root: Path) -> None:
    path = root / "train/n00000002/n00000002_1.JPEG"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("change", [relabeled, image_more, other_pixels])
def test_data_that_were_changed_in_place_are_other_data(change: Callable[[Path], None], two_folders: Path) -> None:
    change(two_folders / "A")
    result = train(two_folders, "A")
    assert result.returncode == 2 and "must be resumed with the data that it began with" in result.stderr


def test_a_training_without_a_record_compares_its_classes_and_reports_what_it_records(two_folders: Path) -> None:
    (only(two_folders) / "data.json").unlink()
    assert train(two_folders, "B").returncode == 2
    result = train(two_folders, "A")
    assert (
        result.returncode == 0 and "an earlier version began this training and did not record its data" in result.stderr
    )
    assert "warning" not in train(two_folders, "A").stderr


def test_a_training_that_lost_its_states_is_not_trained_over(two_folders: Path) -> None:
    shutil.rmtree(only(two_folders) / "checkpoints")
    before = contents(only(two_folders))
    result = train(two_folders, "A")
    assert result.returncode == 2 and "must have a state to be resumed from" in result.stderr
    assert contents(only(two_folders)) == before
    assert train(two_folders, "A", "--fresh").returncode == 0


def test_cifar_is_distinguished_by_its_content(tmp_path: Path) -> None:
    write(tmp_path, FOLDERS | {"data": {"dataset": "cifar10"}, "epochs": 1, "resolution": 32})
    (tmp_path / "A").mkdir()
    write_cifar10(tmp_path / "A")
    assert train(tmp_path, "A").returncode == 0
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    assert train(tmp_path, "B").returncode == 0
    (tmp_path / "B/cifar-10-batches-py/data_batch_2").write_bytes(as_python_2(batch(77, 20, 10)))
    assert train(tmp_path, "B").returncode == 2


def downstream(folder: Path, task: str, data: Path) -> CommandResult:
    options = ("--recipe", "recipe.yaml", "--loaders", "0", "--data", data)
    return called("downstream", task, "net.yaml", *options, cwd=folder)


@pytest.mark.long
def test_a_detector_is_not_resumed_on_other_figures(tmp_path: Path) -> None:
    write(tmp_path, DETECTION | {"detector": DETECTORS["fcos"], "data": {"dataset": "coco"}, "epochs": 1})
    plain = write_coco(tmp_path / "plain")
    assert downstream(tmp_path, "detect", plain).returncode == 0
    before = contents(only(tmp_path, "downstream"))
    renamed = write_coco(tmp_path / "renamed", categories=[{"id": 3, "name": "ball"}, {"id": 17, "name": "box"}])
    three = write_coco(tmp_path / "three", categories=[*CATEGORIES, {"id": 20, "name": "blue"}])
    moved = write_coco(tmp_path / "moved")
    content = read_json(moved)
    content["annotations"][0]["bbox"][0] += 1
    write_json(moved, "train2017", content)
    for data in (renamed, three, moved):
        result = downstream(tmp_path, "detect", data)
        assert result.returncode == 2 and "must be resumed with the data that it began with" in result.stderr, (
            result.stderr
        )
        assert "Traceback" not in result.stderr and contents(only(tmp_path, "downstream")) == before
    (only(tmp_path, "downstream") / "data.json").unlink()  # as of an earlier version
    result = downstream(tmp_path, "detect", three)
    assert result.returncode == 2 and "red, green" in result.stderr and "blue" in result.stderr
    (only(tmp_path, "downstream") / "best.safetensors").unlink()  # interrupted in its first epoch
    (only(tmp_path, "downstream") / "classes.json").unlink()
    result = downstream(tmp_path, "detect", three)
    assert result.returncode == 2 and "of the last state, its weights are of another network" in result.stderr


def test_a_segmentation_is_not_resumed_on_other_masks(tmp_path: Path) -> None:
    views = SEGMENTATION["views"] | {"short": 24}
    write(tmp_path, SEGMENTATION | {"data": {"dataset": "ade20k"}, "iterations": 3, "batch_size": 4, "views": views})
    root = write_ade20k(tmp_path / "ade")
    assert downstream(tmp_path, "segment", root).returncode == 0
    mask = sorted((root / "annotations" / "training").iterdir())[0]
    pixels = np.asarray(Image.open(mask)).copy()
    pixels[0] = 7
    Image.fromarray(pixels).save(mask)
    result = downstream(tmp_path, "segment", root)
    assert result.returncode == 2 and "must be resumed with the data that it began with" in result.stderr
