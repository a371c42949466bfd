"""A trained network transferred to masks: the loop, what it yields, and all of it in a run."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_loop import plain_epochs, same_weights
from tiny_runs import RECIPE, tiny_run, tiny_spec, with_
from tiny_studies import TINY, write_study
from tiny_transfers import CLASSES, TRANSFER, segmenter
from torch import Tensor, nn

from harness.analysis.run_times import images_per_run
from harness.analysis.study_reader import open_space
from harness.config.recipes.proxy import Augmentation, ProxyRecipe
from harness.config.study_file import load_study
from harness.data import DATASETS, Dataset, describe, load
from harness.errors import DataError, Diverged, Stopped
from harness.executors.run_job import run_job
from harness.models.build import build
from harness.models.heads.segmentation import SEGMENTATION_HEADS
from harness.training.fit import ProxyContext
from harness.training.metrics.segmentation import confusion_matrix, intersection_over_union, pixel_loss
from harness.training.run import Ended, Epoch, Job, Measured, Record, RunState
from harness.training.transfer import augment_masks, confusion_matrix_on, train_segmenter, transfer, transfer_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(with_(transfer={}), tmp_path_factory.mktemp("data"), 0)


def recipe_with(**changes: Any) -> ProxyRecipe:
    return with_(transfer=TRANSFER | changes)


def transferred(dataset: Dataset, recipe: ProxyRecipe, *, seed: int = 0, **fields: Any) -> dict[str, float]:
    spec = tiny_spec(**fields)
    return dict(transfer(build(spec, seed=0), spec, dataset, recipe, seed=seed, device=CPU))


def outcome(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "transfer_s"}


# The loop


def test_images_and_masks_are_turned_and_moved_together(dataset: Dataset) -> None:
    masks = torch.from_numpy(dataset.train.masks)
    images = (10 * masks)[:, None]
    batch, targets = augment_masks(
        images, masks, Augmentation(flip=True, shift=5), dataset, torch.Generator().manual_seed(0)
    )
    seen = (batch * dataset.std[0] + dataset.mean[0]) * 255 / 10
    torch.testing.assert_close(seen[:, 0], targets.float(), atol=1e-3, rtol=0)
    assert targets.dtype == torch.int64 and not torch.equal(targets, masks.long())


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=pytest.mark.long if i else ()) for i, head in enumerate(SEGMENTATION_HEADS)]
)
def test_a_tiny_network_learns_masks(tmp_path: Path, head: str) -> None:
    recipe = with_(rendering="textured", difficulty=0.0, resolution=24, train_size=192, val_size=64, transfer={})
    dataset = load(recipe, tmp_path, 0)
    masks = torch.from_numpy(dataset.val.masks)
    constant = intersection_over_union(confusion_matrix(torch.zeros_like(masks, dtype=torch.int64), masks, CLASSES))
    chance = 100 * constant.nanmean().item()

    def miou_after(epochs: int) -> float:
        changes = {"head": head, "epochs": epochs, "channels": 16, "lr": 1e-2, "finest": 2}
        return transferred(dataset, with_(recipe, transfer=changes), C=[8, 8, 16, 16])["miou"]

    short, long = miou_after(1), miou_after(6)
    assert long > 1.5 * chance and long > short + 3, (chance, short, long)


def test_a_transfer_is_bit_for_bit_what_a_plain_loop_gives(dataset: Dataset) -> None:
    recipe = with_(recipe_with(epochs=2), augmentation={"shift": 2})
    assert recipe.transfer is not None
    plan = transfer_recipe(recipe, recipe.transfer)
    model, plain = segmenter(tiny_spec(drop_path=0.2)), segmenter(tiny_spec(drop_path=0.2))
    epochs = list(train_segmenter(model, ProxyContext(dataset, plan, 3, CPU)))
    images, masks = torch.from_numpy(dataset.train.images), torch.from_numpy(dataset.train.masks)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        batch, targets = augment_masks(images[index], masks[index], plan.augmentation, dataset, generator)
        memory_format = torch.channels_last if plan.channels_last else torch.contiguous_format
        return pixel_loss(plain(batch.contiguous(memory_format=memory_format)), targets)

    losses = plain_epochs(plain, plan, loss, count=len(masks), seed=3)
    assert [epoch.train_loss for epoch in epochs] == losses
    assert same_weights(model, plain)


def test_same_seed_same_figures_other_seed_others(dataset: Dataset) -> None:
    recipe = with_(recipe_with(), augmentation={"shift": 2})
    first = transferred(dataset, recipe, drop_path=0.2)
    torch.rand(3)
    assert outcome(first) == outcome(transferred(dataset, recipe, drop_path=0.2))
    assert outcome(first) != outcome(transferred(dataset, recipe, drop_path=0.2, seed=1))
    assert first["transfer_s"] > 0


def test_figures_have_the_names_of_the_classes_and_their_mean(dataset: Dataset) -> None:
    metrics = outcome(transferred(dataset, recipe_with()))
    miou, chance = metrics.pop("miou"), metrics.pop("chance_miou")
    assert 0 < chance < 100 / 9
    assert set(metrics) == {"iou_ground", *(f"iou_{name}" for name in dataset.info.names)}
    assert all(0 <= share <= 100 for share in metrics.values())
    assert miou == pytest.approx(sum(metrics.values()) / len(metrics))


def test_the_classifier_is_left_alone(dataset: Dataset) -> None:
    spec = tiny_spec(reparam=3)
    network = build(spec, seed=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    list(transfer(network, spec, dataset, recipe_with(), seed=0, device=CPU))
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_stays_as_it_is(dataset: Dataset, frozen: bool) -> None:
    model, recipe = segmenter(frozen=frozen), recipe_with()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert recipe.transfer is not None
    list(train_segmenter(model, ProxyContext(dataset, transfer_recipe(recipe, recipe.transfer), 0, CPU)))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("decoder.") for name in changed) and "classifier.weight" in changed
    assert any(name.startswith("encoder.") for name in changed) is not frozen


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_recipes_precision_is_that_of_the_transfer(dataset: Dataset, precision: str) -> None:
    seen: list[torch.dtype] = []
    model = segmenter()
    model.classifier.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    recipe = with_(recipe_with(), precision=precision)
    assert recipe.transfer is not None
    list(train_segmenter(model, ProxyContext(dataset, transfer_recipe(recipe, recipe.transfer), 0, CPU)))
    assert set(seen) == {getattr(torch, precision)}


def test_a_loss_that_is_not_finite_ends_it(dataset: Dataset) -> None:
    with pytest.raises(Diverged, match="segmentation's loss is"):
        transferred(dataset, recipe_with(lr=1e30, epochs=3))


def test_logits_that_are_not_finite_are_no_prediction(dataset: Dataset) -> None:
    model = segmenter()
    nn.init.constant_(model.classifier.weight, torch.nan)
    with pytest.raises(Diverged, match="logits"):
        confusion_matrix_on(dataset.val, model, ProxyContext(dataset, RECIPE, 0, CPU))


def test_check_is_called_before_every_step(dataset: Dataset) -> None:
    calls = itertools.count(1)

    def check() -> None:
        if next(calls) == 6:  # four steps an epoch
            raise Stopped("enough")

    epochs = train_segmenter(segmenter(), ProxyContext(dataset, RECIPE, 0, CPU, check))
    assert next(epochs).epoch == 1
    with pytest.raises(Stopped):
        next(epochs)


# In a run


def records(folder: Path, recipe: ProxyRecipe, stop_at: int | None = None) -> list[Record]:
    """What a run yields; stopped when it is asked for the `stop_at`th time whether it should."""
    calls = itertools.count(1)
    job = Job(tiny_run(recipe=recipe), folder / "study")
    return list(run_job(job, lambda: stop_at is not None and next(calls) >= stop_at))


def measured(seen: list[Record]) -> dict[str, float]:
    """The metrics of a run, without those that are there only when a measurement was disturbed."""
    metrics = {record.name: record.value for record in seen if isinstance(record, Measured)}
    return {name: value for name, value in metrics.items() if not name.endswith(("_left_out", "_disturbed"))}


def curve(seen: list[Record]) -> Iterator[tuple[float, float]]:
    return ((record.train_loss, record.top1) for record in seen if isinstance(record, Epoch))


def test_a_run_is_measured_first_and_transferred_last(tmp_path: Path) -> None:
    without = records(tmp_path / "without", RECIPE)
    seen = records(tmp_path / "with", recipe_with())
    assert list(curve(seen)) == list(curve(without))
    names = list(measured(seen))
    assert names[: len(measured(without))] == list(measured(without))
    assert names[len(measured(without))] == "miou" and names[-1] == "transfer_s"
    assert isinstance(seen[-1], Ended) and seen[-1].state == RunState.COMPLETE


def test_a_stopped_transfer_starts_over(tmp_path: Path) -> None:
    undisturbed = measured(records(tmp_path / "other", recipe_with(epochs=2)))
    seen = records(tmp_path, recipe_with(epochs=2), stop_at=3 * 4 + 2 + 6)  # epochs, measures, transfer's second epoch
    assert isinstance(seen[-1], Ended) and seen[-1].state == RunState.STOPPED
    assert len(list(curve(seen))) == 3 and "latency_ms_p50" in measured(seen) and "miou" not in measured(seen)
    again = records(tmp_path, recipe_with(epochs=2))
    assert isinstance(again[-1], Ended) and again[-1].state == RunState.COMPLETE
    assert list(curve(again)) == list(curve(seen)), "the epochs come out of the checkpoint"
    assert measured(again)["miou"] == undisturbed["miou"]


def test_a_transfer_without_masks_is_refused(tmp_path: Path) -> None:
    recipe = with_(recipe_with(), dataset="cifar10", root=str(tmp_path), train_size=None, val_size=None)
    message = "`proxy.dataset` must have masks where `proxy.transfer` has the head deeplabv3plus, but got 'cifar10'"
    for refused in (lambda: describe(recipe), lambda: load(recipe, tmp_path, 0)):
        with pytest.raises(DataError, match=message) as raised:
            refused()
        assert raised.value.remedy == "With masks: shapes."


def test_a_study_file_that_asks_for_it_is_refused_with_its_line(tmp_path: Path) -> None:
    proxy = TINY["proxy"] | {"dataset": "imagefolder", "root": str(tmp_path), "transfer": {"head": "upernet"}}
    write_study(tmp_path, TINY | {"proxy": proxy})
    with pytest.raises(DataError, match=r"study\.yaml:\d+"):
        open_space(load_study(tmp_path / "study.yaml"))


def test_a_transfer_from_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="`train_size` must be at least 2"):
        with_(recipe_with(), train_size=1)


def test_a_transfer_is_part_of_the_recipe_and_of_its_fingerprint() -> None:
    assert with_(transfer=None).fingerprint() == RECIPE.fingerprint()
    assert len({RECIPE.fingerprint(), with_(transfer={}).fingerprint(), recipe_with().fingerprint()}) == 3


def test_the_table_lists_which_data_can_be_learned_downstream(dataset: Dataset) -> None:
    annotated = {name: source.annotations for name, source in DATASETS.items() if source.annotations}
    assert annotated == {"shapes": ("masks", "boxes")}
    for split in (dataset.train, dataset.val):
        assert split.masks is not None and split.boxes is not None


def test_a_plan_counts_the_images_of_a_transfer() -> None:
    plain, more = images_per_run(RECIPE), images_per_run(recipe_with(epochs=2))
    assert plain is not None and more is not None
    assert more - plain == 2 * 3 * 64 + 8 * 32
