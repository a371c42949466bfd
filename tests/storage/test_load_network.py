"""Which network the command line means where a training at full scale left several, and mistakes about it."""

import shutil
from pathlib import Path

import pytest
import torch
from folder_data import write_folder, write_folder_study
from full_scale_cases import epochs_of, job_of, trained
from tiny_studies import INLINE, called

from harness.analysis.networks import load_network
from harness.errors import UserError
from harness.models.weights import read_weights
from harness.storage.load_network import WeightsOrigin, class_names
from harness.training.full_scale.folder import EPOCHS, NETWORK, RECIPE, WEIGHTS
from harness.training.full_scale.messages import FullScaleEpoch, read_epochs
from harness.training.full_scale.records import write_description

Training = tuple[Path, list[FullScaleEpoch]]
"""The folder of a training, and its epochs."""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Of two epochs, with a moving average."""
    job = job_of(tmp_path_factory.mktemp("full") / "net-0123")
    write_description(job)
    return job.folder, epochs_of(trained(job))


@pytest.mark.parametrize("which", [None, *WEIGHTS])
def test_the_folder_of_a_training_gives_the_weights_that_are_asked_for(training: Training, which: str | None) -> None:
    folder, _ = training
    network = load_network(str(folder), which=which)
    file = folder / WEIGHTS[which or "best"]
    expected = read_weights(file).entries
    assert all(torch.equal(value, expected[name]) for name, value in network.model.state_dict().items())
    assert (network.origin, network.file, network.is_merged) == (WeightsOrigin.TRAINING, file, False)
    assert network.name == f"net-0123/{file.stem}" and not network.model.training
    assert network.full_recipe is not None and network.full_recipe.resolution == 16
    assert network.source["source"] in network.about and "epoch" in network.about


def test_a_file_in_such_a_folder_is_of_its_training(training: Training) -> None:
    network = load_network(str(training[0] / WEIGHTS["last"]))
    assert network.full_recipe is not None and network.name == "net-0123/last"


def test_what_a_training_logged_is_read_back(training: Training, tmp_path: Path) -> None:
    folder, epochs = training
    assert read_epochs(folder) == epochs and len(epochs) == 2
    assert read_epochs(tmp_path) == []
    (tmp_path / EPOCHS).write_text('{"epoch": 1}\n')
    assert read_epochs(tmp_path) == []


# Runs


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run on classes whose numbers were sorted as texts, as an earlier version did."""
    folder = tmp_path_factory.mktemp("numbered")
    path = write_folder_study(folder / "pets.yaml", write_folder(folder / "images", ("1", "2", "10")), seeds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.data.image_folder.label_order", sorted)
        result = called("run", path, "--quiet", *INLINE, cwd=folder)
    assert result.returncode == 0, result.stderr
    return min((folder / "results" / "pets" / "checkpoints").glob("*.pt"))


@pytest.mark.long
def test_the_classes_of_a_run_are_in_the_order_that_it_was_trained_with(numbered: Path, tmp_path: Path) -> None:
    assert class_names(load_network(str(numbered))) == ("1", "10", "2")
    results = Path(shutil.copytree(numbered.parents[2], tmp_path / "results"))
    (results / "pets" / "data.json").unlink()
    copied = results / "pets" / "checkpoints" / numbered.name
    assert class_names(load_network(str(copied))) is None, "the folder's classes are in another order today"
    result = called("evaluate", numbered, cwd=tmp_path)
    assert result.returncode == 2 and "the data set must be the one of the run" in result.stderr


def test_a_checkpoint_under_the_name_of_another_run_is_refused(numbered: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(numbered.parents[2], tmp_path / "results"))
    one, other = sorted((results / "pets" / "checkpoints").glob("*.pt"))
    shutil.copy(one, other)
    for command in (("evaluate", other), ("export", other), ("erf", other)):
        result = called(*command, cwd=tmp_path)
        assert result.returncode == 2 and "must have the name of its run" in result.stderr, result.stderr
        assert one.stem in result.stderr and other.name in result.stderr


def test_images_of_a_run_of_an_earlier_recipe_are_not_those_of_now(
    numbered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.config.recipes.proxy.REVISION", 99)
    result = called("evaluate", numbered, cwd=tmp_path)
    assert result.returncode == 2 and "an earlier version trained this one" in result.stderr, result.stderr


def test_what_is_missing_is_reported_with_what_exists(training: Training, tmp_path: Path) -> None:
    def refusal(named: Path | str, which: str | None = None) -> str:
        with pytest.raises(UserError) as caught:
            load_network(str(named), which=which)
        return str(caught.value)

    assert "must be that of a training" in refusal(tmp_path)
    assert "with the folder of a training at full scale" in refusal("replknet_nano", "last")
    for name in (NETWORK, RECIPE):
        (tmp_path / name).write_text((training[0] / name).read_text())
    assert "not completed an epoch" in refusal(tmp_path)
    (tmp_path / WEIGHTS["best"]).write_bytes((training[0] / WEIGHTS["best"]).read_bytes())
    assert load_network(str(tmp_path)).spec == load_network(str(training[0])).spec
    assert "There are: best." in refusal(tmp_path, "last-ema")
