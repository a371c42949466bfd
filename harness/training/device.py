"""The device of a training: how networks and images are placed on it; and the record of host, device and versions."""

import os
import platform
import socket
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.metadata import version
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from harness import __version__
from harness.config.recipes.proxy import ProxyRecipe
from harness.errors import UserError
from harness.system.code_revision import code_digest
from harness.system.machine import cpu_name
from harness.training.environment import (
    DOWNSTREAM_LIBRARIES,
    LIBRARIES,
    Device,
    Environment,
    local_environment,
    make_environment,
)
from harness.training.run import Started

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class ComputeFormat(Protocol):
    """Protocol of an object with the formats in which a network computes: a recipe, or a preprocessing."""

    @property
    def precision(self) -> str:
        """`float32`, `bfloat16` or `float16`."""

    @property
    def channels_last(self) -> bool:
        """Whether images and weights are stored channels last."""


def memory_format(recipe: ComputeFormat) -> torch.memory_format:
    """The memory format of images and weights."""
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


def place_network(network: ModuleT, recipe: ComputeFormat, device: torch.device) -> ModuleT:
    """Move a network to the device, in the recipe's memory format; returns the same object."""
    return network.to(device).to(memory_format=memory_format(recipe))


def place_images(images: Tensor, recipe: ComputeFormat, device: torch.device) -> Tensor:
    """Images (N, C, H, W) on the device, in the recipe's memory format."""
    return images.to(device, non_blocking=True).contiguous(memory_format=memory_format(recipe))


def autocast(recipe: ComputeFormat, device: torch.device) -> AbstractContextManager[object]:
    """Context of mixed precision in the recipe's precision; does nothing for float32."""
    return torch.autocast(device.type, getattr(torch, recipe.precision), enabled=recipe.precision != "float32")


def require_precision(precision: str, device: torch.device, name: str = "`precision: float16`") -> None:
    """Raise `UserError`, which begins with `name`, for a precision that the device does not support."""
    if precision == "float16" and device.type == "cpu":
        raise UserError(f"{name} needs a GPU", remedy="Take bfloat16 or float32.")


def find_device(name: str | None = None) -> torch.device:
    """The device of that name; by default a GPU if there is one. Raises `UserError` for a GPU that is not available."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "the device must be one that PyTorch can use", value=name, remedy="Leave --device out, or use cpu."
        )
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def isolated_rng(device: torch.device) -> AbstractContextManager[None]:
    """Context that restores the global random state, from which stochastic depth draws."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def environment_of(recipe: ProxyRecipe, device: torch.device, threads: int) -> Environment:
    """The environment in which this process computes a run of that recipe."""
    kind: Device = "cuda" if device.type == "cuda" else "cpu"
    return with_torch_settings(
        local_environment(recipe, threads=threads, device=kind, device_name=device_name(device)),
    )


def process_environment(device: torch.device, *, precision: str = "float32", threads: int | None = None) -> Environment:
    """The environment of this process for results outside a study: of a training at full scale, or of a command.

    Its code digest covers all code that trains, measures and evaluates; `threads` defaults to PyTorch's current number.
    """
    environment = make_environment(
        code_digest(full_scale=True),
        LIBRARIES + DOWNSTREAM_LIBRARIES,
        threads=threads or torch.get_num_threads(),
        device="cuda" if device.type == "cuda" else "cpu",
        device_name=device_name(device),
        precision=precision,
    )
    return with_torch_settings(environment)


def with_torch_settings(environment: Environment) -> Environment:
    """The environment with PyTorch's version and CPU capability as PyTorch reports them."""
    return replace(environment, torch=str(torch.__version__), capability=torch.backends.cpu.get_cpu_capability())


def device_name(device: torch.device) -> str:
    """Name of the device, as `NVIDIA H200` or `AMD EPYC`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def started_record(
    device: torch.device, threads: int, *, epochs: int, first_epoch: int = 1, environment: Environment | None = None
) -> Started:
    """The `Started` record of this process."""
    return Started(
        host=socket.gethostname(),
        pid=os.getpid(),
        device=_describe(device, threads),
        threads=threads,
        versions={
            "harness": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": version("numpy"),
            "timm": version("timm"),
        },
        epochs=epochs,
        first_epoch=first_epoch,
        environment=environment,
    )


def _describe(device: torch.device, threads: int) -> str:
    """The device as text, such as `cuda (NVIDIA H200)` or `cpu (AMD EPYC, 1 thread)`."""
    if device.type == "cuda":
        return f"cuda ({device_name(device)})"
    return f"cpu ({device_name(device)}, {threads} thread{'s' if threads > 1 else ''})"
