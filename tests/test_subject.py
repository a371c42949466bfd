"""Which network the command line means where a training at full scale left several, and mistakes about it."""

from pathlib import Path

import pytest
import torch
from full_scale_cases import epochs_of, job_of, trained

from harness.errors import UserError
from harness.full_folder import EPOCHS, NETWORK, RECIPE, WEIGHTS
from harness.scale_up.logs import read_epochs
from harness.scale_up.records import FullEpoch
from harness.scaling import describe
from harness.subject import Origin, find_subject
from harness.weights import read_weights

Training = tuple[Path, list[FullEpoch]]
"""The folder of a training, and its epochs."""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Of two epochs, with a moving average."""
    job = job_of(tmp_path_factory.mktemp("full") / "net-0123")
    describe(job)
    return job.folder, epochs_of(trained(job))


@pytest.mark.parametrize("which", [None, *WEIGHTS])
def test_the_folder_of_a_training_gives_the_weights_that_are_asked_for(training: Training, which: str | None) -> None:
    folder, _ = training
    found = find_subject(str(folder), which=which)
    file = folder / WEIGHTS[which or "best"]
    expected = read_weights(file).entries
    assert all(torch.equal(value, expected[name]) for name, value in found.model.state_dict().items())
    assert (found.origin, found.file, found.is_merged) == (Origin.TRAINING, file, False)
    assert found.name == f"net-0123/{file.stem}" and not found.model.training
    assert found.full_recipe is not None and found.full_recipe.resolution == 16
    assert found.source["source"] in found.about and "epoch" in found.about


def test_a_file_in_such_a_folder_knows_its_training(training: Training) -> None:
    found = find_subject(str(training[0] / WEIGHTS["last"]))
    assert found.full_recipe is not None and found.name == "net-0123/last"


def test_what_a_training_logged_is_read_back(training: Training, tmp_path: Path) -> None:
    folder, epochs = training
    assert read_epochs(folder) == epochs and len(epochs) == 2
    assert read_epochs(tmp_path) == []
    (tmp_path / EPOCHS).write_text('{"epoch": 1}\n')
    assert read_epochs(tmp_path) == []


def test_what_is_not_there_is_told_with_what_is(training: Training, tmp_path: Path) -> None:
    def said(named: Path | str, which: str | None = None) -> str:
        with pytest.raises(UserError) as caught:
            find_subject(str(named), which=which)
        return str(caught.value)

    assert "must be that of a training" in said(tmp_path)
    assert "of a training at full scale alone" in said("replknet_nano", "last")
    for name in (NETWORK, RECIPE):
        (tmp_path / name).write_text((training[0] / name).read_text())
    assert "no epoch behind it" in said(tmp_path)
    (tmp_path / WEIGHTS["best"]).write_bytes((training[0] / WEIGHTS["best"]).read_bytes())
    assert find_subject(str(tmp_path)).spec == find_subject(str(training[0])).spec
    assert "There are: best." in said(tmp_path, "last-ema")
