"""The training of proxies: in Ray workers and inline, with two workers and one, and a single step of it.

All workers are running and warm before anything is timed, so the comparison covers training and the transfer of jobs
and records. A round trains once in every way, and the order alternates between rounds. Two processors may be two
threads of one core: two plain processes in parallel, without Ray, show what the hardware allows.

A step, with our operator and with `nn.Conv2d`, is that of a run (`harness.training.fit`): forward, loss, backward,
clipping, optimizer; on one thread, like a worker of the shipped study. The candidates are timed in turn in one process,
on one batch.

Shapes: images (N, C, R, R); batch size and resolution are the recipe's.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.analysis.study_reader import open_space
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.study_file import load_study
from harness.diagnostics.bench.base import ROOT, BenchResult, BenchSize
from harness.diagnostics.bench.machine import MEMORY_FORMATS
from harness.diagnostics.bench.network import with_conv2d
from harness.errors import HarnessError
from harness.executors import make_executor
from harness.executors.base import Executor, WorkerRequest
from harness.models.build import build
from harness.models.spec.network import NetworkSpec
from harness.ops.timing import TimingBudget, cpu_threads, time_interleaved
from harness.system.device_slot import MachineSlot, computing, separate_slots
from harness.system.machine import available_cpus, keep_freed_memory
from harness.training.optim import backward_and_step, build_proxy_optimizer
from harness.training.run import Ended, Job, Measured, Record, Run, RunState

END_S = 10.0
"""Seconds that the process has to end before it is killed."""
RAY_OVER_INLINE = 1.05
TWO_OVER_ONE = 1.7
"""The targets of the two ratios."""
MINUTES = 20.0
MB = 1e6
OVER_NATIVE = 7.0
"""The target for the speedup over PyTorch's operator in its default layout."""
CPU = torch.device("cpu")


class InlineProcess:
    """A process that trains one job at a time; a context manager that ends the process on exit."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, self._theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._theirs,), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(END_S)
        self._process.kill()

    def begin(self, job: Job) -> None:
        """Start training the job; returns immediately."""
        self._connection.send(job)

    def wait(self) -> None:
        """Wait until the job has ended. Raises `HarnessError` if it is not complete."""
        try:
            ended: Ended = self._connection.recv()
        except EOFError as error:
            raise HarnessError(f"a process of the bench died with exit code {self._process.exitcode}") from error
        if ended.state != RunState.COMPLETE:
            raise HarnessError(f"a proxy of the bench must be complete, but is {ended.state}: {ended.cause}")


def _serve(connection: "Connection[Ended, Job]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent terminates this process
    executor = make_executor("inline", WorkerRequest())
    while True:
        executor.submit(connection.recv())
        ended = None
        while ended is None:
            ended = next((record for _, record in executor.poll(1.0) if isinstance(record, Ended)), None)
        connection.send(ended)


def proxies(effort: BenchSize) -> Iterator[BenchResult]:
    """Train the network with the median cost of kernel_size.yaml for one epoch, in every way."""
    specs, recipe = kernel_size()
    with TemporaryDirectory() as folder:
        yield from compare_executors(JobSeries(Path(folder), specs[len(specs) // 2], recipe), effort.rounds)


def compare_executors(jobs: "JobSeries", rounds: int) -> Iterator[BenchResult]:
    """Seconds per proxy inline and in a Ray worker, their ratio, and the gain of a second worker."""
    workers = _workers()
    with ExitStack() as stack:
        alone = stack.enter_context(separate_slots())
        processes = [stack.enter_context(InlineProcess()) for _ in range(workers)]
        executor = make_executor("ray", WorkerRequest(workers=workers))
        stack.callback(executor.shutdown)
        ways: dict[str, Callable[[], float]] = {
            "inline": lambda: _run_in_processes(processes[:1], jobs.fresh(1)),
            "ray": lambda: train_all(executor, jobs.fresh(1))[0],
            "both inline": lambda: _run_in_processes(processes, jobs.fresh(workers)),
            "both ray": lambda: train_all(executor, jobs.fresh(workers))[0],
        }
        times_s = _in_rounds(ways, rounds, alone)
    yield from executor_results(times_s, workers)


def peak_memory(effort: BenchSize) -> Iterator[BenchResult]:  # noqa: ARG001
    """Peak memory of new Ray workers that train the network of kernel_size.yaml with the most MACs for an epoch."""
    workers = _workers()
    specs, recipe = kernel_size()
    with TemporaryDirectory() as folder:
        jobs = JobSeries(Path(folder), specs[-1], recipe)
        executor = make_executor("ray", WorkerRequest(workers=workers))
        try:
            _, records = train_all(executor, jobs.fresh(workers))
        finally:
            executor.shutdown()
    peaks = [record.value for record in records if isinstance(record, Measured) and record.name == "peak_memory_bytes"]
    yield BenchResult(name="peak memory of a worker", unit="MB", values=tuple(peak / MB for peak in peaks))


class JobSeries:
    """Jobs that train one network with one recipe from scratch; they differ in seed and folder."""

    def __init__(self, results: Path, spec: NetworkSpec, recipe: ProxyRecipe) -> None:
        self._results = results
        self._spec = spec
        self._recipe = recipe
        self._folders = count()

    def fresh(self, number: int) -> list[Job]:
        """`number` jobs in a new folder, with seeds from 0."""
        folder = self._results / str(next(self._folders))
        return [Job(Run(self._spec, self._recipe, seed), folder, minutes=MINUTES) for seed in range(number)]


def train_all(executor: Executor, jobs: Sequence[Job]) -> tuple[float, list[Record]]:
    """Seconds until all jobs are trained, and their records. Raises `HarnessError` for a run that is not complete."""
    start = time.perf_counter()
    for job in jobs:
        executor.submit(job)
    records: list[Record] = []
    left = {job.run.id for job in jobs}
    while left:
        for run_id, record in executor.poll(timeout_s=1.0):
            records.append(record)
            if isinstance(record, Ended):
                if record.state != RunState.COMPLETE:
                    raise HarnessError(f"a proxy of the bench must be complete, but is {record.state}: {record.cause}")
                left.discard(run_id)
    return time.perf_counter() - start, records


def _run_in_processes(processes: Sequence[InlineProcess], jobs: Sequence[Job]) -> float:
    """Seconds until all jobs are trained, in parallel, each in its own process."""
    start = time.perf_counter()
    for process, job in zip(processes, jobs, strict=True):
        process.begin(job)
    for process in processes:
        process.wait()
    return time.perf_counter() - start


def _in_rounds(ways: dict[str, Callable[[], float]], rounds: int, alone: MachineSlot) -> dict[str, list[float]]:
    """Seconds of each way, by round, after a warm-up; other processes may compute between two ways."""
    times_s: dict[str, list[float]] = {way: [] for way in ways}
    for way in ("both inline", "both ray"):
        ways[way]()
    for i in range(rounds):
        for way in list(ways)[:: -1 if i % 2 else 1]:
            with alone():
                times_s[way].append(ways[way]())
    return times_s


def executor_results(times_s: dict[str, list[float]], workers: int) -> Iterator[BenchResult]:
    """The results of the bench, from the seconds of each way by round."""

    def ratio(name: str, over: str, under: str, *, times: int = 1, **rest: Any) -> BenchResult:
        values = tuple(times * a / b for a, b in zip(times_s[over], times_s[under], strict=True))
        return BenchResult(name=name, unit="x", values=values, **rest)

    yield ratio("a proxy in a Ray worker, over inline", "ray", "inline", at_most=RAY_OVER_INLINE)
    yield BenchResult(name="inline", unit="s", values=tuple(times_s["inline"]), is_part=True)
    yield BenchResult(name="in a Ray worker", unit="s", values=tuple(times_s["ray"]), is_part=True)
    if workers == 2:
        yield ratio("proxies per hour, two Ray workers over one", "ray", "both ray", times=2, at_least=TWO_OVER_ONE)
        yield ratio("two plain processes over one", "inline", "both inline", times=2, is_part=True)


def _workers() -> int:
    return min(2, available_cpus())


def kernel_size() -> tuple[list[NetworkSpec], ProxyRecipe]:
    """The networks of kernel_size.yaml, sorted by MACs, and its recipe reduced to one epoch."""
    file = load_study(ROOT / "search_spaces" / "kernel_size.yaml")
    cells = [cell for cell in open_space(file).grid() if cell.is_feasible]
    cells.sort(key=lambda cell: cell.cost.macs if cell.cost else 0)
    values = file.study.proxy.model_dump(mode="json") | {"epochs": 1, "schedule": {"warmup_epochs": 0}}
    return [cell.spec for cell in cells if cell.spec], ProxyRecipe.model_validate(values)


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
