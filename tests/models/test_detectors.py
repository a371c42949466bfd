"""Mask R-CNN and Cascade R-CNN on our networks: their parts against torchvision's, the cascade stage by stage."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_detectors import CLASSES, KINDS, SIDE, fit, lit_rectangles, target, tiny_detector, truth_of
from tiny_runs import tiny_spec
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou

from harness.errors import Diverged
from harness.models.build import build, merge
from harness.models.heads.detection import (
    CASCADE,
    RCNN,
    SINGLE_STAGE,
    Cascade,
    FCOSDetector,
    apply_deltas,
    apply_deltas_to_sample,
)
from harness.models.heads.encoder import Encoder
from harness.models.heads.feature_pyramid import BoxAnchors, ExtraLevels, FeaturePyramid, PadToBatch
from harness.models.heads.roi_heads import RCNNStage, RoIHeadsConfig, RoIPooler, StageSample, Targets
from harness.models.spec.presets import PRESETS
from harness.training.metrics.detection import detection_metrics
from harness.training.tasks.detection import to_image_coordinates

SIZES = [(SIDE, SIDE), (SIDE, SIDE)]


def pyramid_of(above: ExtraLevels = "pool", channels: int = 16, **fields: Any) -> FeaturePyramid:
    spec = tiny_spec(in_channels=3, **fields)
    torch.manual_seed(0)
    return FeaturePyramid(Encoder(build(spec), spec, finest=4), channels, above)


def maps_of(pyramid: FeaturePyramid) -> dict[str, Tensor]:
    with torch.no_grad():
        maps: dict[str, Tensor] = pyramid.eval()(torch.randn(2, 3, SIDE, SIDE))
    return maps


def cascade(**heads: Any) -> tuple[Cascade, dict[str, Tensor]]:
    pyramid = pyramid_of()
    return Cascade(pyramid, RoIHeadsConfig(CLASSES, **({"hidden": 32} | heads)), CASCADE), maps_of(pyramid)


def proposals(count: int = 60) -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    corners = 30 * torch.rand(2, count, 2, generator=rng)
    sides = 4 + 14 * torch.rand(2, count, 2, generator=rng)
    return list(torch.cat([corners, corners + sides], dim=2))


def targets() -> Targets:
    """As the heads have them: the ground is class 0."""
    image_targets = [target([[4, 4, 24, 20], [20, 22, 44, 40]], [0, 2]), target([[10, 8, 30, 36]], [1])]
    return [target | {"labels": target["labels"] + 1} for target in image_targets]


# The pyramid, and the positions of its pixels


@pytest.mark.parametrize(
    ("above", "strides"), [("nothing", [4, 8, 16]), ("pool", [4, 8, 16, 32]), ("convolutions", [4, 8, 16, 32, 64])]
)
def test_levels_above_the_network(above: ExtraLevels, strides: list[int]) -> None:
    pyramid = pyramid_of(above)
    maps = pyramid(torch.randn(1, 3, 128, 64))
    assert pyramid.strides == strides
    assert [tuple(feature_map.shape[2:]) for feature_map in maps.values()] == [
        (128 // stride, 64 // stride) for stride in strides
    ]
    assert {feature_map.shape[1] for feature_map in maps.values()} == {16}


def test_anchors_have_the_strides_that_the_maps_have() -> None:
    images = ImageList(torch.zeros(2, 3, 96, 96), [(96, 96)] * 2)
    maps = [torch.zeros(2, 1, 3, 3, dtype=torch.bfloat16), torch.zeros(2, 1, 2, 2, dtype=torch.bfloat16)]
    first, second = BoxAnchors([32, 64], 8.0)(images, maps)
    assert torch.equal(first, second) and first.dtype == torch.float32 and len(first) == 3 * (9 + 4)
    middles = (first[1::3, :2] + first[1::3, 2:]) / 2  # of the square ones
    rows = [[x, y] for y in (0.0, 32.0, 64.0) for x in (0.0, 32.0, 64.0)]
    assert middles.tolist() == [*rows, *([x, y] for y in (0.0, 64.0) for x in (0.0, 64.0))]
    sides = first[:, 2:] - first[:, :2]
    assert sides[1].tolist() == [256, 256] and sides[-2].tolist() == [512, 512]


def test_boxes_are_looked_at_where_they_are_whatever_the_image_was_padded_to() -> None:
    pyramid = pyramid_of()
    pool = RoIPooler(pyramid, 1)
    maps = {"4": torch.arange(16.0).view(1, 1, 4, 4), "8": torch.zeros(1, 1, 2, 2), "16": torch.zeros(1, 1, 1, 1)}
    boxes = [torch.tensor([[2.0, 2.0, 10.0, 10.0]])]
    assert pool(maps, boxes, [(9, 9)]).item() == pool(maps, boxes, [(16, 16)]).item() == pytest.approx(7.5)


def test_images_of_several_sizes_are_placed_in_the_corner_of_one() -> None:
    small, large = torch.ones(3, 33, 20), torch.ones(3, 30, 70)
    padded, same = PadToBatch(torch.channels_last)([small, large], [{}, {}])
    assert padded.tensors.shape == (2, 3, 64, 96) and padded.image_sizes == [(33, 20), (30, 70)]
    assert padded.tensors.sum() == small.sum() + large.sum() and padded.tensors[0, 0, 32, 19] == 1
    assert padded.tensors.is_contiguous(memory_format=torch.channels_last) and same == [{}, {}]


# All detectors


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_from_images_of_several_sizes(kind: str) -> None:
    model = tiny_detector(kind)
    images = [torch.randn(3, 33, 47), torch.randn(3, 48, 40)]
    image_targets = [target([[5, 6, 30, 30], [20, 2, 40, 20]], [2, 0], 33, 47), target([], [], 48, 40)]
    losses = model(images, image_targets)
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    with torch.no_grad():
        predictions = model.eval()(images)
    assert len(predictions) == 2
    for prediction, (height, width) in zip(predictions, [(33, 47), (48, 40)], strict=True):
        assert prediction["boxes"].min() >= 0 if len(prediction["boxes"]) else True
        assert (prediction["boxes"] <= torch.tensor([width, height] * 2)).all()
        assert set(prediction["labels"].tolist()) <= set(range(CLASSES))
        assert ("masks" in prediction) == (kind != "fcos")


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_any_figure_are_learnt_from(kind: str) -> None:
    images, _ = lit_rectangles(2)
    losses = tiny_detector(kind)(images, [target([], []), target([], [])])
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_boxes_are_float32_in_mixed_precision(kind: str) -> None:
    images, detections = lit_rectangles(2)
    model = tiny_detector(kind)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images, detections)
        predictions = model.eval()(images)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {value.dtype for prediction in predictions for name, value in prediction.items() if name != "labels"} == {
        torch.float32
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_is_no_prediction(kind: str) -> None:
    model = tiny_detector(kind).eval()
    nn.init.constant_(next(model.backbone.pyramid.parameters()), torch.nan)
    with pytest.raises(Diverged, match="outputs"), torch.no_grad():
        model(torch.zeros(1, 3, SIDE, SIDE))


@pytest.mark.parametrize("kind", KINDS)
def test_merging_last_changes_nothing_that_is_found(kind: str) -> None:
    images, _ = lit_rectangles(1)
    spec = tiny_spec(in_channels=3, K=5, reparam=3, C=[8, 8, 16, 16])
    model = tiny_detector(kind, spec).double().eval()
    merged = merge(model)
    assert len(list(merged.parameters())) < len(list(model.parameters()))
    with torch.no_grad():
        maps = (detector.backbone(images.double()).values() for detector in (model, merged))
        for one, other in zip(*maps, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "fcos", "cascaded"), [("replknet_31b", 87, 137), ("replknet_31l", None, 229), ("replknet_xl", None, 392)]
)
def test_parameters_are_those_of_the_paper(name: str, fcos: int | None, cascaded: int) -> None:
    """Table 9 (arXiv 2203.06717), in millions without their fraction."""
    spec = PRESETS[name]
    with torch.device("meta"):
        heads = RoIHeadsConfig(80, body="convolutions", loss="giou")
        model: nn.Module = RCNN(
            FeaturePyramid(Encoder(build(spec), spec, finest=4), 256, "pool"), heads, cascade=CASCADE
        )
        assert sum(parameter.numel() for parameter in model.parameters()) // 1_000_000 == cascaded
        if fcos is not None:
            model = FCOSDetector(FeaturePyramid(Encoder(build(spec), spec, finest=8), 256, "convolutions"), classes=80)
            assert sum(parameter.numel() for parameter in model.parameters()) // 1_000_000 == fcos


# A cascade of one stage


@pytest.mark.parametrize("masks", [True, False])
def test_one_stage_is_what_torchvision_has(masks: bool) -> None:
    pyramid = pyramid_of()
    head = Cascade(pyramid, RoIHeadsConfig(CLASSES, hidden=32, masks=masks), SINGLE_STAGE)
    maps, (stage,) = maps_of(pyramid), head.roi_stages
    nn.init.normal_(stage.box_predictor.bbox_pred.weight, std=0.1)
    torch.manual_seed(3)
    _, losses = head(maps, proposals(), SIZES, targets())
    torch.manual_seed(3)
    _, expected_losses = RoIHeads.forward(stage, maps, proposals(), SIZES, targets())
    names = {"classifier_0": "loss_classifier", "boxes_0": "loss_box_reg", "masks_0": "loss_mask"}
    assert losses == {name: expected_losses[names[name]] for name in losses} and len(losses) == len(expected_losses)

    head.eval()
    with torch.no_grad():
        predictions, _ = head(maps, proposals(), SIZES)
        expected, _ = RoIHeads.forward(stage, maps, proposals(), SIZES)
    for prediction, other in zip(predictions, expected, strict=True):
        assert prediction.keys() == other.keys() and len(prediction["boxes"]) > 0
        for name, value in prediction.items():
            torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)


# The cascade


def test_every_stage_takes_for_figures_what_overlaps_enough() -> None:
    head, _ = cascade()
    figure = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    near = torch.tensor([[0.0, 0.0, 10.0, 10 * overlap] for overlap in (0.45, 0.55, 0.65, 0.75)])
    assigned = [
        stage.assign_targets_to_proposals([near], [figure], [torch.tensor([2])])[1] for stage in head.roi_stages
    ]
    assert [stage_labels[0].tolist() for stage_labels in assigned] == [[0, 2, 2, 2], [0, 0, 2, 2], [0, 0, 0, 2]]


def test_later_stages_move_boxes_by_smaller_steps() -> None:
    head, _ = cascade()
    box, figure = [torch.tensor([[0.0, 0.0, 10.0, 10.0]])], [torch.tensor([[1.0, 0.0, 11.0, 12.0]])]
    deltas = torch.cat([stage.box_coder.encode(figure, box)[0] for stage in head.roi_stages])
    assert deltas[:, 0].tolist() == pytest.approx([0.1 / 0.1, 0.1 / 0.05, 0.1 / 0.033], rel=1e-5)
    grown = torch.tensor(1.2).log().item()
    assert deltas[:, 3].tolist() == pytest.approx([grown / 0.2, grown / 0.1, grown / 0.066], rel=1e-5)


def test_boxes_are_moved_as_their_class_is_and_cut_at_the_border() -> None:
    head, _ = cascade()
    stage, (start, _) = head.roi_stages[0], proposals(3)
    ends = torch.tensor([[2.0, 3.0, 20.0, 30.0], [5.0, 5.0, 9.0, 9.0], [-4.0, 30.0, 20.0, 60.0]])
    deltas = torch.randn(3, 1 + CLASSES, 4)
    ways = torch.tensor([3, 1, 2])
    deltas[range(3), ways] = stage.box_coder.encode([ends], [start])[0]
    (output,) = apply_deltas(stage, [start], ways, deltas.view(3, -1).requires_grad_(), [(SIDE, SIDE)])
    assert not output.requires_grad
    torch.testing.assert_close(output, ends.clamp(0, SIDE), rtol=1e-4, atol=1e-4)


def test_a_sample_is_passed_on_without_the_figures_own_boxes() -> None:
    head, _ = cascade()
    image_targets = targets()
    boxes = [torch.cat([start, target["boxes"]]) for start, target in zip(proposals(5), image_targets, strict=True)]
    labels = [torch.zeros(len(tensor), dtype=torch.int64) for tensor in boxes]
    count = sum(map(len, boxes))
    logits = torch.zeros(count, 1 + CLASSES)
    logits[:, 2] = 1
    still = torch.zeros(count, 4 * (1 + CLASSES))
    kept = apply_deltas_to_sample(head.roi_stages[0], StageSample(boxes, labels, logits, still), SIZES, image_targets)
    for tensor, start in zip(kept, proposals(5), strict=True):
        torch.testing.assert_close(tensor, start)


def test_stages_count_by_their_weights() -> None:
    head, maps = cascade()
    even = copy.deepcopy(head)
    even.cascade = tuple(stage._replace(loss_weight=1.0) for stage in head.cascade)
    gradients = []
    for cascade_head in (head, even):
        torch.manual_seed(0)
        _, losses = cascade_head(maps, proposals(), SIZES, targets())
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        gradients.append([stage.box_predictor.cls_score.weight.grad for stage in cascade_head.roi_stages])
    for weight, weighted_gradient, gradient in zip((1.0, 0.5, 0.25), *gradients, strict=True):
        torch.testing.assert_close(weighted_gradient, weight * gradient)


def test_stages_do_not_learn_through_the_boxes_that_they_hand_on() -> None:
    head, maps = cascade(masks=False)
    _, losses = head(maps, proposals(), SIZES, targets())
    torch.autograd.backward(losses["classifier_2"] + losses["boxes_2"])
    assert all(parameter.grad is None for stage in head.roi_stages[:2] for parameter in stage.parameters())


def test_classes_are_the_mean_opinion_of_all_stages() -> None:
    head, maps = cascade(masks=False)
    opinions = torch.tensor([[0.1, 0.6, 0.2, 0.1], [0.3, 0.3, 0.3, 0.1], [0.2, 0.0001, 0.7, 0.0999]])
    for stage, opinion in zip(head.roi_stages, opinions, strict=True):
        nn.init.zeros_(stage.box_predictor.cls_score.weight)
        stage.box_predictor.cls_score.bias.data = opinion.log()
    with torch.no_grad():
        predictions, _ = head.eval()(maps, proposals(), SIZES)
    mean = opinions.mean(0)
    for prediction in predictions:
        assert len(prediction["scores"]) > 0
        torch.testing.assert_close(prediction["scores"], mean[prediction["labels"]])


def test_one_way_to_move_boxes_for_all_classes() -> None:
    head, maps = cascade(by_class=False, masks=False)
    logits, deltas = head.roi_stages[0].predict(maps, proposals(), SIZES)
    assert head.roi_stages[0].box_predictor.bbox_pred.out_features == 4
    assert deltas.shape == (120, 4 * (1 + CLASSES)) and torch.equal(deltas[:, :4], deltas[:, 4:8])
    _, losses = head(maps, proposals(), SIZES, targets())
    assert all(loss.isfinite() for loss in losses.values()) and logits.shape == (120, 1 + CLASSES)


def test_boxes_that_are_off_cost_by_what_they_have_in_common_with_their_figure() -> None:
    stage = RCNNStage(pyramid_of(), RoIHeadsConfig(CLASSES, hidden=8, loss="giou", masks=False))
    box, figure = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    target_deltas = stage.box_coder.encode([figure], [box])
    labels = [torch.tensor([1])]
    still = torch.zeros(1, 4 * (1 + CLASSES))
    assert stage._overlap_loss(still, [box], labels, target_deltas).item() == pytest.approx(10 * 0.5, rel=1e-4)
    right = still.clone()
    right[:, 4:8] = target_deltas[0]
    assert stage._overlap_loss(right, [box], labels, target_deltas).item() == pytest.approx(0, abs=1e-4)


# Learning by heart


@pytest.mark.parametrize(
    ("kind", "steps", "lr"),
    [("fcos", 50, 1e-2), pytest.param("mask_rcnn", 100, 5e-3, marks=pytest.mark.long)],
)
def test_a_few_images_are_learnt_by_heart(kind: str, steps: int, lr: float) -> None:
    model, (images, detections) = tiny_detector(kind), lit_rectangles(3)
    fit(model, images, detections, steps=steps, lr=lr)
    metrics = training_metrics(model, images, detections)
    assert metrics["ap75"] > 95 and metrics["ap"] > 75, metrics
    if kind != "fcos":
        assert metrics["mask_ap75"] > 95, metrics


@pytest.mark.long
def test_a_cascade_learns_by_heart_and_every_stage_comes_nearer() -> None:
    model, (images, detections) = tiny_detector("cascade_mask_rcnn", body="fully_connected"), lit_rectangles(3)
    fit(model, images, detections, steps=100, lr=5e-3)
    metrics = training_metrics(model, images, detections)
    assert metrics["ap75"] > 95 and metrics["ap"] > 70 and metrics["mask_ap75"] > 95, metrics
    overlaps = list(overlaps_by_stage(model, images, detections))
    assert overlaps == sorted(overlaps) and overlaps[-1] > overlaps[0] + 0.1, overlaps


def training_metrics(model: nn.Module, images: Tensor, detections: Targets) -> dict[str, float]:
    with torch.no_grad():
        predicted = [
            to_image_coordinates(prediction, (SIDE, SIDE), (SIDE, SIDE)) for prediction in model.eval()(images)
        ]
    masks = all(prediction.masks is not None for prediction in predicted)
    return dict(detection_metrics(predicted, truth_of(detections), ("a", "b", "c"), masks=masks))


@torch.no_grad()
def overlaps_by_stage(model: nn.Module, images: Tensor, seen: Targets) -> Iterator[float]:
    """Mean overlap of boxes half off their figures, before and behind each stage."""
    shifts = torch.tensor([[4.0, 0, 4, 0], [0, 5, 0, 5], [-4, 0, 2, 0], [3, 3, 3, 3]])
    boxes = [(target["boxes"] + shifts).clamp(0, SIDE) for target in seen]
    maps, sizes = model.backbone(images), [(SIDE, SIDE)] * len(images)  # type: ignore[operator]
    heads = model.roi_heads
    assert isinstance(heads, Cascade)
    for stage in [*heads.roi_stages, None]:
        yield torch.cat([box_iou(a, b["boxes"]).flatten() for a, b in zip(boxes, seen, strict=True)]).mean().item()
        if stage is not None:
            logits, moves = stage.predict(maps, boxes, sizes)
            boxes = apply_deltas(stage, boxes, logits[:, 1:].argmax(1) + 1, moves, sizes)
