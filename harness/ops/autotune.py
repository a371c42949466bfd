"""Autotuning: time the algorithms once per kind of call, and store the winner on disk.

Off by default. Algorithms round differently, and timings of similar algorithms vary from run to run: with tuning on,
equal runs need not be bitwise equal. The rule of thumb depends on the call alone; it is used when tuning is off, and
where nothing can be measured: under `torch.compile`, `torch.func` and dispatch modes, while a CUDA graph is captured,
and with `torch.use_deterministic_algorithms(True)`.

The stock operator is always a candidate, and another algorithm wins only if it is clearly faster. An algorithm that
needs much more memory than the stock operator, or runs out of memory, is not a candidate.
"""

import functools
import os
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn

from harness.ops.autotune_cache import AutotuneCache
from harness.ops.autotune_measure import ConvCall, time_algorithms
from harness.ops.dispatch import choose_algorithm
from harness.ops.geometry import Window


class autotune:
    """Turn autotuning on or off for the whole process; as a context manager, until its end.

    Measurements are stored in `folder`; by default in the user's cache, `$XDG_CACHE_HOME` or `~/.cache`. Do not change
    the setting between a checkpointed forward pass and the backward pass that recomputes it.
    """

    def __init__(self, enabled: bool = True, *, folder: Path | None = None) -> None:
        global _tuner
        self._before = _tuner
        _tuner = _tuner_of(folder or default_folder()) if enabled else None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _tuner
        _tuner = self._before


def default_folder() -> Path:
    """The default folder of the stored measurements."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "large-kernel-harness" / "dwconv"


def is_tuned() -> bool:
    """Whether tuning is on."""
    return _tuner is not None


def pick_algorithm(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> str:
    """The key of `ALGORITHMS` for this call: the measured winner if tuning is on, else by the rule of thumb."""
    if _tuner is None or torch.compiler.is_compiling() or not _is_measurable(x):
        return choose_algorithm(x, weight, window)
    return _tuner.winner(ConvCall(x, weight, bias, window))


def _is_measurable(x: Tensor) -> bool:
    if x.device.type not in ("cpu", "cuda") or type(x) not in (Tensor, nn.Parameter) or x.numel() == 0:
        return False
    if torch.are_deterministic_algorithms_enabled() or torch._C._are_functorch_transforms_active():
        return False
    if torch._C._len_torch_dispatch_stack() > 0:
        return False
    return x.device.type == "cpu" or not torch.cuda.is_current_stream_capturing()


class Tuner:
    """Finds the winner of a call: from memory, else from the folder, else by measurement."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[torch.device, str], str] = {}

    def winner(self, call: ConvCall) -> str:
        """The algorithm for this kind of call; measured now if it has not been measured before."""
        key = call.x.device, call.kind()
        if key not in self._known:
            self._known[key] = self._look_up(call)
        return self._known[key]

    def _look_up(self, call: ConvCall) -> str:
        names, kind = call.candidates(), call.kind()
        if names == ["stock"]:
            return "stock"
        winners = AutotuneCache(self._folder, call.x.device)
        if (times := winners.get(kind, names)) is not None:
            return times.winner
        measured = time_algorithms(call, names)
        return winners.put(kind, measured, names).winner if measured.ms else measured.winner


@functools.cache
def _tuner_of(folder: Path) -> Tuner:
    return Tuner(folder)


_tuner: Tuner | None = None
