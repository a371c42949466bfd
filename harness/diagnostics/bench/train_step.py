"""A whole training step of a proxy, with our operator and with `nn.Conv2d`.

A step is that of a run (`harness.training.fit`): forward, loss, backward, clipping, optimizer; on one thread, like a
worker of the shipped study. The candidates are timed in turn in one process, on one batch.

Shapes: images (N, C, R, R); batch size and resolution are the recipe's.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.recipes.proxy import ProxyRecipe
from harness.diagnostics.bench.base import BenchResult, BenchSize
from harness.diagnostics.bench.machine import MEMORY_FORMATS
from harness.diagnostics.bench.network import with_conv2d
from harness.diagnostics.bench.proxies import kernel_size
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.ops.timing import TimingBudget, cpu_threads, time_interleaved
from harness.system.device_slot import computing
from harness.system.machine import keep_freed_memory
from harness.training.optim import backward_and_step, build_proxy_optimizer

OVER_NATIVE = 7.0
"""The target for the speedup over PyTorch's operator in its default layout."""
CPU = torch.device("cpu")


def training_step(effort: BenchSize) -> Iterator[BenchResult]:
    """Measure a step of the network of kernel_size.yaml with the most MACs."""
    keep_freed_memory()  # as a worker does
    specs, recipe = kernel_size()
    with computing():
        bench_results = list(step_results(specs[-1], recipe, 3 * effort.rounds))
    yield from bench_results


def step_results(spec: NetworkSpec, recipe: ProxyRecipe, rounds: int) -> Iterator[BenchResult]:
    """The speedup of a step over `nn.Conv2d`, in both layouts, and the milliseconds of each."""
    networks = {"harness": build(spec, merged=False, seed=0)}
    networks |= {name: with_conv2d(build(spec, merged=False, seed=0)) for name in MEMORY_FORMATS}
    shape = recipe.batch_size, spec.in_channels, recipe.resolution, recipe.resolution
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layout = "channels_last" if recipe.channels_last else "default"
    calls = {
        name: _step(module, images, {"harness": layout}.get(name, name), recipe) for name, module in networks.items()
    }
    with cpu_threads(1):
        times = time_interleaved(calls, CPU, TimingBudget(min_samples=rounds, max_samples=rounds, budget_s=0.0))
    seconds = {name: timings.seconds for name, timings in times.items() if timings is not None}
    sizes = "-".join(map(str, spec.K))
    for name, aim in (("default", OVER_NATIVE), ("channels_last", None)):
        ratios = tuple(a / b for a, b in zip(seconds[name], seconds["harness"], strict=True))
        about = f"training step at K={sizes}: nn.Conv2d, {name.replace('_', '-')}, over ours"
        yield BenchResult(name=about, unit="x", values=ratios, at_least=aim)
        for label, key in (("nn.Conv2d", name), ("ours", "harness")):
            yield BenchResult(name=label, unit="ms", values=tuple(1000 * s for s in seconds[key]), is_part=True)


def _step(network: nn.Module, images: Tensor, layout: str, recipe: ProxyRecipe) -> Callable[[], None]:
    network.to(memory_format=MEMORY_FORMATS[layout]).train()
    images, labels = images.contiguous(memory_format=MEMORY_FORMATS[layout]), torch.zeros(len(images), dtype=torch.long)
    optimizer = build_proxy_optimizer(network, recipe.optimizer)
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def step() -> None:
        loss = F.cross_entropy(network(images), labels, label_smoothing=recipe.label_smoothing)
        backward_and_step(loss, optimizer, scaler, clip_norm=recipe.optimizer.clip_norm)

    return step
