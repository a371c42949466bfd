"""Batch norm with its activation: equal to PyTorch's in value, gradients and statistics; and when it is used."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

from harness.models.activation_checkpointing import checkpoint_block
from harness.models.layers import ConvBN
from harness.ops import batch_norm
from harness.ops.batch_norm import ACTIVATIONS, ActivationName, batch_norm_act

NAMES: list[ActivationName] = ["none", "relu", "relu6", "gelu"]


def images(*shape: int, seed: int = 0, mean: float = 2, scale: float = 3) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale + mean
    return x.contiguous(memory_format=torch.channels_last)


def norm(channels: int, dtype: torch.dtype = torch.float32) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels).to(dtype)
    with torch.no_grad():
        made.weight.copy_(torch.linspace(-1.5, 1.5, channels))
        made.bias.copy_(torch.linspace(1, -1, channels))
    return made


def native(x: Tensor, module: nn.Module, activation: ActivationName) -> Tensor:
    return ACTIVATIONS[activation](module(x))


Function = Callable[[Tensor, nn.Module, ActivationName], Tensor]


def outcome(function: Function, x: Tensor, module: nn.BatchNorm2d, activation: ActivationName) -> list[Tensor]:
    """Output, gradients of input, weight and bias, and running statistics after one step."""
    x = x.clone().requires_grad_()
    y = function(x, module, activation)
    upstream = images(*y.shape, seed=1, mean=0.5).to(y.dtype)
    gradients = torch.autograd.grad(y, (x, module.weight, module.bias), upstream)
    assert module.running_mean is not None and module.running_var is not None
    return [y.detach(), *gradients, module.running_mean, module.running_var]


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Maps of any size are computed by the loops, so that small ones test them."""
    plan = batch_norm._plan
    monkeypatch.setattr(batch_norm, "LEAST_NUMBERS", 0)
    plan.cache_clear()
    yield
    plan.cache_clear()


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The activations of the calls that the compiled loops computed."""
    calls: list[str] = []
    plan = batch_norm._plan

    def recorded(*arguments: Any) -> Any:
        made = plan(*arguments)
        if made is None:
            return None

        class Recorded(type(made)):  # type: ignore[misc]
            def run(self, function: Any, *tensors: Tensor) -> None:
                calls.append(self.activation)
                super().run(function, *tensors)

        return Recorded(*made)

    monkeypatch.setattr(batch_norm, "_plan", recorded)
    yield calls


@settings(deadline=None)  # each number of channels compiles loops of its own
@given(
    st.integers(1, 5),
    st.sampled_from([4, 8, 12, 16, 24, 48]),
    st.integers(8, 19),
    st.integers(1, 7),
    st.sampled_from(NAMES),
)
def test_values_gradients_and_statistics_are_those_of_float64(
    n: int, channels: int, height: int, width: int, activation: ActivationName
) -> None:
    """Away from the kinks of ReLU, where rounding decides on which side of it a number is."""
    x = images(n, channels, height, width)
    exact = outcome(native, x.double(), norm(channels, torch.float64), activation)
    ours = outcome(batch_norm_act, x, norm(channels), activation)
    z = norm(channels, torch.float64)(x.double())
    if activation.startswith("relu") and min(z.abs().min(), (z - 6).abs().min()) < 1e-5:
        return
    for actual, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(
            actual.double(), expected, rtol=1e-4, atol=3e-6 * max(1, expected.abs().max().item())
        )


@pytest.mark.parametrize("activation", NAMES)
def test_is_closer_to_float64_than_pytorch_on_maps_far_from_zero(activation: ActivationName) -> None:
    x = images(16, 16, 40, 40, mean=300, scale=1)
    exact, ours, theirs = (
        outcome(function, x.to(dtype), norm(16, dtype), activation)[0].double()
        for function, dtype in ((native, torch.float64), (batch_norm_act, torch.float32), (native, torch.float32))
    )
    assert (ours - exact).abs().max() <= (theirs - exact).abs().max()


@pytest.mark.parametrize("z", [-40.0, -12.9, -8.0, -3.0, -1e-3, 0.0, 1e-3, 2.5, 7.9, 13.1, 40.0])
def test_gelu_and_its_gradient_are_exact_far_from_zero_and_near_it(z: float) -> None:
    module, x = nn.BatchNorm2d(4), images(2, 4, 3, 3)
    with torch.no_grad():
        module.weight.fill_(1e-3)
        module.bias.fill_(z)
    exact = nn.BatchNorm2d(4).double()
    exact.load_state_dict(module.state_dict())
    for ours, theirs in zip(
        outcome(batch_norm_act, x, module, "gelu"), outcome(native, x.double(), exact, "gelu"), strict=True
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_bits_do_not_depend_on_the_number_of_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(3, 64, 9, 9)
    alone = outcome(batch_norm_act, x, norm(64), "gelu")
    monkeypatch.setattr(batch_norm, "THREAD_NUMBERS", 1)
    batch_norm._plan.cache_clear()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = outcome(batch_norm_act, x, norm(64), "gelu")
    finally:
        torch.set_num_threads(before)
        batch_norm._plan.cache_clear()
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("activation", NAMES)
def test_a_number_that_is_not_finite_spreads_to_its_channel_alone(activation: ActivationName) -> None:
    """A diverged run is noticed by its loss, so no activation may hide it."""
    for value in (torch.nan, torch.inf):
        x = images(2, 16, 3, 3)
        x[0, 5, 1, 1] = value
        y = batch_norm_act(x, nn.BatchNorm2d(16), activation)
        assert y[:, 5].isnan().all() and y[:, :5].isfinite().all() and y[:, 6:].isfinite().all()


@pytest.mark.parametrize("activation", NAMES)
def test_gradients_of_the_second_order(activation: ActivationName) -> None:
    def second(function: Function) -> list[Tensor]:
        x, module = images(3, 8, 4, 4).requires_grad_(), norm(8)
        (gradient,) = torch.autograd.grad(function(x, module, activation).pow(3).sum(), x, create_graph=True)
        return list(torch.autograd.grad(gradient.pow(2).sum(), (x, module.weight)))

    for ours, theirs in zip(second(batch_norm_act), second(native), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_it_is_used_in_training_alone(fused: list[str]) -> None:
    x, module = images(2, 16, 5, 5), norm(16)
    batch_norm_act(x, module, "relu")
    assert fused == ["relu"]
    assert module.num_batches_tracked == 1
    y = batch_norm_act(x, module.eval(), "relu")
    assert fused == ["relu"] and torch.equal(y, native(x, module, "relu")) and module.num_batches_tracked == 1


@pytest.mark.parametrize(
    "case",
    ["layout", "float64", "channels", "momentum", "statistics", "affine", "hook", "subclass", "vmap", "autocast"],
)
def test_all_else_is_pytorchs_own(case: str, fused: list[str]) -> None:
    x, module = images(2, 16, 5, 5), norm(16)
    if case == "layout":
        x = x.contiguous()
    elif case == "float64":
        x, module = x.double(), module.double()
    elif case == "channels":
        x, module = images(2, 6, 5, 5), norm(6)
    elif case == "momentum":
        module.momentum = None
    elif case == "statistics":
        module = nn.BatchNorm2d(16, track_running_stats=False)
    elif case == "affine":
        module = nn.BatchNorm2d(16, affine=False)
    elif case == "hook":
        module.register_forward_hook(lambda *_: None)
    elif case == "subclass":
        module = type("Other", (nn.BatchNorm2d,), {})(16)
    with torch.autocast("cpu", enabled=case == "autocast"):
        if case == "vmap":
            module = nn.BatchNorm2d(16, track_running_stats=False)
            y = torch.vmap(lambda image: batch_norm_act(image, module, "relu"), randomness="error")(x[None])[0]
        else:
            y = batch_norm_act(x, module, "relu")
    assert fused == [] and y.shape == x.shape


def test_small_maps_are_pytorchs_own(fused: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm, "LEAST_NUMBERS", 2 * 16 * 25)
    batch_norm_act(images(2, 16, 5, 4), norm(16), "relu")
    assert fused == []
    batch_norm_act(images(2, 16, 5, 5), norm(16), "relu")
    assert fused == ["relu"]


def test_maps_of_other_channels_are_refused_as_by_pytorch(fused: list[str]) -> None:
    """The compiled loops have no bounds: they must not read beyond the parameters."""
    with pytest.raises(RuntimeError, match="running_mean should contain 32 elements"):
        batch_norm_act(images(2, 32, 5, 5), nn.BatchNorm2d(16), "relu")
    assert fused == []


def test_a_parameter_that_is_a_view_is_read_as_one(fused: list[str]) -> None:
    module, x = nn.BatchNorm2d(16), images(2, 16, 5, 5)
    module.weight = nn.Parameter(torch.linspace(1, 2, 32)[::2])
    y = batch_norm_act(x, module, "none")
    torch.testing.assert_close(y, native(x, nn.BatchNorm2d(16), "none") * module.weight[:, None, None])
    assert fused == []


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_gradients_of_torch_func_and_of_forward_mode(fused: list[str]) -> None:
    module, x = norm(8), images(3, 8, 4, 4)
    block = ConvBN(8, 8, 1).to(memory_format=torch.channels_last)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        y: Tensor = functional_call(block, {**parameters, **buffers}, (x,))
        return y.pow(3).sum()

    buffers = {name: buffer.clone() for name, buffer in block.named_buffers()}
    gradients = torch.func.grad(loss)(dict(block.named_parameters()), buffers)
    assert fused == []
    torch.autograd.backward(block(x).pow(3).sum())
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-3)
    fused.clear()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))  # type: ignore[no-untyped-call]
        y = batch_norm_act(dual, module, "relu")
        assert forward_ad.unpack_dual(y).tangent is not None  # type: ignore[no-untyped-call]
    assert fused == []


def test_one_pixel_alone_is_refused_as_by_pytorch() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm_act(images(1, 16, 1, 1), nn.BatchNorm2d(16), "relu")


def test_recomputed_activations_count_no_batch_twice(fused: list[str]) -> None:
    block = ConvBN(8, 8, 1).to(memory_format=torch.channels_last)
    torch.autograd.backward(checkpoint_block(block, images(2, 8, 5, 5).requires_grad_()).sum())
    alone = ConvBN(8, 8, 1).to(memory_format=torch.channels_last)
    alone.load_state_dict({**block.state_dict(), **alone.bn.state_dict(prefix="bn.")})
    alone(images(2, 8, 5, 5))
    assert len(fused) == 4 and block.bn.num_batches_tracked == 1
    torch.testing.assert_close(block.bn.running_var, alone.bn.running_var, rtol=0, atol=0)


def test_the_compiler_sees_pytorchs_operators() -> None:
    module = ConvBN(8, 8, 1).to(memory_format=torch.channels_last)
    exported = torch.export.export(module.train(), (images(2, 8, 5, 5),))
    assert any("batch_norm" in str(node.target) for node in exported.graph.nodes)
