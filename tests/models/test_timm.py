"""RepLKNet in timm: what timm's own tests ask of a model, the same network as ours, and the paper's names."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from random_statistics import randomize
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from timm.models import load_checkpoint
from timm.models._manipulate import group_parameters
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, reparameterize_model
from timm_networks import NANO, SMALL, create, images, trained
from torch import Tensor, nn

from harness.errors import SpecError
from harness.models.build import build, fold, merge
from harness.models.spec.presets import PRESETS
from harness.models.timm.replknet import TimmRepLKNet

NAMES = [name for name, spec in PRESETS.items() if spec.family == "replknet"]
PROXIES = ["replknet_nano", "replknet_tiny"]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_matches_its_description(name: str) -> None:
    with torch.device("meta"):
        model = create(name).eval()
        ours = build(PRESETS[name])
    is_ours, cfg, state = type(model) is TimmRepLKNet, model.pretrained_cfg, model.state_dict()
    assert is_ours and model.default_cfg is cfg and cfg["architecture"] == name
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert f"{cfg['first_conv']}.weight" in state and f"{cfg['classifier']}.weight" in state
    assert not any(getattr(m, "p", 0) for m in model.modules()), "stochastic depth is asked for, as elsewhere in timm"
    assert (model.num_classes, model.in_chans) == (cfg["num_classes"], cfg["input_size"][0])
    x = torch.empty(1, *cfg["input_size"], device="meta")
    features = model.forward_features(x)
    assert features.shape == (1, model.num_features, *cfg["pool_size"])
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    assert model(x).shape == (1, model.num_classes)
    assert resolve_model_data_config(model)["input_size"] == cfg["input_size"]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("name", "fields"), [("replknet_nano", {}), ("replknet_31b", SMALL)], ids=["nano", "31b-small"]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["default", "channels-last"])
def test_logits_and_gradients_are_bitwise_those_of_our_network(name: str, fields: Any, layout: Any) -> None:
    theirs = create(name, drop_path_rate=0.2, **fields).to(memory_format=layout)
    ours = build(PRESETS[name].replace(drop_path=0.2, **fields)).to(memory_format=layout)
    randomize(theirs, seed=1)
    ours.load_state_dict(theirs.state_dict())
    x = images().to(memory_format=layout)
    for mode in (True, False):
        results = []
        for model in (ours, theirs):
            torch.manual_seed(3)  # for stochastic depth
            logits = model.train(mode)(x)
            gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
            results.append([logits, *gradients, *model.buffers()])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_same_seed_gives_the_same_weights() -> None:
    torch.manual_seed(0)
    theirs = create(global_pool="max").state_dict()
    torch.manual_seed(0)
    ours = build(PRESETS[NANO]).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("name", PROXIES)
def test_training_reaches_every_parameter(name: str) -> None:
    model = create(name, num_classes=42, in_chans=5, drop_rate=0.2, drop_path_rate=0.2).train()
    logits = model(images(4, channels=5))
    logits.mean().backward()
    assert logits.shape == (4, 42)
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert (model.drop_rate, model.head_drop.p) == (0.2, 0.2)
    assert max(m.p for m in model.modules() if hasattr(m, "p") and m is not model.head_drop) == pytest.approx(0.2)


def test_any_field_of_a_spec_may_be_given_and_nothing_else() -> None:
    model = create("replknet_31b", **SMALL, stem_stride=2, num_classes=5).eval()
    assert [tuple(m.shape) for m in model.features(images(1))] == [
        (1, 4, 32, 32),
        (1, 6, 16, 16),
        (1, 8, 8, 8),
        (1, 8, 4, 4),
    ]
    with pytest.raises(SpecError, match="must be odd"):
        create(K=8)
    with pytest.raises(TypeError, match="unknown"):
        create(unknown=1)


@pytest.mark.parametrize("name", PROXIES)
def test_the_classifier_can_be_replaced_removed_and_unpooled(name: str) -> None:
    model, x = create(name).eval(), images()
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.num_features) and model.get_classifier() is model.head
    model.reset_classifier(0)
    assert model.num_classes == 0 and torch.equal(model(x), pooled) and isinstance(model.get_classifier(), nn.Identity)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), features)
    model.reset_classifier(7, "catavgmax")
    assert model(x).shape == (2, 7) and model.get_classifier().in_features == 2 * model.num_features
    model.reset_classifier(3)
    assert model(x).shape == (2, 3) and model.global_pool.pool_type == "catavgmax", "the pooling stays"
    assert create(name, num_classes=0, global_pool="").eval()(x).shape == features.shape


def test_what_is_replaced_keeps_place_type_and_mode() -> None:
    model = create(device="meta", dtype=torch.bfloat16).eval()
    model.reset_classifier(2, "max")
    assert {(t.device.type, t.dtype) for t in model.parameters()} == {("meta", torch.bfloat16)}
    assert not any(module.training for module in model.modules())
    assert model(torch.empty(1, 3, 64, 64, device="meta", dtype=torch.bfloat16)).shape == (1, 2)


def _stepped(model: nn.Module, x: Tensor, *, passes: int = 1) -> list[Tensor]:
    """Loss, gradients, statistics and the random state after a training step."""
    torch.manual_seed(4)
    loss = model.train()(x).square().sum()
    for last in reversed(range(passes)):
        model.zero_grad()
        loss.backward(retain_graph=last > 0)
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [loss.detach(), *gradients, *(b.clone() for b in model.buffers()), torch.get_rng_state()]


@pytest.mark.parametrize("passes", [1, 2])
def test_gradient_checkpointing_changes_nothing_but_memory(passes: int) -> None:
    plain = create(drop_path_rate=0.3, drop_rate=0.1)
    checkpointing = copy.deepcopy(plain)
    checkpointing.set_grad_checkpointing()
    counts: dict[nn.Module, int] = {}
    layers = [*checkpointing.stem, *(b for s in checkpointing.stages for b in s.blocks), *checkpointing.transitions[0]]
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, _: counts.update({module: counts.get(module, 0) + 1}))
    for a, b in zip(_stepped(plain, images()), _stepped(checkpointing, images(), passes=passes), strict=True):
        assert torch.equal(a, b)
    assert set(counts.values()) == {1 + passes}, "each is computed anew in every backward pass"
    checkpointing.set_grad_checkpointing(False)
    counts.clear()
    _stepped(checkpointing, images())
    assert set(counts.values()) == {1}


def test_groups_of_layers_run_from_the_stem_to_the_classifier() -> None:
    with torch.device("meta"):
        model = create("replknet_31b")
    names = [name for name, _ in model.named_parameters()]
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(groups) == set(names) and max(groups.values()) == 25, "stem, 24 pairs of blocks, classifier"
    assert groups["stem.0.conv.weight"] == 0 and groups["head.bias"] == 25
    assert groups["stages.2.blocks.34.pw1.conv.weight"] == groups["stages.2.blocks.35.pw1.conv.weight"] == 22
    assert groups["transitions.2.1.conv.weight"] == 22 and groups["norm.weight"] == 24
    order = [groups[name] for name in names if name.startswith("stages")]
    assert order == sorted(order)
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert [
        coarse[n] for n in ("stem.0.conv.weight", "stages.0.blocks.0.pw1.conv.weight", "transitions.0.0.conv.weight")
    ] == [0, 1, 1]
    assert coarse["norm.bias"] == 4 and coarse["head.weight"] == 5


def test_a_step_as_timms_training_script_makes_it() -> None:
    model = create(
        num_classes=10, in_chans=3, global_pool=None, drop_rate=0.1, drop_path_rate=0.1, drop_block_rate=None
    )
    model.set_grad_checkpointing(enable=True)
    average = ModelEmaV3(model, decay=0.5)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.7)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    nn.functional.cross_entropy(model(images(4)), torch.tensor([0, 1, 2, 3])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    average.update(model, step=1)
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert average.module.eval()(images()).shape == (2, 10)


def test_weights_are_not_hosted_and_timm_reports_it() -> None:
    assert not timm.list_models("replknet_*", pretrained=True)
    with pytest.raises(RuntimeError, match="No pretrained weights exist for replknet_nano"):
        create(pretrained=True)


def _write_pth(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path)


def _write_nested(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"model": state, "epoch": 3}, path)


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "a.pth": _write_pth,
    "b.pth": _write_nested,
    "c.safetensors": save_file,
}


@pytest.mark.parametrize("file", WRITERS)
@pytest.mark.parametrize("merged", [False, True])
def test_checkpoints_with_the_papers_names_load_in_both_forms(file: str, merged: bool, tmp_path: Path) -> None:
    ours = build(PRESETS[NANO], seed=0)
    randomize(ours, seed=1)
    ours = (merge(ours) if merged else ours).eval()
    WRITERS[file](ours.state_dict(), tmp_path / file)
    model = create(merged=merged, checkpoint_path=str(tmp_path / file)).eval()
    assert torch.equal(model(images()), ours(images()))
    with pytest.raises(RuntimeError, match="lkb_reparam"):
        load_checkpoint(create(merged=not merged), str(tmp_path / file))


def test_a_local_file_as_pretrained_weights_adapts_to_classes_and_channels(tmp_path: Path) -> None:
    ours = build(PRESETS[NANO], seed=0)
    torch.save(ours.state_dict(), tmp_path / "a.pth")
    source = {"file": str(tmp_path / "a.pth")}
    model = create(pretrained=True, pretrained_cfg_overlay=source, num_classes=3, in_chans=1)
    state = ours.state_dict()
    assert torch.equal(model.stages[0].blocks[0].pw1.conv.weight, state["stages.0.blocks.0.pw1.conv.weight"])
    torch.testing.assert_close(model.stem[0].conv.weight, state["stem.0.conv.weight"].sum(1, keepdim=True))
    assert model.head.weight.shape == (3, 128)
    features = create(pretrained=True, pretrained_cfg_overlay=source, features_only=True).eval()
    assert torch.equal(features(images())[3], ours.eval().features(images())[3])  # type: ignore[operator]


def test_merging_and_folding_leave_the_logits_as_they_are() -> None:
    model, x = trained(dtype=torch.float64), images(dtype=torch.float64)
    logits = model(x)
    ours, theirs, folded = merge(model), reparameterize_model(model), fold(model)
    for other in (ours, theirs, folded):
        torch.testing.assert_close(other(x), logits, rtol=1e-10, atol=1e-10)
    assert not any("lkb_origin" in name or "small_conv" in name for name in theirs.state_dict())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    model.reset_classifier(5, "max")
    torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-10, atol=1e-10)
