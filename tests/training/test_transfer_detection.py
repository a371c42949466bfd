"""A trained network as the backbone of a detector: boxes that move with their images, FCOS on our maps, AP."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_statistics import randomize
from tiny_runs import RECIPE, tiny_run, tiny_spec, with_
from tiny_studies import TINY, write_study
from tiny_transfers import DETECTION, detector, small_spec
from torch import Tensor, nn

from harness.analysis.study_reader import open_space
from harness.config.recipes.proxy import Augmentation, ProxyRecipe, Transfer
from harness.config.study_file import load_study
from harness.data import Dataset, describe, load
from harness.data.augment import FlipShift
from harness.errors import DataError, Diverged, Stopped, StudyError
from harness.executors.run_job import run_job
from harness.models.build import build, merge
from harness.models.heads.detection import FCOSDetector
from harness.models.spec.family import FAMILIES
from harness.training.fit import ProxyContext
from harness.training.metrics.detection import average_precision
from harness.training.run import Ended, Job, Measured, RunState
from harness.training.transfer import (
    augment_boxes,
    detection_targets,
    predict_split,
    train_detector,
    transfer,
    transfer_recipe,
)

CPU = torch.device("cpu")
EVERY_STEM = [(name, stride) for name, family in FAMILIES.items() for stride in family.stem_strides]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(recipe_with(), tmp_path_factory.mktemp("data"), 0)


def recipe_with(recipe: ProxyRecipe = RECIPE, **changes: Any) -> ProxyRecipe:
    return with_(recipe, transfer=DETECTION | changes)


def plan_of(recipe: ProxyRecipe) -> ProxyRecipe:
    assert recipe.transfer is not None
    return transfer_recipe(recipe, recipe.transfer)


def transferred(dataset: Dataset, recipe: ProxyRecipe, *, seed: int = 0, **fields: Any) -> dict[str, float]:
    spec = tiny_spec(**fields)
    metrics = dict(transfer(build(spec, seed=0), spec, dataset, recipe, seed=seed, device=CPU))
    assert metrics.pop("transfer_s") > 0
    return metrics


def one(box: list[float], label: int, score: float | None = None) -> dict[str, Tensor]:
    scores = {} if score is None else {"scores": torch.tensor([score])}
    return {"boxes": torch.tensor([box]), "labels": torch.tensor([label]), **scores}


def together(*targets: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([boxes[name] for boxes in targets]) for name in targets[0]}


# Average precision


def test_average_precision_by_hand() -> None:
    left, right = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]
    truth = [together(one(left, 0), one(right, 1)), together(one(left, 0), one(right, 2))]
    detections = [
        together(one(left, 0, 0.9), one(left, 1, 0.9), one(right, 1, 0.5), one(right, 3, 0.9)),
        one([0.0, 0.0, 10.0, 7.8], 0, 0.8),
    ]
    metrics = dict(average_precision(detections, truth, ("a", "b", "c", "d")))
    half_recalled = 51 / 101  # the 101 recalls from 0 to 1 at which COCO looks, of which one half is reached
    assert metrics == pytest.approx(
        {
            "ap_a": 100 * (6 + 4 * half_recalled) / 10,  # overlaps 1 and 0.78: both count up to a threshold of 0.75
            "ap_b": 50.0,  # a better scored one is wrong
            "ap_c": 0.0,  # not found; of `d`, only found, there is no AP
            "ap": (100 * (6 + 4 * half_recalled) / 10 + 50) / 3,
            "ap50": 50.0,
            "ap75": 50.0,
        },
        rel=1e-5,
    )
    assert list(metrics)[:3] == ["ap", "ap50", "ap75"]


def test_nothing_found_is_nothing_right_and_nothing_there_is_no_figure() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    one_there = [one([0.0, 0.0, 10.0, 10.0], 0)]
    assert dict(average_precision([nothing], one_there, ("a",))) == {"ap": 0, "ap50": 0, "ap75": 0, "ap_a": 0}
    truth = {name: value for name, value in nothing.items() if name != "scores"}
    assert dict(average_precision([one([0.0, 0.0, 10.0, 10.0], 0, 0.9)], [truth], ("a",))) == {}


# Boxes


def test_boxes_are_turned_and_moved_with_their_images() -> None:
    rng = torch.Generator().manual_seed(0)
    height, width, count = 24, 30, 64
    corners = torch.stack([torch.randint(8, 13, (count,), generator=rng) for _ in range(4)], dim=1)
    boxes = corners + torch.tensor([0, 0, 6, 5])
    masks = torch.zeros(count, 1, height, width)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
        mask[0, y0:y1, x0:x1] = 1
    augmentation = FlipShift.draw(count, Augmentation(flip=True, shift=5), rng)
    assert augmentation.is_flipped is not None and 0 < augmentation.is_flipped.sum() < count
    moved = augmentation.boxes(boxes, height, width)
    for mask, box in zip(augmentation.images(masks)[:, 0], moved.tolist(), strict=True):
        y, x = mask.nonzero().T
        assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    assert moved.dtype == torch.int64 and not torch.equal(moved, boxes)


def test_a_box_is_cut_at_the_border_and_left_out_when_it_is_outside() -> None:
    boxes = torch.tensor([[1, 2, 5, 6]] * 4)
    augmentation = FlipShift(is_flipped=None, offsets=torch.tensor([[0, -3], [5, 0], [0, -5], [-9, 9]]))
    moved = augmentation.boxes(boxes, 8, 10)
    assert moved[:2].tolist() == [[0, 2, 2, 6], [1, 7, 5, 8]]
    seen = detection_targets(moved, torch.tensor([3, 4, 5, 6]))
    assert [target["labels"].tolist() for target in seen] == [[3], [4], [], []]
    assert [target["boxes"].shape for target in seen] == [(1, 4), (1, 4), (0, 4), (0, 4)]
    assert seen[0]["boxes"].dtype == torch.float32


def test_nothing_asked_for_moves_nothing(dataset: Dataset) -> None:
    images, boxes = torch.from_numpy(dataset.train.images), torch.from_numpy(dataset.train.boxes)
    off = Augmentation(flip=False, shift=0)
    batch, same = augment_boxes(images, boxes, off, dataset, torch.Generator())
    assert torch.equal(boxes, same) and batch.dtype == torch.float32


# The detector


@pytest.mark.parametrize(("family", "stem_stride"), EVERY_STEM)
def test_every_family_learns_to_detect_at_odd_sizes(family: str, stem_stride: int) -> None:
    model = detector(small_spec(family, stem_stride))
    x = torch.randn(2, 1, 37, 45).contiguous(memory_format=torch.channels_last)
    losses = model(x, [one([5.0, 6.0, 30.0, 34.0], 3), {name: value[:0] for name, value in one([0.0] * 4, 0).items()}])
    assert set(losses) == {"classification", "bbox_regression", "bbox_ctrness"}
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    first = next(model.backbone.encoder.network.parameters())
    assert first.grad is not None and first.grad.abs().max() > 0
    predictions = model.eval()(x)
    assert len(predictions) == 2 and all(prediction["boxes"].isfinite().all() for prediction in predictions)


def test_images_are_taken_as_they_come() -> None:
    model = detector().eval()
    seen: list[Tensor] = []
    model.backbone.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(3, 1, 17, 40)
    with torch.no_grad():
        model(x)
    assert len(seen) == 1 and torch.equal(seen[0], x)


def test_every_pixel_of_a_map_corresponds_to_its_square_of_the_image() -> None:
    model = detector(small_spec("replknet", 4)).eval()
    cells: list[list[Tensor]] = []
    model.anchor_generator.register_forward_hook(lambda *seen: cells.append(seen[-1]))
    with torch.no_grad():
        model(torch.randn(2, 1, 37, 45))
    first, second = cells[0]
    assert torch.equal(first, second)
    levels = torch.split(first, [10 * 12, 5 * 6, 3 * 3, 2 * 2])
    assert levels[0][[0, 1, 12]].tolist() == [[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8]]
    assert levels[3].tolist() == [[0, 0, 32, 32], [32, 0, 64, 32], [0, 32, 32, 64], [32, 32, 64, 64]]


def test_boxes_found_lie_in_the_image_and_carry_classes_and_scores() -> None:
    model = detector().eval()
    nn.init.constant_(model.head.classification_head.cls_logits.bias, 1.0)
    with torch.no_grad():
        predictions = model(torch.randn(2, 1, 20, 32))
    for prediction in predictions:
        assert 0 < len(prediction["boxes"]) <= 100
        assert prediction["boxes"].min() >= 0
        assert prediction["boxes"][:, 2].max() <= 32 and prediction["boxes"][:, 3].max() <= 20
        assert set(prediction["labels"].tolist()) <= set(range(8))
        assert prediction["scores"].tolist() == sorted(prediction["scores"].tolist(), reverse=True)


def test_what_was_trained_unmerged_is_merged_last_without_a_change() -> None:
    model = detector(small_spec("replknet", 2)).double()
    randomize(model, seed=0)
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    merged = merge(model.eval())
    assert len(list(merged.parameters())) < len(list(model.parameters()))
    torch.testing.assert_close(merged.backbone(x), model.backbone(x), rtol=1e-10, atol=1e-10)


# The loop


@pytest.mark.long
def test_a_tiny_network_learns_boxes(tmp_path: Path) -> None:
    recipe = with_(rendering="textured", difficulty=0.0, resolution=24, train_size=192, val_size=64, transfer={})
    dataset = load(recipe, tmp_path, 0)
    changes = recipe_with(recipe, epochs=5, lr=1e-2, finest=2)
    trained_metrics = transferred(dataset, changes, C=[8, 8, 16, 16])

    untrained = detector(tiny_spec(C=[8, 8, 16, 16]), finest=2)
    detections, truth = predict_split(dataset.val, untrained, ProxyContext(dataset, recipe, 0, CPU))
    random = dict(average_precision(detections, truth, dataset.info.names))
    mean_box = torch.from_numpy(dataset.train.boxes).float().mean(dim=0)
    every_class = {"boxes": mean_box.expand(8, 4), "scores": torch.ones(8), "labels": torch.arange(8)}
    constant = dict(average_precision([every_class] * len(truth), truth, dataset.info.names))
    assert trained_metrics["ap"] > 1.3 * max(random["ap"], constant["ap"]), (trained_metrics, random, constant)
    assert trained_metrics["ap50"] > trained_metrics["ap"]


def test_same_seed_same_losses_other_seed_others(dataset: Dataset) -> None:
    plan = plan_of(with_(recipe_with(), augmentation={"shift": 2}))

    def loss(seed: int) -> float:
        torch.rand(3)
        (epoch,) = train_detector(detector(tiny_spec(drop_path=0.2)), ProxyContext(dataset, plan, seed, CPU))
        return epoch.train_loss

    first = loss(0)
    assert first == loss(0)
    assert first != loss(1)


@pytest.mark.long
def test_figures_have_the_names_of_the_classes_and_their_mean(dataset: Dataset) -> None:
    metrics = transferred(dataset, recipe_with())
    by_class = [metrics[f"ap_{name}"] for name in dataset.info.names]
    assert set(metrics) == {"ap", "ap50", "ap75", *(f"ap_{name}" for name in dataset.info.names)}
    assert all(0 <= share <= 100 for share in metrics.values())
    assert metrics["ap"] == pytest.approx(sum(by_class) / len(by_class), rel=1e-4)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_stays_as_it_is(dataset: Dataset, frozen: bool) -> None:
    model = detector(frozen=frozen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(train_detector(model, ProxyContext(dataset, plan_of(recipe_with()), 0, CPU)))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"backbone", "head"}
    assert any(name.startswith("backbone.pyramid.") for name in changed)
    assert any(name.startswith("backbone.encoder.") for name in changed) is not frozen


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_recipes_precision_is_that_of_the_transfer(dataset: Dataset, precision: str) -> None:
    inside: set[torch.dtype] = set()
    outside: set[torch.dtype] = set()
    model = detector()
    model.head.classification_head.register_forward_hook(lambda *seen: inside.add(seen[-1].dtype))
    model.head.register_forward_hook(lambda *seen: outside.update(output.dtype for output in seen[-1].values()))
    list(train_detector(model, ProxyContext(dataset, plan_of(with_(recipe_with(), precision=precision)), 0, CPU)))
    assert inside == {getattr(torch, precision)} and outside == {torch.float32}


def test_a_loss_that_is_not_finite_ends_it(dataset: Dataset) -> None:
    with pytest.raises(Diverged, match="detection's loss is"):
        transferred(dataset, recipe_with(lr=1e30, epochs=3))


def test_outputs_that_are_not_finite_are_no_prediction(dataset: Dataset) -> None:
    model = detector()
    nn.init.constant_(model.head.regression_head.bbox_ctrness.weight, torch.nan)
    with pytest.raises(Diverged, match="outputs"):
        predict_split(dataset.val, model, ProxyContext(dataset, RECIPE, 0, CPU))


def test_check_is_called_before_every_step(dataset: Dataset) -> None:
    calls = itertools.count(1)

    def check() -> None:
        if next(calls) == 6:  # four steps an epoch
            raise Stopped("enough")

    epochs = train_detector(detector(), ProxyContext(dataset, RECIPE, 0, CPU, check))
    assert next(epochs).epoch == 1
    with pytest.raises(Stopped):
        next(epochs)


# In a run and in a study file


@pytest.mark.long
def test_a_run_ends_with_the_detection(tmp_path: Path) -> None:
    records = list(run_job(Job(tiny_run(recipe=recipe_with()), tmp_path / "study")))
    names = [record.name for record in records if isinstance(record, Measured)]
    assert names[names.index("ap") :][:3] == ["ap", "ap50", "ap75"]
    assert names[-1] == "transfer_s" and "miou" not in names
    assert isinstance(records[-1], Ended) and records[-1].state == RunState.COMPLETE


def test_a_detection_without_boxes_is_refused(tmp_path: Path) -> None:
    recipe = with_(recipe_with(), dataset="cifar10", root=str(tmp_path), train_size=None, val_size=None)
    refused: list[Callable[[], object]] = [lambda: describe(recipe), lambda: load(recipe, tmp_path, 0)]
    for refuse in refused:
        with pytest.raises(DataError, match=r"must have boxes where .* has the head fcos, but got 'cifar10'") as raised:
            refuse()
        assert raised.value.remedy == "With boxes: shapes."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfer": {"head": "fcos", "channels": 24}}, r"`proxy.transfer.channels` must be a multiple of 32"),
        ({"transfer": {"head": "ssd"}}, r"`proxy.transfer.head` must be one of .*'fcos'"),
    ],
)
def test_a_wrong_head_in_a_study_file_is_refused_with_the_choices(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_study(tmp_path, TINY | {"proxy": TINY["proxy"] | changes})
    with pytest.raises(StudyError, match=message + r".*study\.yaml:\d+"):
        load_study(tmp_path / "study.yaml")


def test_a_study_file_on_data_without_boxes_is_refused_with_its_line(tmp_path: Path) -> None:
    proxy = TINY["proxy"] | {"dataset": "imagefolder", "root": str(tmp_path), "transfer": {"head": "fcos"}}
    write_study(tmp_path, TINY | {"proxy": proxy})
    with pytest.raises(DataError, match=r"boxes.*study\.yaml:\d+"):
        open_space(load_study(tmp_path / "study.yaml"))


def test_the_head_is_part_of_the_recipe_and_nothing_else_of_it_changed() -> None:
    assert with_(transfer={"head": "fcos"}).canonical()["transfer"] == {"head": "fcos"}
    assert with_(transfer={"epochs": 2}).canonical()["transfer"] == {"epochs": 2}
    fingerprints = {with_(transfer={"head": head}).fingerprint() for head in ("fcos", "upernet", "deeplabv3plus")}
    assert len(fingerprints) == 3
    assert {Transfer(head=head).learns for head in ("deeplabv3plus", "upernet")} == {"masks"}


def test_a_detector_is_torchvisions() -> None:
    model = detector()
    assert isinstance(model, FCOSDetector)
    assert model.center_sampling_radius == 1.5 and model.nms_thresh == 0.6 and model.detections_per_img == 100
