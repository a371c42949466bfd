"""`harness aa --validation-sets`: trained networks judged on further images, and the noise of an effect parted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_studies import INLINE, TINY, Played, called, write_study

from harness.config.recipes.proxy import ProxyRecipe
from harness.config.study_file import load_study
from harness.data import Split
from harness.data.shapes.dataset import make
from harness.measures.validation_sets import set_seed

CLAIMS = [{"name": "five_over_three", "says": "b", "contrast": {"K=[5,5,3,3]": 1, "K=3": -1}, "expect": "> 0"}]
SETS = ("--validation-sets", "10", "--images", "64", "--studies", "1000")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three pairs that is trained for real."""
    folder = tmp_path_factory.mktemp("trained")
    write_study(folder, TINY, claims=CLAIMS, search={"seeds": 3})
    result = called("run", "study.yaml", *INLINE, "--quiet", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def validation_noise(folder: Path, *options: str) -> dict[str, Any]:
    result = called("aa", "study.yaml", *SETS, "--json", *options, cwd=folder)
    assert result.returncode == 0, result.stderr
    values: dict[str, Any] = json.loads(result.stdout)
    return values


@pytest.mark.long
def test_every_pair_is_judged_on_every_set(trained: Path) -> None:
    values = validation_noise(trained)
    effects = np.array(values["effects"])
    assert effects.shape == (3, 10) and values["seeds"] == [0, 1, 2]
    assert np.allclose(effects * 64 / 100, np.round(effects * 64 / 100)), "whole images"
    assert values["effect"] == pytest.approx(effects.mean())
    assert [study["pairs"] for study in values["studies"]] == [3], "as far as there are pairs"
    assert values["studies"][0]["expected"]["own"]["coverage"] == 0.95


@pytest.mark.long
def test_the_accuracies_are_those_of_the_stored_weights_on_these_images(trained: Path) -> None:
    """Recomputed here with the network alone, for one run and one set."""
    import torch

    from harness.analysis.study_reader import open_space
    from harness.data import load
    from harness.data.augment import normalize
    from harness.models.weights import read_weights
    from harness.training.run import Job, Run

    validation_noise(trained)
    file = load_study(trained / "study.yaml")
    spec = next(iter(open_space(file).grid())).spec
    assert spec is not None
    run, recipe = Run(spec, file.study.proxy, 1), file.study.proxy
    network = read_weights(Job(run, trained / "results" / "tiny").checkpoint, spec).network()
    images = make(recipe, "val", 64, seed=set_seed(recipe, 7), annotated=False)
    logits = normalize(torch.from_numpy(np.array(images.images)), load(recipe, trained / "results" / "data", 1))
    right = network(logits).argmax(1).numpy() == images.labels
    kept = json.loads((trained / "results" / "tiny" / "validation_sets_64.json").read_text())
    assert kept["runs"][run.id]["top1"][7] == pytest.approx(100 * right.mean())


@pytest.mark.long
def test_what_was_judged_is_kept_and_continued(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.measures import validation_sets

    first = validation_noise(trained)
    made: list[int] = []

    def counted(*args: Any, seed: int, **more: Any) -> Split:
        made.append(seed)
        return make(*args, seed=seed, **more)

    monkeypatch.setattr(validation_sets, "make", counted)
    assert validation_noise(trained) == first and not made
    more = validation_noise(trained, "--validation-sets", "12")
    recipe = load_study(trained / "study.yaml").study.proxy
    assert made == [set_seed(recipe, 10), set_seed(recipe, 11)]
    assert np.array_equal(np.array(more["effects"])[:, :10], first["effects"])


@pytest.mark.long
@pytest.mark.parametrize("damage", ["{", '{"conditions": 1, "runs": {}}', "[]"])
def test_a_damaged_record_is_replaced(trained: Path, damage: str) -> None:
    first, kept = validation_noise(trained), trained / "results" / "tiny" / "validation_sets_64.json"
    kept.write_text(damage)
    assert validation_noise(trained) == first


@pytest.mark.long
def test_other_weights_are_evaluated_again(trained: Path) -> None:
    first, kept = validation_noise(trained), trained / "results" / "tiny" / "validation_sets_64.json"
    content = json.loads(kept.read_text())
    one = next(iter(content["runs"].values()))
    one["weights"], one["top1"] = "of another file", [0.0] * len(one["top1"])
    kept.write_text(json.dumps(content))
    assert validation_noise(trained) == first


@pytest.mark.long
def test_arms_of_one_network_with_two_recipes_are_told_apart(tmp_path: Path) -> None:
    contrast = {"recipe.optimizer.lr=0.2": 1, "recipe.optimizer.lr=0.1": -1}
    axes = {"K": [[5, 5, 3, 3]], "recipe.optimizer.lr": [0.1, 0.2]}
    write_study(tmp_path, TINY, axes=axes, claims=[CLAIMS[0] | {"contrast": contrast}], search={"seeds": 3})
    assert called("run", "study.yaml", *INLINE, "--quiet", cwd=tmp_path).returncode == 0
    effects = np.array(validation_noise(tmp_path)["effects"])
    assert effects.shape == (3, 10) and (effects != 0).any()


@pytest.mark.long
def test_the_view_has_both_schemes(trained: Path) -> None:
    result = called("aa", "study.yaml", *SETS, cwd=trained)
    text = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stderr
    assert "3 pairs of networks on 10 validation sets of 64 images" in text
    assert "one for all pairs" in text and "one for each pair" in text and "F test" in text


@pytest.mark.long
def test_a_run_without_its_weights_is_named(trained: Path) -> None:
    file = sorted((trained / "results" / "tiny" / "checkpoints").glob("*.pt"))[0]
    aside = file.rename(file.with_suffix(".aside"))
    result = called("aa", "study.yaml", *SETS, cwd=trained)
    aside.rename(file)
    assert result.returncode == 2 and file.name in result.stderr and "--fresh" in result.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--images", "64"), "needs `--validation-sets`"),
        (("--validation-sets", "9"), "from 10 to 1,000"),
        (("--validation-sets", "10", "--images", "100001"), "at most 100,000"),
        (("--validation-sets", "10", "--first", "4"), "at least 4 seeds"),
        (("study.yaml", "--validation-sets", "10"), "needs one study"),
    ],
)
def test_what_cannot_be_judged_is_refused(trained: Path, options: tuple[str, ...], words: str) -> None:
    kept = trained / "results" / "tiny" / "validation_sets_1000.json"
    result = called("aa", "study.yaml", *options, cwd=trained)
    assert result.returncode == 2 and words in " ".join(result.stderr.split()) and not kept.exists()


@pytest.mark.long
def test_a_claim_about_times_is_refused(tmp_path: Path) -> None:
    claims = [CLAIMS[0] | {"contrast": {"K=13": 1, "K=3": -1}, "metric": "latency_ms_p50"}]
    study = Played(tmp_path, claims=claims, axes={"K": [[3, 3, 3, 3], [13, 13, 13, 13]]}, when={})
    for _ in study.events():
        pass
    result = called("aa", "study.yaml", "--validation-sets", "10", cwd=tmp_path)
    assert result.returncode == 2 and "top1 or val_loss" in result.stderr


def test_further_sets_have_seeds_of_their_own() -> None:
    recipes = [ProxyRecipe(), ProxyRecipe(data_seed=1), ProxyRecipe(resample="none")]
    training_seeds = {recipe.image_seed(seed) for recipe in recipes for seed in range(100)}
    seeds = [set_seed(recipe, number) for recipe in recipes[:2] for number in range(100)]
    assert len(set(seeds)) == 200 and not training_seeds & set(seeds)


def test_the_shipped_study_is_sound() -> None:
    study = load_study(REPOSITORY / "search_spaces" / "validation_sets.yaml").study
    assert len(study.claims) == 1 and study.search.seeds >= 8 and study.proxy.resample == "split"
