"""The maps of a backbone, both heads on them, and intersection over union."""

from typing import get_args

import pytest
import torch
from random_statistics import randomize
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from tiny_transfers import CLASSES, segmenter, small_spec
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from harness.config.recipes.proxy import SegmentationHead, Transfer
from harness.config.recipes.segmentation import SegmentationHeadConfig
from harness.data.segmentation_files import IGNORED
from harness.models.build import build, merge
from harness.models.heads.encoder import Encoder
from harness.models.heads.segmentation import SEGMENTATION_HEADS
from harness.models.spec.family import FAMILIES
from harness.training.metrics.segmentation import confusion_matrix, intersection_over_union, pixel_loss

# mIoU


@pytest.mark.parametrize("seed", range(6))
def test_miou_is_that_of_torchmetrics(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    present = torch.randperm(CLASSES, generator=g)[: 3 + seed]  # some classes are absent in both
    truth, predicted = (present[torch.randint(len(present), (4, 13, 11), generator=g)] for _ in range(2))
    truth[torch.rand(truth.shape, generator=g) < 0.2] = IGNORED
    metric = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=IGNORED)
    counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for some_predicted, some_truth in zip(torch.split(predicted, 3), torch.split(truth, 3), strict=True):
        metric.update(some_predicted, some_truth)
        counts += confusion_matrix(some_predicted, some_truth.to(torch.uint8), CLASSES)
    assert intersection_over_union(counts).nanmean().item() == pytest.approx(metric.compute().item(), rel=1e-6)


def test_shares_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1], [1, 1, IGNORED]])
    predicted = torch.tensor([[0, 1, 1], [1, 2, 2]])
    counts = confusion_matrix(predicted, truth, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    shares = intersection_over_union(counts)
    assert shares[:3].tolist() == [0.5, 0.5, 0.0]  # a class that is only predicted counts, and is wrong
    assert shares[3].isnan()  # one that is nowhere does not


def test_pixels_that_are_ignored_count_nowhere() -> None:
    logits = torch.randn(2, CLASSES, 5, 7, requires_grad=True)
    targets = torch.randint(CLASSES, (2, 5, 7))
    targets[:, 2:] = IGNORED
    loss = pixel_loss(logits, targets)
    torch.testing.assert_close(loss, F.cross_entropy(logits[:, :, :2], targets[:, :2]))
    assert pixel_loss(logits, torch.full_like(targets, IGNORED)).item() == 0.0


# Backbone and heads


@pytest.mark.parametrize(
    ("family", "stem_stride", "finest", "strides"),
    [
        ("replknet", 4, 4, {4: 0, 8: 1, 16: 2, 32: 3}),
        ("replknet", 2, 2, {2: 0, 4: 1, 8: 2, 16: 3}),
        ("replknet", 2, 4, {4: 1, 8: 2, 16: 3}),
        ("replknet", 4, 2, {4: 0, 8: 1, 16: 2, 32: 3}),
        ("convnext", 2, 8, {8: 2, 16: 3}),
        ("mobilenet_v2", 2, 4, {4: 1, 8: 2, 16: 4, 32: 6}),
        ("mobilenet_v2", 1, 2, {2: 1, 4: 2, 8: 4, 16: 6}),
    ],
)
def test_an_encoder_gives_the_last_map_of_every_stride(
    family: str, stem_stride: int, finest: int, strides: dict[int, int]
) -> None:
    spec = small_spec(family, stem_stride)
    encoder = Encoder(build(spec), spec, finest=finest).eval()
    assert encoder.stages == strides and encoder.output_stride == max(strides)
    x = torch.randn(2, 1, 64, 64)
    image, nothing, *maps = encoder(x)
    assert torch.equal(image, x) and nothing.shape[1] == 0
    assert [features.shape[1] for features in (image, nothing, *maps)] == encoder.out_channels
    assert [64 // features.shape[2] for features in maps] == list(strides)


def test_recipes_take_every_head() -> None:
    assert get_args(SegmentationHead) == tuple(SEGMENTATION_HEADS)
    assert get_args(SegmentationHeadConfig.model_fields["head"].annotation) == tuple(SEGMENTATION_HEADS)
    assert get_args(Transfer.model_fields["head"].annotation) == (*SEGMENTATION_HEADS, "fcos")


@pytest.mark.parametrize("head", SEGMENTATION_HEADS)
@pytest.mark.parametrize(
    ("family", "stem_stride"), [(name, stride) for name, family in FAMILIES.items() for stride in family.stem_strides]
)
def test_every_family_learns_under_every_head_at_odd_sizes(family: str, stem_stride: int, head: str) -> None:
    model = segmenter(small_spec(family, stem_stride), side=37, head=head)
    x = torch.randn(2, 1, 37, 45).contiguous(memory_format=torch.channels_last)
    logits = model(x)
    assert logits.shape == (2, CLASSES, 37, 45)
    torch.autograd.backward(pixel_loss(logits, torch.randint(CLASSES, (2, 37, 45))))
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    assert model.eval()(x[:1]).isfinite().all()


def test_the_decoder_is_the_librarys_where_its_own_fits() -> None:
    encoder = segmenter(side=64, finest=2).encoder
    ours = SEGMENTATION_HEADS["deeplabv3plus"](encoder, channels=8, side=64)
    theirs = DeepLabV3PlusDecoder(
        encoder.out_channels, 5, 8, atrous_rates=(1, 1, 2), output_stride=16, aspp_separable=True, aspp_dropout=0.1
    )
    theirs.load_state_dict(ours.state_dict())
    theirs.up = nn.Upsample(scale_factor=8, mode="bilinear", align_corners=False)
    maps = encoder.eval()(torch.randn(2, 1, 64, 64))
    torch.testing.assert_close(ours.eval()(maps), theirs.eval()(maps))


def test_dilations_keep_their_ratio_to_the_map() -> None:
    spec = small_spec("replknet", 4)
    encoder = Encoder(build(spec), spec, finest=4)

    def rates(side: int) -> list[int]:
        decoder = SEGMENTATION_HEADS["deeplabv3plus"](encoder, channels=8, side=side)
        return sorted({m.dilation[0] for m in decoder.modules() if isinstance(m, nn.Conv2d)} - {1})

    assert rates(33 * 32) == [6, 12, 18]
    assert rates(11 * 32) == [2, 4, 6]
    assert rates(32) == []


@pytest.mark.parametrize("head", SEGMENTATION_HEADS)
def test_what_was_trained_unmerged_is_merged_last_without_a_change(head: str) -> None:
    model = segmenter(small_spec("replknet", 2), side=32, head=head).double()
    randomize(model, seed=0)
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    merged = merge(model.eval())
    assert len(list(merged.parameters())) < len(list(model.parameters()))
    torch.testing.assert_close(merged(x), model(x), rtol=1e-10, atol=1e-10)


def test_a_map_of_the_image_is_as_large_as_the_image() -> None:
    model = segmenter().eval()
    sizes = [(17, 16), (16, 31), (40, 24)]
    logits: list[Tensor] = [model(torch.randn(1, 1, *size)) for size in sizes]
    assert [tuple(tensor.shape[2:]) for tensor in logits] == sizes
