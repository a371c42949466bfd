"""Times measured with exclusive use of the device and cached on disk, so that equal networks share one measurement.

The times depend on the merged network's structure and not on its weights, so all seeds of a configuration, and all
configurations that merge into one network, have the same latency in every table.
"""

import contextlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.measures.base import TrainedRun
from harness.ops.autotune import is_tuned
from harness.system.atomic_write import atomic_write_text
from harness.system.code_revision import operator_digest
from harness.system.device_slot import COMPUTER_WAITS_S, measuring
from harness.system.fingerprint import fingerprint
from harness.system.machine import cpu_name

SCALARS = (bool, int, float, str, tuple, type(None))
REVISION = 1
"""Increased when times are measured in a different way."""

MetricValues = dict[str, float]


def time_undisturbed(trained: TrainedRun, measure: Callable[[], MetricValues]) -> tuple[MetricValues, bool]:
    """Measure while no other harness process computes on the device; also returns whether that was achieved."""
    with measuring(trained.device) as quiet:
        start = time.monotonic()
        metrics = measure()
        held_s = time.monotonic() - start
    return metrics, quiet.is_quiet and held_s < COMPUTER_WAITS_S


def cached_times(
    trained: TrainedRun, name: str, model: nn.Module, images: Tensor, measure: Callable[[], MetricValues]
) -> tuple[MetricValues, bool]:
    """The times of this network under these conditions, from `trained.times` or measured now.

    Only undisturbed measurements are stored. Returns the metrics, and whether they are undisturbed.
    """
    key = timing_conditions(name, model, images)
    path = None if trained.times is None else trained.times / f"{name}-{fingerprint(key)}.json"
    if path is not None and (cached := _read(path, key)) is not None:
        return cached, True

    def unless_kept() -> MetricValues:
        """Another worker may have measured the same while this one waited."""
        return (None if path is None else _read(path, key)) or measure()

    metrics, is_quiet = time_undisturbed(trained, unless_kept)
    is_quiet = is_quiet and not any(name.endswith("_disturbed") for name in metrics)
    if path is not None and is_quiet:
        _write(path, key, metrics)
    return metrics, is_quiet


def timing_conditions(name: str, model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Everything that the network's times depend on."""
    device = images.device
    return {
        "times": name,
        "revision": REVISION,
        "network": network_digest(model),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "machine": platform.machine(),
        "precision": str(images.dtype).removeprefix("torch."),
        "shape": list(images.shape),
        "is_channels_last": images.is_contiguous(memory_format=torch.channels_last),
        "threads": torch.get_num_threads(),
        "operator": operator_digest(),
        "is_tuned": is_tuned(),
        "torch": str(torch.__version__),
    }


def network_digest(model: nn.Module) -> str:
    """Fingerprint of a network's structure, without its weights: modules, their settings, shapes of their tensors."""
    modules = [
        [
            name,
            type(module).__qualname__,
            sorted((key, repr(value)) for key, value in vars(module).items() if isinstance(value, SCALARS)),
            [
                (key, list(tensor.shape), str(tensor.dtype))
                for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            ],
        ]
        for name, module in model.named_modules()
    ]
    return fingerprint(modules)


def _read(path: Path, key: Mapping[str, Any]) -> MetricValues | None:
    """The metrics in a file; None if it is missing, damaged, or for other conditions."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["conditions"] != key:
            return None
        return {str(name): float(value) for name, value in kept["metrics"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, key: Mapping[str, Any], metrics: MetricValues) -> None:
    """Store the metrics; if the folder is not writable, they are measured again next time, and no run fails."""
    text = json.dumps({"conditions": key, "metrics": metrics}, indent=1)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, text, is_shared=True)
