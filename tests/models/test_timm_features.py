"""RepLKNet in timm as a backbone: maps by stage, pruned networks, held strides, traced and scripted graphs, smp."""

import copy
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from timm.models import FeatureInfo
from timm_networks import SMALL, create, images, trained
from torch import Tensor, nn

from harness.errors import SpecError, UserError
from harness.models.build import merge


def test_the_call_of_the_issue() -> None:
    model = create("replknet_31b", num_classes=10, features_only=True, out_indices=(0, 1, 2, 3), device="meta").eval()
    maps = model(torch.empty(1, 3, 224, 224, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [(128, 56, 56), (256, 28, 28), (512, 14, 14), (1024, 7, 7)]
    assert model.feature_info.channels() == [128, 256, 512, 1024]
    assert model.feature_info.reduction() == [4, 8, 16, 32]


def test_intermediates_are_the_maps_of_the_stages() -> None:
    model, x = trained(), images()
    maps, features = model.features(x), model.forward_features(x)
    final, intermediates = model.forward_intermediates(x)
    assert torch.equal(final, features) and all(map(torch.equal, intermediates, maps))
    only = model.forward_intermediates(x, indices=[-1, 1], norm=True, intermediates_only=True)
    assert torch.equal(only[0], maps[1]) and torch.equal(only[1], features)
    early, some = model.forward_intermediates(x, indices=[0, 1], norm=True, stop_early=True)
    assert torch.equal(early, maps[1]) and all(map(torch.equal, some, maps[:2]))
    last = model.forward_intermediates(x, indices=2, intermediates_only=True)
    assert len(last) == 2 and all(map(torch.equal, last, maps[2:]))
    info = FeatureInfo(model.feature_info, 4)
    assert info.channels() == [m.shape[1] for m in maps]
    assert info.reduction() == [x.shape[-1] // m.shape[-1] for m in maps]
    assert all(dict(model.named_modules())[module] is model.stages[i] for i, module in enumerate(info.module_name()))


@pytest.mark.parametrize("index", range(4))
def test_pruned_to_a_stage_a_network_ends_there(index: int) -> None:
    model, x = trained(), images()
    tap = model.features(x)[index]
    pruned = copy.deepcopy(model)
    assert pruned.prune_intermediate_layers([index], prune_norm=True) == [index]
    assert torch.equal(pruned.forward_features(x), tap) and pruned.num_features == tap.shape[1]
    assert torch.equal(pruned.forward_intermediates(x, indices=[index], intermediates_only=True)[0], tap)
    assert not any(module.training for module in pruned.modules())
    pruned.train().forward_features(x).sum().backward()
    assert [n for n, p in pruned.named_parameters() if p.grad is None] == [], "nothing is left that nothing uses"


def test_pruning_at_the_last_stage_can_keep_the_head() -> None:
    model, x = trained(), images()
    logits = model(x)
    model.prune_intermediate_layers(4, prune_head=False)
    assert torch.equal(model(x), logits)


@pytest.mark.parametrize("feature_cls", ["getter", "hook", "fx"])
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 2), (-1,), 2])
def test_features_only(feature_cls: str, out_indices: Any) -> None:
    x, full = images(1), trained()
    model = create(features_only=True, out_indices=out_indices, feature_cls=feature_cls).eval()
    inner = {"getter": "model", "hook": "body", "fx": "graph_module"}[feature_cls]
    getattr(model, inner).load_state_dict(full.state_dict(), strict=False)
    chosen_indices = range(4 - out_indices, 4) if isinstance(out_indices, int) else [i % 4 for i in out_indices]
    expected = [full.features(x)[i] for i in chosen_indices]
    assert all(map(torch.equal, model(x), expected)) and len(model(x)) == len(expected)
    assert model.feature_info.channels() == [m.shape[1] for m in expected]
    assert "num_classes" not in model.pretrained_cfg


@pytest.mark.parametrize("indices", [(0, 4), (-5,), 5, 0, ()])
def test_stages_that_are_not_there_are_an_error(indices: Any) -> None:
    with pytest.raises(UserError, match="must name stages from 0 to 3"):
        create(features_only=True, out_indices=indices, device="meta")


@pytest.mark.parametrize(("output_stride", "merged"), [(16, False), (8, False), (4, True), (32, False)])
def test_a_held_stride_is_the_same_network_on_a_denser_map(output_stride: int, merged: bool) -> None:
    fields = SMALL | {"dilation": (1, 1, 3, 1)}
    full = trained("replknet_31b", **fields, dtype=torch.float64)
    held = create("replknet_31b", **fields, dtype=torch.float64, output_stride=output_stride).eval()
    held.load_state_dict(full.state_dict())
    held = merge(held) if merged else held
    x = images(side=96, dtype=torch.float64)
    reductions = [info["reduction"] for info in held.feature_info]
    assert reductions == [min(r, output_stride) for r in (4, 8, 16, 32)]
    for features, dense, stride, reduction in zip(
        full.features(x), held.features(x), (4, 8, 16, 32), reductions, strict=True
    ):
        assert dense.shape[-1] == 96 // reduction
        every = stride // reduction
        torch.testing.assert_close(dense[..., ::every, ::every], features, rtol=1e-9, atol=1e-9)


def test_a_stride_that_no_stage_has_is_an_error() -> None:
    with pytest.raises(SpecError, match="needs plain large kernels, but got 'stripes'"):
        create(output_stride=8, kernel="stripes", reparam=None)
    with pytest.raises(UserError, match=r"must be the stride of a stage, but got 64. Strides: 2, 4, 8, 16\."):
        create(output_stride=64)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:The TorchScript type system")
def test_torchscript_computes_the_same_in_evaluation_and_trains() -> None:
    ours = trained()
    model = create(scriptable=True, drop_path_rate=0.2, drop_rate=0.1).eval()
    model.load_state_dict(ours.state_dict())
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(images()), ours(images()), rtol=1e-4, atol=1e-5)
    scripted.train()
    torch.manual_seed(0)
    assert not torch.equal(scripted(images()), scripted(images())), "dropout and stochastic depth follow the mode"


def _segmented(network: nn.Module, classes: int = 4) -> None:
    """One training step, which reaches every parameter of the encoder, at the resolution of the images."""
    masks: Tensor = network.train()(images())
    masks.square().mean().backward()  # type: ignore[no-untyped-call]
    assert masks.shape == (2, classes, 64, 64)
    encoder = network.get_submodule("encoder")
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_segmentation_models_take_the_proxies_with_their_four_maps() -> None:
    decoder = {"encoder_depth": 4, "decoder_channels": (32, 16, 8, 8)}
    _segmented(smp.Unet("tu-replknet_nano", encoder_weights=None, in_channels=3, classes=4, **decoder))
    with pytest.raises(UserError, match="encoder_depth=4"):
        smp.Unet("tu-replknet_nano", encoder_weights=None, in_channels=3, classes=4)


def test_segmentation_models_take_networks_with_a_stem_of_stride_4_as_they_are() -> None:
    _segmented(smp.Unet("tu-replknet_31b", encoder_weights=None, in_channels=3, classes=4, **SMALL))
    _segmented(smp.UPerNet("tu-replknet_31b", encoder_weights=None, in_channels=3, classes=4, **SMALL))


def test_segmentation_models_take_a_held_stride() -> None:
    network = smp.DeepLabV3Plus("tu-replknet_31b", encoder_weights=None, in_channels=3, classes=4, **SMALL)
    assert network.encoder.model.feature_info.reduction() == [4, 8, 16, 16]
    _segmented(network)
