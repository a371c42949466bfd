"""Options of the benches of operators and networks, with defaults that fit the device; imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

from harness.models.spec.network import NetworkSpec

ProgressCallback = Callable[[str], None]
MODES = ("forward", "forward+backward")
NETWORK_MODES = ("inference", "training")
LAYOUTS = ("default", "channels_last")
CONV2D = "conv2d"
"""What `nn.Conv2d` calls; the algorithm `stock` is the same."""
CHOSEN = "harness"
"""What our blocks call, with the algorithm that the default heuristic selects."""
TUNED = "tuned"
"""The same with `autotune` on: the fastest algorithm on this machine."""
KERNELS = (3, 5, 7, 9, 13, 17, 21, 27, 29, 31)
SIDES = (16, 32, 64)
"""Sides of the maps in Table 1 of the RepLKNet paper (arXiv 2203.06717)."""


class StackShape(NamedTuple):
    """A stack of equal depth-wise layers: N `batch`, C `channels`, square maps and square kernels."""

    batch: int
    channels: int
    side: int
    kernel: int
    layers: int = 1

    def __str__(self) -> str:
        deep = f" x{self.layers}" if self.layers > 1 else ""
        return f"({self.batch}, {self.channels}, {self.side}, {self.side}) K={self.kernel}{deep}"


ROWS = (
    StackShape(8, 128, 56, 31),
    StackShape(8, 256, 28, 29),
    StackShape(8, 512, 14, 27),
    StackShape(8, 1024, 7, 13),
    StackShape(32, 32, 32, 31),
    StackShape(64, 384, 16, 31),
    StackShape(32, 64, 16, 13),
    StackShape(32, 32, 32, 5),
    StackShape(32, 32, 32, 3),
)
"""Single layers: the four stages of RepLKNet-31B at 224 px, stages of proxies, and one entry of Table 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DwconvOptions:
    """Options of `harness bench dwconv`; None and empty values are replaced by defaults that fit the device."""

    device: str | None = None
    precisions: tuple[str, ...] = ()
    batch: int | None = None
    channels: int | None = None
    layers: int | None = None
    sides: tuple[int, ...] = ()
    kernels: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether no option was given, so that all defaults of the device are measured."""
        return all(getattr(self, field.name) in (None, ()) for field in fields(self))

    def shapes(self, device: str, *, is_quick: bool) -> tuple[StackShape, ...]:
        """The stacks of Table 1; on a CPU, where they would take hours, one layer on (8, 128, R, R)."""
        batch, channels, layers = (64, 384, 24) if device == "cuda" else (8, 128, 1)
        sides, kernels = (self.sides or SIDES), (self.kernels or KERNELS)
        if is_quick:
            sides, kernels = (self.sides or (16, 32)), (self.kernels or (3, 13, 31))
        return tuple(
            StackShape(self.batch or batch, self.channels or channels, side, kernel, self.layers or layers)
            for side in sides
            for kernel in kernels
        )

    def rows(self, *, is_quick: bool) -> tuple[StackShape, ...]:
        """The rows of single layers; none if sizes were given."""
        has_size = bool(self.batch or self.channels or self.layers or self.sides or self.kernels)
        return () if is_quick or has_size else ROWS


BASELINES = ("swin_base_patch4_window7_224", "swin_base_patch4_window12_384", "convnext_base")
"""The default baselines of timm: the networks that the paper compares, with similar MACs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Options of `harness bench network`; None and empty values are replaced by defaults that fit the device."""

    networks: Mapping[str, NetworkSpec]
    """The networks by the names that the tables have for them."""
    resolutions: tuple[int, ...] = (224,)
    beside: tuple[str, ...] = BASELINES
    device: str | None = None
    precisions: tuple[str, ...] = ()
    batch: int | None = None

    def batch_for(self, device: str) -> int:
        """The batch size: the paper's 64 on a GPU, 1 on a CPU."""
        return self.batch or (64 if device == "cuda" else 1)


def precisions_for(device: str, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """The given precisions; by default float32, and on a GPU also bfloat16."""
    return chosen or (("float32", "bfloat16") if device == "cuda" else ("float32",))
