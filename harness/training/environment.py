"""The environment of a run: all that affects its result besides spec, recipe and seed, such as code and libraries.

In equal environments, equal runs have bitwise equal results. In another environment, the result is another sample of
the same distribution, and times differ. This module describes the environment of this machine without importing torch.
"""

import functools
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from harness.config.recipes.proxy import ProxyRecipe
from harness.system.code_revision import code_digest, operator_digest
from harness.system.machine import cpu_capability, cpu_name, gpu_name, has_gpu, processor_features

LIBRARIES = ("numpy", "timm", "pillow", "llvmlite")
"""Packages whose code affects results: images, initial weights, augmentation, and the operator's loops on a CPU."""
DOWNSTREAM_LIBRARIES = ("torchvision", "segmentation-models-pytorch")
CUDA_LIBRARIES = ("triton", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
SETTINGS = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
)
"""Environment variables that change how the libraries compute."""
UNKNOWN_ENVIRONMENT = "unknown environment, recorded before environments were kept"
"""Text instead of the differences, if the other environment is unknown."""

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The environment that computed a run. A field that is None is unknown, and left out of comparisons."""

    operator: str | None = None
    """Digest of the code of the large depth-wise convolution."""
    code: str | None = None
    """Digest of the other code that trains and measures."""
    torch: str | None = None
    libraries: Mapping[str, str] | None = None
    """Versions of the other packages, by name."""
    capability: str | None = None
    """Instruction set of PyTorch's CPU kernels, as `AVX512`."""
    processor: str | None = None
    """Features of the processor, as `avx2+fma+avx512f`."""
    threads: int | None = None
    device: str | None = None
    """`cpu` or `cuda`."""
    device_name: str | None = None
    precision: str | None = None
    settings: Mapping[str, str] | None = None
    """The environment variables of `SETTINGS` that are set."""

    def values(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any] | None) -> Self | None:
        """The inverse of `values`; keys that this version does not have are ignored."""
        if values is None:
            return None
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    def differences(self, other: "Environment") -> dict[str, tuple[Any, Any]]:
        """By field name, the values of both environments if both are known and differ."""
        pairs = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        return {name: pair for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]}


def differs(environment: Environment | None, reference: Environment) -> bool:
    """Whether results and times may differ between an environment and the reference; True for an unknown one."""
    return environment is None or bool(environment.differences(reference))


def describe_difference(environment: Environment | None, reference: Environment) -> str:
    """The fields that differ from a reference, as `operator revision a1b2, torch 2.14`; empty if there are none."""
    if environment is None:
        return UNKNOWN_ENVIRONMENT
    return ", ".join(_parts(environment, environment.differences(reference)))


def describe_environment(environment: Environment | None) -> str:
    """All known fields of an environment, in the format of `describe_difference`."""
    if environment is None:
        return UNKNOWN_ENVIRONMENT
    pairs = {field.name: (getattr(environment, field.name), None) for field in fields(environment)}
    return ", ".join(_parts(environment, {name: pair for name, pair in pairs.items() if pair[0] not in (None, {})}))


def local_environment(
    recipe: ProxyRecipe,
    *,
    threads: int = 1,
    gpus: float = 0.0,
    device: Device | None = None,
    device_name: str | None = None,
) -> Environment:
    """The environment of a run of that recipe on this machine, determined without torch.

    `device` and `device_name` are those of a worker; by default, those that a worker would choose.
    """
    is_downstream = recipe.transfer is not None
    if device is None:
        device = "cuda" if gpus > 0 and _can_see_gpu() else "cpu"
    return make_environment(
        code_digest(downstream=is_downstream),
        LIBRARIES + (DOWNSTREAM_LIBRARIES if is_downstream else ()),
        threads=threads,
        device=device,
        device_name=device_name,
        precision=recipe.precision,
    )


def make_environment(
    code: str, libraries: Sequence[str], *, threads: int, device: Device, device_name: str | None, precision: str
) -> Environment:
    """The environment of this process, for code with digest `code` that uses the packages `libraries`."""
    is_gpu = device == "cuda"
    names = (*libraries, *(CUDA_LIBRARIES if is_gpu else ()))
    return Environment(
        operator=operator_digest(),
        code=code,
        torch=torch_version(),
        libraries={name: version for name in names if (version := _version(name)) is not None},
        capability=cpu_capability(),
        processor=processor_features(),
        threads=threads,
        device=device,
        device_name=device_name or (gpu_name() if is_gpu else cpu_name()),
        precision=precision,
        settings={name: os.environ[name] for name in SETTINGS if name in os.environ},
    )


def cluster_environment(environment: Environment) -> Environment:
    """The fields of the driver's environment that also hold for workers on a cluster: code, threads and precision."""
    shared = {"operator", "code", "threads", "precision"}
    return replace(environment, **{field.name: None for field in fields(environment) if field.name not in shared})


@functools.cache
def torch_version() -> str | None:
    """`torch.__version__`, read from its file; None if PyTorch is not installed."""
    module_spec = importlib.util.find_spec("torch")
    if module_spec is None or module_spec.origin is None:
        return None
    try:
        text = Path(module_spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return _version("torch")
    match = re.search(r"^__version__ = ['\"](.+)['\"]", text, re.MULTILINE)
    return match.group(1) if match else _version("torch")


def _can_see_gpu() -> bool:
    return has_gpu() and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1")


@functools.cache
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _parts(environment: Environment, differences: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """Text for each differing field, with this environment's value."""
    for name, (value, other_value) in differences.items():
        match name:
            case "operator":
                yield f"operator revision {value}"
            case "code":
                yield f"training code {value}"
            case "torch":
                yield f"torch {value}"
            case "libraries" | "settings":
                yield from _entries(value, other_value or {}, " " if name == "libraries" else "=")
            case "capability":
                yield f"{value} kernels"
            case "processor":
                yield f"processor features {value}"
            case "threads":
                yield f"{value} thread{'s' * (value != 1)}"
            case "device":
                yield f"device {value}" + (f" ({environment.device_name})" if environment.device_name else "")
            case "device_name" if "device" not in differences:
                yield str(value)
            case "precision":
                yield str(value)


def _entries(entries: Mapping[str, str], other: Mapping[str, str], between: str) -> Iterator[str]:
    for key in sorted({*entries, *other}):
        if entries.get(key) != other.get(key):
            yield f"{key}{between}{entries[key]}" if key in entries else f"no {key}"
