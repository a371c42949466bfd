"""What this machine is."""

import platform
from pathlib import Path


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be used here, as far as its driver's files tell: asking torch would cost seconds."""
    return Path("/dev/nvidiactl").exists()


def cpu_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
