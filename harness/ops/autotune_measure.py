"""One call of the convolution and its measurement: which algorithms can compute it, with how much memory and time.

Shapes: x (N, C, H, W), weight (C, 1, KH, KW), bias (C,).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.ops.dispatch import ALGORITHMS, choose_algorithm
from harness.ops.geometry import Window
from harness.ops.timing import min_seconds

CLEAR_WIN_RATIO = 0.97
"""Another algorithm is preferred only if it takes less than this fraction of the stock operator's time."""
ALWAYS_ALLOWED_BYTES = 64 << 20
"""Memory that every candidate may use in addition to the stock operator's, however small the call."""


class AlgorithmTimes(NamedTuple):
    """The fastest algorithm for one kind of call, and the milliseconds of all timed algorithms."""

    winner: str
    ms: dict[str, float]


class ConvCall(NamedTuple):
    """One call of the convolution, in the precision in which it is computed."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    window: Window

    def kind(self) -> str:
        """Everything that the time depends on, as text; calls of one kind have one winner."""
        layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        layout = "+".join(name for name, value in layouts.items() if self.x.is_contiguous(memory_format=value))
        gradients = [name for name, n in zip(("x", "weight", "bias"), self.needs_gradient(), strict=True) if n]
        return " ".join(
            (
                f"{str(self.x.dtype).removeprefix('torch.')} {layout or 'strided'}",
                f"x={_by(self.x.shape)} weight={_by(self.weight.shape[2:])} bias={self.bias is not None}",
                *(f"{name}={_by(sides)}" for name, sides in self.window._asdict().items()),
                f"gradients={'+'.join(gradients) or None}",
                _settings(self.x.device),
            )
        )

    def candidates(self) -> list[str]:
        """The algorithms that can compute it, the stock operator first."""
        fitting = [name for name, algorithm in ALGORITHMS.items() if algorithm.fits(self.x, self.weight, self.window)]
        return sorted(fitting, key=lambda name: name != "stock")

    def needs_gradient(self) -> tuple[bool, bool, bool]:
        """For x, weight and bias: whether a backward pass will need its gradient."""
        x, weight, bias = (t is not None and t.requires_grad and torch.is_grad_enabled() for t in self[:3])
        return x, weight, bias

    def step(self, name: str, convert: Callable[[Tensor], Tensor] = lambda t: t) -> Callable[[], None]:
        """A function that runs the algorithm: forward, and backward if a gradient is needed."""
        needed = self.needs_gradient()
        x, weight, bias = (
            None if t is None else convert(t.detach()).requires_grad_(n) for t, n in zip(self[:3], needed, strict=True)
        )
        assert x is not None and weight is not None, "only the bias may be missing"
        leaves = [t for t in (x, weight, bias) if t is not None and t.requires_grad]

        def compute() -> None:
            # The caller's hooks (checkpointing sets some) must not act on the tensors saved here.
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
                y = ALGORITHMS[name].run(x, weight, bias, self.window)
                if leaves:
                    torch.autograd.grad(y, leaves, y.detach())

        return compute


class PeakBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, records in `peak` the most bytes that newly created tensors hold at one time.

    Scratch memory inside PyTorch's operators is not counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        input_storages = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        self._live = {key: held for key, held in self._live.items() if not held[0].expired()}  # type: ignore[no-untyped-call]
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in input_storages:
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._live.setdefault(storage._cdata, (reference, storage.nbytes()))
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes that tensors created by `function` hold at one time; with fake tensors, before it really runs."""
    counter = PeakBytes()
    with counter:
        function()
    return counter.peak


def time_algorithms(call: ConvCall, names: Sequence[str]) -> AlgorithmTimes:
    """Time those of the named algorithms (the stock operator first) that stay within the memory limit."""
    steps: dict[str, Callable[[], None]] = {}
    most: int | None = None
    for name in names:
        held = _warm_up(call, name, most)
        if held is not None:
            steps[name] = call.step(name)
            most = _max_bytes(call.x, held) if name == "stock" else most
    if not steps:
        return AlgorithmTimes(choose_algorithm(call.x, call.weight, call.window), {})  # the call will raise the error
    seconds = min_seconds(steps, call.x.device)
    return AlgorithmTimes(_fastest(seconds), {name: round(1000 * duration, 4) for name, duration in seconds.items()})


def _fastest(seconds: Mapping[str, float]) -> str:
    first = min(seconds, key=lambda name: seconds[name])
    return "stock" if "stock" in seconds and seconds[first] > CLEAR_WIN_RATIO * seconds["stock"] else first


def _warm_up(call: ConvCall, name: str, most: int | None) -> int | None:
    """Run an algorithm for the first time and return its peak bytes; None if over the limit or out of memory."""
    try:
        if call.x.device.type == "cpu":
            held = _estimated_bytes(call, name)
            if most is None or held <= most:
                call.step(name)()
        else:
            held = peak_bytes(call.step(name))
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        return None
    return held if most is None or held <= most else None


def _estimated_bytes(call: ConvCall, name: str) -> int:
    """Peak bytes, computed with fake tensors: on a CPU, running out of memory kills the process without an error."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # loads the compiler: more than a second

    fake = FakeTensorMode()
    step = call.step(name, fake.from_tensor)
    with fake:
        return peak_bytes(step)


def _max_bytes(x: Tensor, stock: int) -> int:
    """The memory limit of a candidate: the stock operator's, plus twice that of input and stock operator together."""
    return stock + max(ALWAYS_ALLOWED_BYTES, 2 * (x.nbytes + stock))


def _is_out_of_memory(error: Exception) -> bool:
    output = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "allocate memory" in output
        or "ALLOC_FAILED" in output
    )


def _settings(device: torch.device) -> str:
    """PyTorch's global settings that change the times."""
    if device.type == "cpu":
        return f"threads={torch.get_num_threads()}"
    conv = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    matmul = torch.backends.cuda.matmul.fp32_precision
    return f"benchmark={torch.backends.cudnn.benchmark} conv={conv} matmul={matmul}"


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
