"""The operator among PyTorch's own parts: autocast, compiler, transforms, several processes, export, copies, errors."""

import copy
import io
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.utils.checkpoint import checkpoint

from harness.ops import DepthwiseConv2d, depthwise_conv2d
from harness.ops.dispatch import ALGORITHMS, choose_algorithm
from harness.ops.geometry import Window

WINDOW = Window.of(1, 6, 1)


@pytest.fixture
def tensors() -> tuple[Tensor, Tensor, Tensor]:
    """x, weight, bias of a call that the stock operator does not get."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 4, 12, 12), torch.randn(4, 1, 13, 13), torch.randn(4)
    assert choose_algorithm(x, weight, WINDOW) != "stock"
    return x.double().requires_grad_(), weight.double().requires_grad_(), bias.double().requires_grad_()


def ours(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return depthwise_conv2d(x, weight, bias, padding=6)


def stock(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=6, groups=weight.shape[0])


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def loss(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *tensors: f(*tensors).square().sum()


# The compiler


@pytest.fixture
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.long
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_graph(dynamic: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(DepthwiseConv2d(4, 13, padding=6), nn.ReLU(), DepthwiseConv2d(4, 3, padding=1))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for n in (2, 3, 5):
        x = torch.randn(n, 4, 12, 12, requires_grad=True)
        gradients = [
            torch.autograd.grad(module(x).square().sum(), (x, *model.parameters())) for module in (compiled, model)
        ]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("compiler")
def test_compiles_under_autocast() -> None:
    model, x = DepthwiseConv2d(4, 13, padding=6), torch.randn(2, 4, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        y = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y, model(x), rtol=1e-2, atol=1e-2)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("name", ["grad", "vmap"])
def test_compiles_what_is_transformed(name: str, tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight = (t.detach() for t in tensors[:2])

    def transformed(f: Callable[..., Tensor]) -> Tensor:
        result: Tensor = torch.func.grad(loss(f))(x, weight) if name == "grad" else per_image(f)(x, weight)
        return result

    close(torch.compile(transformed, fullgraph=True, backend="aot_eager")(ours), transformed(stock))


@pytest.mark.long
@pytest.mark.usefixtures("compiler")
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler's default backend wants a C++ compiler")
def test_compiles_with_the_default_backend() -> None:
    model, x = DepthwiseConv2d(4, 13, padding=6), torch.randn(2, 4, 12, 12, requires_grad=True)
    compiled = torch.compile(model, fullgraph=True)
    gradients = [
        torch.autograd.grad(module(x).square().sum(), (x, *model.parameters())) for module in (compiled, model)
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


# Derivatives and transforms


def per_image(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """f on a batch of one, for each image on its own."""
    return torch.func.vmap(lambda image, weight: f(image[None], weight)[0], (0, None))


def test_second_derivatives(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    """As for a gradient penalty: the norm of a gradient, differentiated."""
    results = []
    for f in (ours, stock):
        first = torch.autograd.grad(loss(f)(*tensors), tensors, create_graph=True)
        penalty = torch.stack([gradient.square().sum() for gradient in first]).sum()
        results.append(torch.autograd.grad(penalty, tensors))
    close(*results)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_functional_gradients_with_every_algorithm(name: str, tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias = (t.detach() for t in tensors)
    if not ALGORITHMS[name].fits(x, weight, WINDOW):
        pytest.skip("does not take this call")

    def run(*inputs: Tensor) -> Tensor:
        return ALGORITHMS[name].run(inputs[0], inputs[1], inputs[2], WINDOW)

    every = (0, 1, 2)
    close(torch.func.grad(loss(run), every)(x, weight, bias), torch.func.grad(loss(stock), every)(x, weight, bias))


def test_vectorised_over_images_kernels_and_gradients(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight = (t.detach() for t in tensors[:2])
    several = torch.stack([weight, 2 * weight])
    close(per_image(ours)(x, weight), stock(x, weight))
    over_kernels = (torch.func.vmap(f, (None, 0))(x, several) for f in (ours, stock))
    close(*over_kernels)
    of_each = (torch.func.vmap(torch.func.grad(loss(f), 1), (0, None))(x[:, None], weight) for f in (ours, stock))
    close(*of_each)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is:FutureWarning")  # PyTorch's own rules use it
def test_forward_mode(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight = (t.detach() for t in tensors[:2])
    close(torch.func.jvp(ours, (x, weight), (x, weight)), torch.func.jvp(stock, (x, weight), (x, weight)))
    jacobian = (torch.func.jacfwd(loss(f), 1)(x[:1, :, :5, :5], weight[..., 4:9, 4:9]) for f in (ours, stock))
    close(*jacobian)


def test_complex_numbers(tensors: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight = (torch.complex(t, t + 1).detach().requires_grad_() for t in tensors[:2])
    close(ours(x, weight), stock(x, weight))
    gradients = (torch.autograd.grad(f(x, weight).abs().sum(), (x, weight)) for f in (ours, stock))
    close(*gradients)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(tensors: tuple[Tensor, Tensor, Tensor], reentrant: bool) -> None:
    torch.autograd.backward(checkpoint(ours, *tensors, use_reentrant=reentrant).square().sum())
    close(tuple(t.grad for t in tensors), torch.autograd.grad(loss(stock)(*tensors), tensors))


# Repeatability


@pytest.mark.parametrize("k", [3, 13])
def test_deterministic_algorithms_give_equal_bits(k: int) -> None:
    torch.manual_seed(0)
    x, model = torch.randn(4, 8, 16, 16, requires_grad=True), DepthwiseConv2d(8, k, padding=k // 2)
    plain = torch.autograd.grad(model(x).square().sum(), (x, *model.parameters()))
    torch.use_deterministic_algorithms(True)
    try:
        again = [torch.autograd.grad(model(x).square().sum(), (x, *model.parameters())) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for repeated in again for a, b in zip(repeated, plain, strict=True))


# Several processes


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(DepthwiseConv2d(3, 13, padding=6), nn.ReLU(), DepthwiseConv2d(3, 3, padding=1)).double()


def images(n: int) -> Tensor:
    return torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def train_one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(small_network())
    torch.autograd.backward(model(images(4)[2 * rank : 2 * rank + 2]).square().mean())
    torch.save([p.grad for p in model.parameters()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.long
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    spawn(train_one_of_two, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    model = small_network()
    torch.autograd.backward(model(images(4)).square().mean())
    alone = [p.grad for p in model.parameters()]
    for rank in range(2):
        close(torch.load(tmp_path / f"{rank}.pt"), alone)


# Export


def exported_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(DepthwiseConv2d(4, 13, padding=6), nn.BatchNorm2d(4), nn.ReLU()).eval()


def test_exports_as_a_plain_convolution() -> None:
    model, x = exported_network(), torch.randn(2, 4, 12, 12)
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (x,), dynamic_shapes=(sizes,))
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    names = [str(node.target) for node in calls]
    assert [name for name in names if "sym" not in name and "batch_norm" not in name] == [
        "aten.conv2d.default",
        "aten.relu.default",
    ]
    (convolution,) = (node for node in calls if "conv2d" in str(node.target))
    assert convolution.args[-1] == 4, "one group per channel"
    other = torch.randn(3, 4, 20, 17)
    torch.testing.assert_close(program.module()(other), model(other), rtol=1e-4, atol=1e-4)


def test_exports_after_a_round_trip_through_a_file() -> None:
    model, x = exported_network(), torch.randn(2, 4, 12, 12)
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), file)
    file.seek(0)
    torch.testing.assert_close(torch.export.load(file).module()(x), model(x), rtol=1e-4, atol=1e-4)


def test_traces_symbolically_as_a_plain_convolution() -> None:
    model, x = exported_network(), torch.randn(2, 4, 12, 12)
    traced = torch.fx.symbolic_trace(model)
    assert torch.conv2d in [node.target for node in traced.graph.nodes]
    torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-4)


def test_exports_to_onnx_as_a_plain_convolution() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, x = exported_network(), torch.randn(2, 4, 12, 12)
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    assert program is not None
    nodes = program.model_proto.graph.node
    (convolution,) = (node for node in nodes if node.op_type == "Conv")
    assert {a.name: a.i for a in convolution.attribute}["group"] == 4
    assert {node.op_type for node in nodes} <= {"Conv", "BatchNormalization", "Relu"}
    session = runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x), rtol=1e-4, atol=1e-4)


# The module as a value


def copies() -> dict[str, Callable[[nn.Module], nn.Module]]:
    def saved(model: nn.Module) -> nn.Module:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        loaded: nn.Module = torch.load(file, weights_only=False)
        return loaded

    return {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m)), "torch.save": saved}


@pytest.mark.parametrize("name", copies())
def test_copies_are_equal_and_independent(name: str) -> None:
    model, x = DepthwiseConv2d(4, (13, 7), padding=(6, 3), bias=False), torch.randn(2, 4, 12, 12)
    y = model(x)
    twin = copies()[name](model)
    assert type(twin) is DepthwiseConv2d and repr(twin) == repr(model)
    assert torch.equal(twin(x), y)
    with torch.no_grad():
        twin.weight.zero_()
    assert torch.equal(model(x), y)


@pytest.mark.parametrize("bias", [False, True])
def test_states_are_exchanged_with_a_convolution(bias: bool) -> None:
    model = DepthwiseConv2d(4, 13, padding=6, bias=bias)
    convolution = nn.Conv2d(4, 4, 13, padding=6, groups=4, bias=bias)
    x = torch.randn(2, 4, 12, 12)
    assert list(model.state_dict()) == list(convolution.state_dict())
    convolution.load_state_dict(model.state_dict())
    torch.testing.assert_close(convolution(x), model(x), rtol=1e-4, atol=1e-4)
    nn.init.normal_(convolution.weight)
    model.load_state_dict(convolution.state_dict())
    torch.testing.assert_close(model(x), convolution(x), rtol=1e-4, atol=1e-3)
    assert isinstance(model, nn.Conv2d), "what looks for convolutions finds it"


# What a person can do wrong


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.zeros(4, 8, 8)}, r"x must be \(N, C, H, W\) .* but got \(4, 8, 8\) and \(4, 1, 3, 3\)\."),
        ({"weight": torch.zeros(5, 1, 3, 3)}, r"weight \(C, 1, KH, KW\), but got \(1, 4, 8, 8\) and \(5, 1, 3, 3\)\."),
        ({"weight": torch.zeros(4, 4, 3, 3)}, r"weight \(C, 1, KH, KW\), but got \(1, 4, 8, 8\) and \(4, 4, 3, 3\)\."),
        ({"bias": torch.zeros(3)}, r"bias must be \(C,\), one number per channel of x, but got \(3,\)\."),
        ({"weight": torch.zeros(4, 1, 3, 3).double()}, r"x and weight must have one dtype, but got .*32 and .*64\."),
        ({"bias": torch.zeros(4).half()}, r"x and bias must have one dtype, but got torch.float32 and torch.float16\."),
        ({"x": torch.zeros(1, 4, 8, 8, device="meta")}, r"x and weight must be on one device, but got meta and cpu\."),
        ({"padding": -1}, r"`padding` must be one or two whole numbers of at least 0, but got -1\."),
        ({"padding": "same"}, r"`padding` must be one or two whole numbers of at least 0, but got 'same'\."),
        ({"padding": (1, 1, 1)}, r"`padding` must be one or two whole numbers .*, but got \(1, 1, 1\)\."),
        ({"stride": 0}, r"`stride` must be one or two whole numbers of at least 1, but got 0\."),
        ({"stride": 1.5}, r"`stride` must be one or two whole numbers of at least 1, but got 1\.5\."),
        ({"dilation": (1, 0)}, r"`dilation` must be one or two whole numbers of at least 1, but got \(1, 0\)\."),
        ({"weight": torch.zeros(4, 1, 3, 9)}, r"width there are 9 taps with dilation 1 for 8 \+ 2 x 0 pixels\."),
        ({"dilation": 4}, r"along the height there are 3 taps with dilation 4 for 8 \+ 2 x 0 pixels\."),
        ({"weight": torch.zeros(4, 1, 0, 3)}, r"must have a tap .* along the height there are 0 taps"),
    ],
)
def test_mistakes_are_named_with_rule_and_value(changed: dict[str, Any], message: str) -> None:
    arguments = {"x": torch.zeros(1, 4, 8, 8), "weight": torch.zeros(4, 1, 3, 3)} | changed
    with pytest.raises(ValueError, match=message):
        depthwise_conv2d(**arguments)


def test_the_module_names_mistakes_when_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"`padding` must be .* of at least 0, but got -2\."):
        DepthwiseConv2d(4, 5, padding=-2)


def test_autocast_takes_tensors_of_several_dtypes() -> None:
    x, weight = torch.randn(1, 4, 12, 12), torch.randn(4, 1, 13, 13).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x, weight)
        assert y.dtype == stock(x, weight).dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), stock(x, weight.float()), rtol=2e-2, atol=2e-1)
