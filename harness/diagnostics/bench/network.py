"""Images per second of whole networks: ours with our operator and with `nn.Conv2d`, and baselines of timm.

All networks of one mode are timed in turn, in one process, on the same images. Inference uses merged networks. A step
of training is forward, cross-entropy, backward and plain SGD.

Shapes: N batch, R side of the images.
Source of the published values: RepLKNet (arXiv 2203.06717), table 6 and the remark to guideline 1.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.diagnostics.bench.base import LAYOUTS, NETWORK_MODES, NetworkOptions, ProgressCallback, precisions_for
from harness.diagnostics.bench.machine import MEMORY_FORMATS, at_precision
from harness.diagnostics.bench.reports import NetworkResult
from harness.errors import UserError, did_you_mean
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.ops import DepthwiseConv2d
from harness.ops.timing import TimingBudget, Timings, time_interleaved
from harness.system.device_slot import measuring
from harness.training.device import device_name

NETWORK_TIMING = {
    "cpu": TimingBudget(min_samples=2, max_samples=10, budget_s=2.0, single_sample_s=120.0),
    "cuda": TimingBudget(min_samples=5, max_samples=20, budget_s=3.0, single_sample_s=120.0),
}
QUICK_NETWORK_TIMING = TimingBudget(min_samples=1, max_samples=2, budget_s=0.0, single_sample_s=120.0)
SHARE_PASSES = {"cpu": 1, "cuda": 5}
"""Passes over which the median share is taken; few on a CPU, where a pass takes seconds."""
LEARNING_RATE = 1e-4
SMALL = 5
"""Kernels up to this side do not count as large; for these the paper keeps PyTorch's operator."""


def depthwise_share(step: Callable[[], object], network: nn.Module, device: torch.device, *, passes: int) -> float:
    """The share of the time of a network that is spent in its large depth-wise convolutions, forward and backward.

    It is the median over `passes` calls of `step`, which runs the warm `network`; 0 without such layers. The time is
    recorded before and after each such layer, in both directions: on a GPU with CUDA events, which do not synchronize,
    and on a CPU with the clock. Source: RepLKNet, guideline 1: 49.5 % of the latency with PyTorch's operator, 12.3 %
    with theirs.
    """
    return statistics.median(_share(step, network, device) for _ in range(passes))


def is_large_depthwise(module: nn.Module) -> bool:
    """Whether the module is a depth-wise convolution with a kernel larger than 5x5."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels and max(module.kernel_size) > SMALL


def _share(step: Callable[[], object], network: nn.Module, device: torch.device) -> float:
    marks = LayerTimer(device)
    hooks = [hook for module in network.modules() if is_large_depthwise(module) for hook in marks.watch(module)]
    try:
        marks.mark(False)
        step()
        marks.mark(False)
    finally:
        for hook in hooks:
            hook.remove()
    return marks.share_inside()


class LayerTimer:
    """Records the times at which large depth-wise layers are entered and left."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[bool, Any]] = []

    def watch(self, module: nn.Module) -> list[Any]:
        """Record when the module's forward and backward pass begin and end; returns the hooks, to be removed."""
        return [
            module.register_forward_pre_hook(lambda *_: self.mark(True)),
            module.register_forward_hook(lambda *_: self.mark(False)),
            module.register_full_backward_pre_hook(lambda *_: self.mark(True)),
            module.register_full_backward_hook(lambda *_: self.mark(False)),
        ]

    def mark(self, is_inside: bool) -> None:
        """Record that a large layer is computed from now on, or none, as at the start of the whole and at its end."""
        if self._device.type == "cuda":
            moment: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            moment.record()
        else:
            moment = time.perf_counter()
        self._marks.append((is_inside, moment))

    def share_inside(self) -> float:
        """The share of the time between the first and the last mark that was spent inside large layers."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        is_gpu = self._device.type == "cuda"
        inside = whole = 0.0
        for (is_inside, start), (_, end) in pairwise(self._marks):
            span = start.elapsed_time(end) if is_gpu else end - start
            whole += span
            inside += span if is_inside else 0.0
        return inside / whole


def baselines_at(names: Sequence[str], resolution: int) -> tuple[str, ...]:
    """The named networks that accept images of this side. Raises `UserError` for a name that timm does not have."""
    import timm

    for name in names:
        if not timm.is_model(name):
            rule = "a baseline must be one of timm's networks"
            raise UserError(rule, value=name, remedy=did_you_mean(name, timm.list_models(), "timm's")[:400])
    return tuple(name for name in names if _side(name) in (resolution, None))


def _side(name: str) -> int | None:
    """The only side of images that the network accepts; None for any."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return config.input_size[-1] if config is not None and config.fixed_input_size else None


class NetworkCandidate(NamedTuple):
    """A network, how its depth-wise convolutions are computed, and its memory layout."""

    network: str
    kernels: str
    layout: str


class NetworkSetting(NamedTuple):
    """The settings that all candidates of one mode share."""

    mode: str
    device: torch.device
    precision: str
    dtype: torch.dtype
    resolution: int
    batch: int
    timing: TimingBudget


def measure_networks(
    options: NetworkOptions, device: torch.device, tell: ProgressCallback, *, is_quick: bool
) -> Iterator[NetworkResult]:
    """A row for each candidate, mode, resolution and precision; `tell` is called with the progress."""
    batch, budget = options.batch_for(device.type), QUICK_NETWORK_TIMING if is_quick else NETWORK_TIMING[device.type]
    for precision in precisions_for(device.type, options.precisions):
        with at_precision(precision) as dtype:
            for resolution in options.resolutions:
                beside = baselines_at(options.beside, resolution)
                for mode in NETWORK_MODES:
                    tell(f"measuring: {mode} at {resolution}, batch {batch}, {precision}")
                    setting = NetworkSetting(mode, device, precision, dtype, resolution, batch, budget)
                    yield from _rows(make_networks(options.networks, beside, mode), setting)


def make_networks(
    specs: Mapping[str, NetworkSpec], beside: tuple[str, ...], mode: str
) -> dict[NetworkCandidate, nn.Module]:
    """The candidates of a mode: ours with both operators and layouts, the baselines in both layouts."""
    import timm

    networks: dict[NetworkCandidate, nn.Module] = {}
    for layout in LAYOUTS:
        for name, spec in specs.items():
            ours, theirs = (build(spec, merged=mode == "inference", seed=0) for _ in range(2))
            networks[NetworkCandidate(name, "harness", layout)] = ours
            networks[NetworkCandidate(name, "conv2d", layout)] = with_conv2d(theirs)
        for name in beside:
            networks[NetworkCandidate(name, "timm", layout)] = timm.create_model(name, pretrained=False)
    return {key: network.train(mode == "training") for key, network in networks.items()}


def with_conv2d(network: nn.Module) -> nn.Module:
    """Replace the network's depth-wise convolutions by `nn.Conv2d` in place, with the same weights."""
    for module in network.modules():
        if isinstance(module, DepthwiseConv2d):
            object.__setattr__(module, "__class__", nn.Conv2d)  # they differ only in `forward`
    return network


def _rows(networks: dict[NetworkCandidate, nn.Module], setting: NetworkSetting) -> Iterator[NetworkResult]:
    steps = {key: NetworkPass(network, key.layout, setting) for key, network in networks.items()}
    times = time_interleaved(steps, setting.device, setting.timing)
    best_s = {key[:2]: _best_s(times, key) for key in times}
    for key, timings in times.items():
        conv2d_s = best_s.get((key.network, "conv2d"))
        is_shared = timings is not None and key.kernels != "timm" and timings.median == best_s[key[:2]]
        share = steps[key].share() if is_shared else None
        rates = (None,) * 3 if timings is None else _rates(timings, setting.batch)
        yield NetworkResult(
            **key._asdict(),
            device=device_name(setting.device),
            precision=setting.precision,
            resolution=setting.resolution,
            batch=setting.batch,
            mode=setting.mode,
            n=timings.n if timings else 0,
            images_per_s=rates[0],
            slow_images_per_s=rates[1],
            fast_images_per_s=rates[2],
            gain=conv2d_s / timings.median if timings and conv2d_s is not None else None,
            depthwise_share=share,
        )


def _best_s(times: Mapping[NetworkCandidate, Timings | None], key: NetworkCandidate) -> float | None:
    """The smallest median over the layouts, for a network with one operator."""
    some = (timings for other, timings in times.items() if other[:2] == key[:2])
    return min((timings.median for timings in some if timings is not None), default=None)


def _rates(times: Timings, batch: int) -> tuple[float, float, float]:
    """Images per second at the median and at the third and the first quartile of the time."""
    first, third = times.quartiles
    return batch / times.median, batch / third, batch / first


class NetworkPass:
    """One pass of a network over one batch, in the mode and the precision of the setting."""

    def __init__(self, network: nn.Module, layout: str, setting: NetworkSetting) -> None:
        self._setting = setting
        self._network = network.to(setting.device).to(memory_format=MEMORY_FORMATS[layout])
        shape = (setting.batch, _channels(network), setting.resolution, setting.resolution)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(shape, generator=generator).to(setting.device)
        self._images = images.to(memory_format=MEMORY_FORMATS[layout])
        self._labels = torch.zeros(setting.batch, dtype=torch.long, device=setting.device)
        self._optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
        self._scaler = torch.amp.GradScaler(setting.device.type, enabled=setting.dtype == torch.float16)

    def __call__(self) -> None:
        """Run a pass of inference or a training step, depending on the mode."""
        if self._setting.mode == "inference":
            with torch.no_grad():
                self._logits()
            return
        loss = F.cross_entropy(self._logits().float(), self._labels)
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def share(self) -> float:
        """The share of the time in large depth-wise convolutions; measured in separate passes."""
        device = self._setting.device
        with measuring(device):
            return depthwise_share(self, self._network, device, passes=SHARE_PASSES[device.type])

    def _logits(self) -> Tensor:
        dtype = self._setting.dtype
        with torch.autocast(self._setting.device.type, dtype, enabled=dtype != torch.float32):
            logits: Tensor = self._network(self._images)
        return logits


def _channels(network: nn.Module) -> int:
    """The number of image channels of the network."""
    return next(module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d))
