"""Autotune measurements on disk: one JSON file per device and set of versions, shared by all processes of a user."""

import importlib.metadata
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from filelock import FileLock

from harness.ops.autotune_measure import AlgorithmTimes
from harness.system.atomic_write import atomic_write_text
from harness.system.code_revision import operator_digest
from harness.system.fingerprint import fingerprint
from harness.system.machine import cpu_name, processor_features

WAIT_S = 10.0
"""How long to wait for another process that is writing; after that only this process has the measurement."""


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
        name: ", ".join(each.version for each in importlib.metadata.distributions(name=name))
        for name in ("triton", "llvmlite")
    }
    common = {"torch": torch.__version__, **versions, "code": operator_digest()}
    if device.type == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        return common | {"device": cpu_name(), "capability": capability, "features": processor_features()}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return common | {"cuda": str(torch.version.cuda), "cudnn": str(cudnn), "device": torch.cuda.get_device_name(device)}
