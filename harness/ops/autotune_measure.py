"""One call of the convolution, and its measurement: which algorithms can compute it, in what memory and what time.

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
"""Another algorithm must take less than this share of the stock operator's time to be preferred to it."""
ALWAYS_ALLOWED_BYTES = 64 << 20
"""Memory that every candidate may hold beyond the stock operator's, however small the call."""


class AlgorithmTimes(NamedTuple):
    """The fastest algorithm for one kind of call, and the milliseconds of all that were timed."""

    winner: str
    ms: dict[str, float]


class ConvCall(NamedTuple):
    """One call of the convolution, in the precision in which it is computed."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    window: Window

    def kind(self) -> str:
        """All that the time depends on, readable: calls of one kind have one winner."""
        layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        layout = "+".join(name for name, each in layouts.items() if self.x.is_contiguous(memory_format=each))
        wanted = [name for name, needed in zip(("x", "weight", "bias"), self.needs_gradient(), strict=True) if needed]
        return " ".join(
            (
                f"{str(self.x.dtype).removeprefix('torch.')} {layout or 'strided'}",
                f"x={_by(self.x.shape)} weight={_by(self.weight.shape[2:])} bias={self.bias is not None}",
                *(f"{name}={_by(sides)}" for name, sides in self.window._asdict().items()),
                f"gradients={'+'.join(wanted) or None}",
                _settings(self.x.device),
            )
        )

    def candidates(self) -> list[str]:
        """The algorithms that can take it, the stock operator first."""
        fitting = [name for name, each in ALGORITHMS.items() if each.fits(self.x, self.weight, self.window)]
        return sorted(fitting, key=lambda name: name != "stock")

    def needs_gradient(self) -> tuple[bool, bool, bool]:
        """Of x, weight, bias: whether a backward pass will ask for its gradient."""
        x, weight, bias = (t is not None and t.requires_grad and torch.is_grad_enabled() for t in self[:3])
        return x, weight, bias

    def step(self, name: str, convert: Callable[[Tensor], Tensor] = lambda t: t) -> Callable[[], None]:
        """What an algorithm has to do: forward, and backward where a gradient is wanted."""
        needed = self.needs_gradient()
        x, weight, bias = (
            None if t is None else convert(t.detach()).requires_grad_(n) for t, n in zip(self[:3], needed, strict=True)
        )
        assert x is not None and weight is not None, "only the bias may be missing"
        wanted = [t for t in (x, weight, bias) if t is not None and t.requires_grad]

        def compute() -> None:
            # Hooks of the caller's, as checkpointing sets them, are not meant for what is saved here.
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
                y = ALGORITHMS[name].run(x, weight, bias, self.window)
                if wanted:
                    torch.autograd.grad(y, wanted, y.detach())

        return compute


class PeakBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, `peak` grows to the most bytes that tensors made meanwhile held at one time.

    Scratch memory inside PyTorch's operators is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        self._live = {key: held for key, held in self._live.items() if not held[0].expired()}  # type: ignore[no-untyped-call]
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._live.setdefault(storage._cdata, (reference, storage.nbytes()))
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes that tensors which `function` makes hold at one time; with fake tensors, before it is run."""
    seen = PeakBytes()
    with seen:
        function()
    return seen.peak


def time_algorithms(call: ConvCall, names: Sequence[str]) -> AlgorithmTimes:
    """Time those of the named algorithms, the stock operator first, that have the memory for it."""
    steps: dict[str, Callable[[], None]] = {}
    most: int | None = None
    for name in names:
        held = _warm_up(call, name, most)
        if held is not None:
            steps[name] = call.step(name)
            most = _max_bytes(call.x, held) if name == "stock" else most
    if not steps:
        return AlgorithmTimes(choose_algorithm(call.x, call.weight, call.window), {})  # let the call itself say so
    seconds = min_seconds(steps, call.x.device)
    return AlgorithmTimes(_fastest(seconds), {name: round(1000 * each, 4) for name, each in seconds.items()})


def _fastest(seconds: Mapping[str, float]) -> str:
    first = min(seconds, key=lambda name: seconds[name])
    return "stock" if "stock" in seconds and seconds[first] > CLEAR_WIN_RATIO * seconds["stock"] else first


def _warm_up(call: ConvCall, name: str, most: int | None) -> int | None:
    """Run an algorithm for the first time and return the bytes that it held; None where it may not or cannot."""
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
    """Asked with tensors that have no memory: a CPU without any left kills the process instead of saying so."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # loads the compiler: more than a second

    fake = FakeTensorMode()
    step = call.step(name, fake.from_tensor)
    with fake:
        return peak_bytes(step)


def _max_bytes(x: Tensor, stock: int) -> int:
    """What a candidate may hold: as much as the stock operator, and twice all that the call works on."""
    return stock + max(ALWAYS_ALLOWED_BYTES, 2 * (x.nbytes + stock))


def _is_out_of_memory(error: Exception) -> bool:
    output = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "allocate memory" in output
        or "ALLOC_FAILED" in output
    )


def _settings(device: torch.device) -> str:
    """What a program may set that changes the times."""
    if device.type == "cpu":
        return f"threads={torch.get_num_threads()}"
    conv = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    matmul = torch.backends.cuda.matmul.fp32_precision
    return f"benchmark={torch.backends.cudnn.benchmark} conv={conv} matmul={matmul}"


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))
