"""Autotuning: time the algorithms once per kind of call, and store the winner on disk.

Off by default. Algorithms round differently, and timings of similar algorithms vary from run to run: with tuning on,
equal runs need not be bitwise equal. The rule of thumb depends on the call alone; it is used when tuning is off, and
where nothing can be measured: under `torch.compile`, `torch.func` and dispatch modes, while a CUDA graph is captured,
and with `torch.use_deterministic_algorithms(True)`.

The stock operator is always a candidate, and another algorithm wins only if it is clearly faster. An algorithm that
needs much more memory than the stock operator, or runs out of memory, is not a candidate.

On disk there is one JSON file per device and set of versions, shared by all processes of a user.
"""

import functools
import importlib.metadata
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType

import torch
from filelock import FileLock
from torch import Tensor, nn

from harness.ops.autotune_measure import AlgorithmTimes, ConvCall, time_algorithms
from harness.ops.dispatch import choose_algorithm
from harness.ops.geometry import Window
from harness.system.atomic_write import atomic_write_text
from harness.system.code_revision import operator_digest
from harness.system.fingerprint import fingerprint
from harness.system.machine import cpu_name, processor_features

WAIT_S = 10.0
"""How long to wait for another process that is writing; after that only this process has the measurement."""


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
        self._winners: dict[tuple[torch.device, str], str] = {}

    def winner(self, call: ConvCall) -> str:
        """The algorithm for this kind of call; measured now if it has not been measured before."""
        key = call.x.device, call.kind()
        if key not in self._winners:
            self._winners[key] = self._look_up(call)
        return self._winners[key]

    def _look_up(self, call: ConvCall) -> str:
        names, kind = call.candidates(), call.kind()
        if names == ["stock"]:
            return "stock"
        winners = AutotuneCache(self._folder, call.x.device)
        if (times := winners.get(kind, names)) is not None:
            return times.winner
        measured = time_algorithms(call, names)
        return winners.put(kind, measured, names).winner if measured.ms else measured.winner


class AutotuneCache:
    """The file of one device; its name is a fingerprint of everything that the measurements depend on.

    The file is replaced atomically. An unreadable file counts as empty and is overwritten; if the folder cannot be
    written, nothing is stored.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._about = device_conditions(device)
        self.path = folder / f"{fingerprint(self._about)}.json"

    def get(self, kind: str, names: Collection[str]) -> AlgorithmTimes | None:
        """The measurement of that kind of call, if its winner is among `names`."""
        times = self._read().get(kind)
        return times if times is not None and times.winner in names else None

    def put(self, kind: str, measured: AlgorithmTimes, names: Collection[str]) -> AlgorithmTimes:
        """Store a measurement; if another process has already stored one, return that one instead."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock"), timeout=WAIT_S, poll_interval=0.01):
                if (times := self.get(kind, names)) is not None:
                    return times
                self._write(self._read() | {kind: measured})
        except OSError:
            return measured
        return measured

    def _read(self) -> dict[str, AlgorithmTimes]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return {
                kind: AlgorithmTimes(str(entry["winner"]), dict(entry["ms"]))
                for kind, entry in content["calls"].items()
            }
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return {}

    def _write(self, calls: Mapping[str, AlgorithmTimes]) -> None:
        content = {"about": self._about, "calls": {kind: times._asdict() for kind, times in sorted(calls.items())}}
        atomic_write_text(self.path, json.dumps(content, indent=1), is_shared=True)


def device_conditions(device: torch.device) -> dict[str, str]:
    """The conditions of all measurements on a device: the device itself, the libraries, and this code."""
    versions = {
        name: ", ".join(distribution.version for distribution in importlib.metadata.distributions(name=name))
        for name in ("triton", "llvmlite")
    }
    common = {"torch": torch.__version__, **versions, "code": operator_digest()}
    if device.type == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        return common | {"device": cpu_name(), "capability": capability, "features": processor_features()}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return common | {"cuda": str(torch.version.cuda), "cudnn": str(cudnn), "device": torch.cuda.get_device_name(device)}


_tuner_of = functools.cache(Tuner)
_tuner: Tuner | None = None
