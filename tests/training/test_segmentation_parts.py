"""The parts of a segmentation: its recipe, its heads, how it looks at images, what it counts, its learning rates."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_scale_cases import CPU, recipe_of
from pydantic import ValidationError
from segmentation_cases import SEGMENTATION, segmentation_job, segmentation_recipe
from tiny_runs import tiny_spec
from torch import Tensor, nn

from harness.config.recipes.loading import (
    load_any_recipe,
    load_classification_recipe,
    load_task_recipe,
    recipe_file,
    recipe_names,
)
from harness.config.recipes.segmentation import SegmentationEvaluation, SegmentationRecipe
from harness.data.batching import BatchPlan
from harness.data.loading import step_batches
from harness.data.segmentation_files import IGNORED
from harness.errors import StudyError
from harness.models.build import build
from harness.training.metrics.segmentation import (
    ConfusionAccumulator,
    class_metrics,
    confusion_matrix,
    segmentation_metrics,
)
from harness.training.optim import LR_SCALE, full_scale_learning_rate, layer_count, parameter_groups
from harness.training.tasks.segmentation import (
    SegmentationTask,
    build_segmenter,
    mean_probabilities,
    sliding_window_inference,
    window_starts,
)

# Recipes

PUBLISHED = {
    # name: data, head, crop, iterations, batch, warm-up, drop path, mode
    "cityscapes_upernet_769": ("cityscapes", "upernet", [769, 769], 20_000, 64, 400, 0.5, "whole"),
    "ade20k_upernet_512": ("ade20k", "upernet", [512, 512], 40_000, 128, 400, 0.5, "whole"),
    "ade20k_upernet_640_22k": ("ade20k", "upernet", [640, 640], 40_000, 128, 400, 0.3, "slide"),
    "ade20k_upernet_640_31l": ("ade20k", "upernet", [640, 640], 80_000, 64, 800, 0.3, "slide"),
    "ade20k_upernet_640_xl": ("ade20k", "upernet", [640, 640], 160_000, 32, 1500, 0.5, "slide"),
    "cityscapes_deeplabv3plus": ("cityscapes", "deeplabv3plus", [512, 1024], 80_000, 8, 0, None, "whole"),
}
"""arXiv 2203.06717 and the official code's configurations of MMSegmentation."""


def shipped(name: str) -> SegmentationRecipe:
    return load_task_recipe(name, "segmentation", SegmentationRecipe)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_recipe_equals_the_published_one(name: str) -> None:
    recipe = shipped(name)
    assert (
        recipe.data.dataset,
        recipe.segmenter.head,
        recipe.views.crop,
        recipe.iterations,
        recipe.batch_size,
        recipe.schedule.warmup_steps,
        recipe.drop_path,
        recipe.evaluation.mode,
    ) == PUBLISHED[name]
    assert recipe.schedule.name == "poly" and recipe.segmenter.auxiliary == 0.4 and recipe.segmenter.channels == 512
    if recipe.segmenter.head == "upernet":
        assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.weight_decay) == ("adamw", 2e-4, 0.05)
    if recipe.evaluation.mode == "slide":
        assert recipe.evaluation.stride == [426, 426]


def test_every_recipe_names_its_source_and_what_to_expect_and_is_found_by_its_task() -> None:
    names = recipe_names("segmentation")
    assert set(names) == {*PUBLISHED, "shapes_upernet", "shapes_deeplabv3plus"}
    assert not {*names} & {*recipe_names()} and {*names} <= {*recipe_names(None)}
    for name in names:
        text = recipe_file(name).read_text(encoding="utf-8")
        assert "# Source " in text and "# Expect " in text, name
        assert load_any_recipe(name).about


def test_a_recipe_for_another_task_is_refused() -> None:
    with pytest.raises(StudyError, match="must be for segmentation, but got 'classification'"):
        shipped("imagenet_300")
    with pytest.raises(StudyError, match="must be for classification, but got 'segmentation'"):
        load_classification_recipe("shapes_upernet")
    with pytest.raises(StudyError, match="Did you mean `ade20k_upernet_512`"):
        shipped("ade20k_upernet_51")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3}, "either `epochs` or `iterations`"),
        ({"iterations": None, "validate_every": None}, "either `epochs` or `iterations`"),
        ({"validate_every": None}, "`validate_every` must be given with `iterations`"),
        ({"validate_every": 4}, "`validate_every` must divide `iterations`"),
        ({"schedule": {}}, "`schedule.warmup_epochs` must be below the 2 epochs"),
        ({"schedule": {"warmup_steps": 6}}, "`schedule.warmup_steps` must be below `iterations`"),
        ({"schedule": {"name": "step", "warmup_steps": 0}}, "`milestones` must be given with `name: step`"),
        ({"evaluation": {"mode": "slide"}}, "`window` and `stride` must be given with `mode: slide`"),
        ({"evaluation": {"mode": "slide", "window": [8, 8], "stride": [9, 8]}}, "`stride` must be at most 8"),
        ({"views": {"scales": [2.0, 1.0]}}, "must be a least and a largest scale"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SegmentationRecipe.model_validate(SEGMENTATION | changes)


def test_fingerprints_are_of_what_decides_and_differ_between_tasks() -> None:
    recipe = segmentation_recipe()
    same = segmentation_recipe(about="b", keep_last=7, evaluation=SEGMENTATION["evaluation"] | {"batch_size": 1})
    assert same.fingerprint() == recipe.fingerprint()
    others = [segmentation_recipe(seed=1), segmentation_recipe(segmenter={"channels": 9}), recipe_of()]
    assert len({recipe.fingerprint(), *(other.fingerprint() for other in others)}) == 4


# Steps and rates


def test_endless_passes_continue_where_a_round_ends() -> None:
    recipe = segmentation_recipe(iterations=8, validate_every=4)

    class Numbers(torch.utils.data.Dataset[Tensor]):
        def __getitem__(self, index: tuple[int, int]) -> Tensor:
            return torch.tensor([*index, 0])

    def seen(epoch: int, first_step: int = 0, count: int = 4) -> list[tuple[int, int]]:
        batches = step_batches(
            Numbers(), recipe, BatchPlan.of(recipe, 20, 1), epoch=epoch, rank=0, first_step=first_step, loaders=0,
            collate=lambda items: (torch.stack(items), torch.zeros(1)),
        )  # fmt: skip
        parts = [next(batches)[0] for _ in range(2 * count)]
        return [(number, i) for part in parts for number, i, _ in part.tolist()]

    batch_plan = BatchPlan.of(recipe, 20, 1)
    assert (batch_plan.steps, batch_plan.accumulation_steps, recipe.intervals) == (4, 2, 2)
    both = seen(1) + seen(2)
    assert len(both) == 64 and len(set(both)) == 64
    for number in (1, 2, 3):
        pass_items = [i for pass_number, i in both if pass_number == number]
        assert sorted(pass_items) == list(range(20)) and pass_items != sorted(pass_items)
    assert seen(2, first_step=3, count=1) == both[56:]


def test_a_batch_may_be_larger_than_a_pass() -> None:
    assert BatchPlan.of(segmentation_recipe(batch_size=16, micro_batch=8), 10, 2).accumulation_steps == 1


def test_poly_falls_in_a_line_and_its_warm_up_multiplies_it() -> None:
    schedule = {"name": "poly", "power": 1.0, "min_lr": 0.0, "warmup_steps": 10, "warmup_start": 0.1}
    recipe = segmentation_recipe(iterations=100, validate_every=20, optimizer={"lr": 0.5}, schedule=schedule)
    rates = [full_scale_learning_rate(recipe, step, 20) for step in range(100)]
    assert rates[0] == pytest.approx(0.5 * 0.1) and rates[50] == pytest.approx(0.25)
    assert rates[5] == pytest.approx(0.5 * 0.95 * (0.1 + 0.9 * 0.5)) and rates[99] == pytest.approx(0.005)


def test_steps_multiply_the_rate_behind_their_epochs() -> None:
    schedule = {"name": "step", "milestones": [2, 3], "warmup_steps": 4, "warmup": "constant", "warmup_start": 0.25}
    recipe = recipe_of(epochs=4, optimizer={"lr": 1.0}, schedule=schedule)
    rates = [full_scale_learning_rate(recipe, step, 4) for step in range(16)]
    assert rates == pytest.approx([0.25] * 4 + [1.0] * 4 + [0.1] * 4 + [0.01] * 4)


def test_layers_of_the_network_are_distinguished_from_the_heads() -> None:
    recipe = segmentation_recipe(optimizer={"layer_decay": 0.5})
    spec = tiny_spec(in_channels=3)
    model = build_segmenter(build(spec), spec, recipe, 9)
    groups: list[dict[str, Any]] = parameter_groups(model, spec, recipe, SegmentationTask.backbone)
    scale_of = {id(parameter): group[LR_SCALE] for group in groups for parameter in group["params"]}
    named = dict(model.named_parameters())
    assert len(scale_of) == len(named)
    assert scale_of[id(named["encoder.network.stem.0.conv.weight"])] == 0.5 ** (layer_count(spec) - 1)
    assert {scale_of[id(named[name])] for name in named if not name.startswith("encoder.")} == {1.0}


# Heads


def test_a_second_head_speaks_in_training_alone_and_leaves_the_rest_as_it_is() -> None:
    recipe, spec = segmentation_recipe(), tiny_spec(in_channels=3)
    models = []
    for weight in (0.0, 0.4):
        torch.manual_seed(0)
        plan = {"channels": 8, "auxiliary": weight, "auxiliary_channels": 4, "dropout": 0.0}
        models.append(build_segmenter(build(spec, seed=0), spec, segmentation_recipe(segmenter=plan), 9))
    alone, both = models
    x = torch.randn(2, 3, 30, 34)
    logits, second = both.train()(x)
    assert logits.shape == second.shape == (2, 9, 30, 34) and not torch.equal(logits, second)
    assert torch.equal(alone.train()(x), logits)
    assert isinstance(both.eval()(x), Tensor) and recipe.segmenter.auxiliary
    shared = {name for name in both.state_dict() if not name.startswith("auxiliary.")}
    assert shared == set(alone.state_dict())


def test_both_losses_count(tmp_path: Path) -> None:
    def loss_of(auxiliary: float) -> float:
        plan = {"channels": 8, "auxiliary_channels": 4, "auxiliary": auxiliary, "dropout": 0.0}
        recipe = segmentation_recipe(segmenter=plan, drop_path=None)
        task = SegmentationTask(segmentation_job(tmp_path / "run", recipe), CPU)
        model, _ = task.build()
        batch = next(task.batches(BatchPlan.of(recipe, task.images, 1), epoch=1, rank=0, first_step=0))
        return float(task.loss(model.train(), batch, (1, 0, 0)).detach())

    without, some, more = loss_of(1e-12), loss_of(0.5), loss_of(1.0)
    assert some > without and more - some == pytest.approx(some - without, rel=1e-4)


# Looks


class Local(nn.Module):
    """The output at a pixel depends on that pixel alone."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, 2 * x[:, :1] - 1], 1)


class RowIndex(nn.Module):
    """The output at a pixel is the row of its input in which that pixel lies."""

    def forward(self, x: Tensor) -> Tensor:
        row = torch.arange(x.shape[2], dtype=x.dtype)[:, None].expand(x.shape[2:])
        return torch.stack([row, -row])[None].expand(len(x), -1, -1, -1)


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.3, -1.0, 2.0])[None, :, None, None].expand(len(x), 3, *x.shape[2:])


def evaluation_of(**values: Any) -> SegmentationEvaluation:
    return SegmentationEvaluation.model_validate(values)


@pytest.mark.parametrize(
    ("side", "window", "stride", "expected"),
    [
        (10, 10, 4, [0]),
        (6, 10, 4, [0]),
        (11, 10, 4, [0, 1]),
        (18, 10, 4, [0, 4, 8]),
        (19, 10, 4, [0, 4, 8, 9]),
        (20, 10, 10, [0, 10]),
        (640, 640, 426, [0]),
        (2560, 640, 426, [0, 426, 852, 1278, 1704, 1920]),
    ],
)
def test_windows_cover_a_side_and_end_with_it(side: int, window: int, stride: int, expected: list[int]) -> None:
    assert window_starts(side, window, stride) == expected
    covered = {pixel for start in expected for pixel in range(start, min(side, start + window))}
    assert covered == set(range(side)) and max(expected) + window == max(side, window)


@pytest.mark.parametrize("sides", [(24, 24), (16, 20), (40, 24)])
def test_one_window_sees_the_whole_image(sides: tuple[int, int]) -> None:
    recipe, spec = segmentation_recipe(), tiny_spec(in_channels=3)
    model = build_segmenter(build(spec, seed=0), spec, recipe, 9).eval()
    x = torch.randn(2, 3, *sides)
    with torch.no_grad():
        assert torch.equal(sliding_window_inference(model, x, (40, 24), (16, 16)), model(x))


def test_where_windows_overlap_their_mean_counts() -> None:
    x = torch.zeros(1, 3, 7, 4)
    rows = sliding_window_inference(RowIndex(), x, (4, 4), (2, 4))[0, 0, :, 0]  # windows begin in rows 0, 2 and 3
    assert rows.tolist() == pytest.approx([0, 1, (2 + 0) / 2, (3 + 1 + 0) / 3, (2 + 1) / 2, (3 + 2) / 2, 3])
    local = torch.randn(2, 3, 9, 13)
    assert torch.allclose(sliding_window_inference(Local(), local, (4, 5), (3, 2)), Local()(local), atol=1e-6)


@pytest.mark.parametrize("slides", [False, True])
def test_many_looks_at_what_is_alike_everywhere_are_as_one(slides: bool) -> None:
    x, expected = torch.randn(2, 3, 20, 24), Constant()(torch.zeros(2, 3, 30, 17)).softmax(1)
    mode = {"mode": "slide", "window": [8, 8], "stride": [5, 5]} if slides else {}
    many = evaluation_of(scales=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75], flip=True, **mode)
    assert torch.allclose(mean_probabilities(Constant(), x, many, (30, 17)), expected, atol=1e-6)


def test_a_mirrored_look_is_turned_back_before_the_mean_is_taken() -> None:
    x = torch.randn(2, 3, 9, 13)
    once, twice = (mean_probabilities(Local(), x, evaluation_of(flip=flip), (9, 13)) for flip in (False, True))
    assert torch.allclose(once, twice, atol=1e-6)


def test_the_mean_is_over_shares_and_not_over_logits() -> None:
    x = torch.randn(1, 3, 8, 8)

    class Sided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0] * x.shape[2], x[:, 1]], 1)

    output = mean_probabilities(Sided(), x, evaluation_of(scales=[1.0, 2.0]), (8, 8))
    large = nn.functional.interpolate(x, (16, 16), mode="bilinear", align_corners=False)
    second = nn.functional.interpolate(Sided()(large), (8, 8), mode="bilinear", align_corners=False)
    assert torch.allclose(output, (Sided()(x).softmax(1) + second.softmax(1)) / 2, atol=1e-6)


# Counts


def tally_of(predicted: Tensor, truth: Tensor, classes: int) -> ConfusionAccumulator:
    return ConfusionAccumulator(confusion_matrix(predicted, truth, classes), torch.tensor(0.0, dtype=torch.float64))


def test_figures_by_hand() -> None:
    truth = torch.tensor([[0, 0, 0, 0], [1, 1, IGNORED, 2]])
    predicted = torch.tensor([[0, 0, 0, 1], [1, 1, 0, 0]])
    accumulator = tally_of(predicted, truth, 4)
    metrics = segmentation_metrics(accumulator)
    assert metrics["pixel_accuracy"] == pytest.approx(100 * 5 / 7)
    assert metrics["mean_accuracy"] == pytest.approx(100 * (3 / 4 + 1 + 0) / 3)
    assert metrics["miou"] == pytest.approx(100 * (3 / 5 + 2 / 3 + 0) / 3)
    named = class_metrics(accumulator, ("a", "b", "c", "d"))
    assert named["iou_c"] == 0.0 and "iou_d" not in named and "accuracy_d" not in named
    assert named["accuracy_a"] == 75.0


def test_nothing_that_counts_gives_figures_all_the_same() -> None:
    metrics = segmentation_metrics(tally_of(torch.zeros(2, 2).long(), torch.full((2, 2), IGNORED), 3))
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_validation_counts_what_the_model_predicts(tmp_path: Path) -> None:
    recipe = segmentation_recipe(evaluation={"mode": "whole", "batch_size": 5})
    task = SegmentationTask(segmentation_job(tmp_path / "run", recipe), CPU)
    model, _ = task.build()
    scores = task.validate(model)
    counts, loss, pixels = torch.zeros(9, 9, dtype=torch.int64), 0.0, 0
    for i in range(len(task.masked.val)):
        pair = task.masked.val.pair(i)
        assert pair is not None
        image = torch.from_numpy(np.array(pair[0], np.float32)).permute(2, 0, 1) / 255
        mean, std = (torch.tensor(statistic)[:, None, None] for statistic in (recipe.data.mean, recipe.data.std))
        with torch.no_grad():
            logits = model(((image - mean) / std)[None])
        truth = torch.from_numpy(pair[1].copy())[None].long()
        counts += confusion_matrix(logits.argmax(1), truth, 9)
        loss += nn.functional.cross_entropy(logits, truth, reduction="sum").item()
        pixels += truth.numel()
    expected = segmentation_metrics(ConfusionAccumulator(counts, torch.tensor(loss, dtype=torch.float64)))
    assert dict(scores.metrics) == pytest.approx(expected, rel=1e-4)
    assert scores.main == "miou" and scores.value == scores["miou"]
