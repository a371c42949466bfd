"""Under which conditions the bench was run: without them its figures say nothing."""

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from harness import __version__
from harness.system.code_revision import code_digest, operator_digest
from harness.system.device_slot import Watch
from harness.system.machine import available_cpus, cpu_name, processor_features
from harness.training.environment import SETTINGS

PACKAGES = ("torch", "ray", "optuna", "sqlalchemy", "numpy", "llvmlite")
BUSY_PER_CPU = 0.25
"""Load per processor above which a machine does too much else to be measured."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The machine, the versions, and what else the machine was doing."""

    date: str
    machine: str
    system: str
    versions: str
    load: float
    """Mean number of processes that wanted to run, in the minute before the bench."""
    cpus: int
    is_quick: bool
    watch: Watch | None = None
    """The measurements of the bench."""

    @property
    def is_busy(self) -> bool:
        """Whether the figures cannot be trusted."""
        return self.load > BUSY_PER_CPU * self.cpus

    def lines(self) -> Iterator[str]:
        """All of it for a person."""
        yield f"Date: {self.date}"
        yield f"Machine: {self.machine}"
        yield f"System: {self.system}"
        yield f"Versions: {self.versions}"
        yield f"Load average over the minute before: {self.load:.2f} on {self.cpus} processors"
        if self.is_busy:
            yield "Warning: the machine was busy with other work, so these figures are worse than they should be."
        if self.watch is not None:
            yield from disturbed_lines(self.watch)
        if self.is_quick:
            yield "Warning: this was a quick run, of few repeats and small sizes."


def disturbed_lines(watch: Watch) -> Iterator[str]:
    """That other work of ours has disturbed measurements, where it has."""
    if watch.disturbed:
        yield (
            f"Warning: in {watch.disturbed} of {watch.measurements} measurements other work of the harness computed on "
            "the device, which did not make room in time."
        )


def conditions(*, is_quick: bool) -> Conditions:
    """The conditions now."""
    names = [("harness", __version__), ("python", platform.python_version())]
    names += [(package, version(package)) for package in PACKAGES]
    names += [("operator revision", operator_digest()), ("training code", code_digest())]
    names += [("processor features", processor_features())]
    names += [(name, os.environ[name]) for name in SETTINGS if name in os.environ]
    cpus = available_cpus()
    return Conditions(
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        machine=f"{cpu_name()}, {cpus} processors, {_memory_gib():.0f} GiB of memory",
        system=f"{platform.system()} {platform.release()}",
        versions=", ".join(f"{name} {number}" for name, number in names),
        load=os.getloadavg()[0],
        cpus=cpus,
        is_quick=is_quick,
    )


def _memory_gib() -> float:
    if sys.platform == "win32":
        return float("nan")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
