"""One run from start to finish: what a worker executes, as a generator of plain records.

Whatever happens, the last record is an `Ended`; tracebacks go to the job's log.
"""

import math
import os
import platform
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version

import torch

from harness import __version__
from harness.checkpoint import load_epoch
from harness.data import load
from harness.device_slot import computing, in_turn
from harness.errors import Diverged, HarnessError, OutOfMemory, Stopped, TimedOut
from harness.machine import cpu_name, keep_freed_memory
from harness.measures import Trained, measures_of
from harness.network import build
from harness.run import Ended, Job, Measured, Record, RunState, Started
from harness.training import fit

_STATES: dict[type[BaseException], RunState] = {
    Stopped: RunState.STOPPED,
    Diverged: RunState.DIVERGED,
    OutOfMemory: RunState.OUT_OF_MEMORY,
    torch.OutOfMemoryError: RunState.OUT_OF_MEMORY,
    MemoryError: RunState.OUT_OF_MEMORY,
    TimedOut: RunState.TIMED_OUT,
}


def evaluate(job: Job, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Record]:
    """Train and measure the job's network: `Started`, an `Epoch` each, `Measured`..., and one `Ended` in every case.

    `should_stop` is asked before every training step; a run that was stopped or timed out goes on from its last epoch
    when it is evaluated again. A transfer has no checkpoint: one that was stopped begins anew, behind the last epoch.
    """
    start = time.monotonic()

    def check() -> None:
        if should_stop():
            raise Stopped("stopped by the driver")
        if time.monotonic() - start > 60 * job.minutes:
            raise TimedOut(f"the run took longer than `resources.minutes_per_run`, {job.minutes:g}")

    try:
        yield from _train_and_measure(job, check)
    except Exception as error:
        state = next((state for kind, state in _STATES.items() if isinstance(error, kind)), RunState.FAILED)
        cause = _one_line(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {_one_line(error)}"
        _log(job, traceback.format_exc())
        yield Ended(state, wall_s=time.monotonic() - start, cause=cause)
    else:
        yield Ended(RunState.COMPLETE, wall_s=time.monotonic() - start)


def _train_and_measure(job: Job, check: Callable[[], None]) -> Iterator[Record]:
    """The run itself; raises for everything that ends it early."""
    run = job.run
    keep_freed_memory()
    torch.set_num_threads(job.cpus)
    device = torch.device("cuda" if job.gpus > 0 and torch.cuda.is_available() else "cpu")
    if run.recipe.precision == "float16" and device.type == "cpu":
        raise HarnessError("`precision: float16` needs a GPU; use bfloat16 or float32 on a CPU")
    first_epoch = load_epoch(job.checkpoint) + 1
    yield started(device, job.cpus, epochs=run.recipe.epochs, first_epoch=first_epoch)
    dataset = load(run.recipe, job.data_cache)
    for note in dataset.notes:
        _log(job, f"{note}\n")
    torch.manual_seed(run.seed)
    with computing(device):
        model = build(run.spec)
    epochs = fit(model, dataset, run.recipe, seed=run.seed, device=device, checkpoint=job.checkpoint, check=check)
    yield from in_turn(epochs, device)
    times = job.data_cache / "times" if job.shares_times else None
    yield from _measured(job, Trained(model.eval(), dataset, run.recipe, device, times), check)
    if run.recipe.transfer is not None:
        from harness.downstream import transfer  # loads a library of heads, for the runs that need one

        learned = transfer(model, run.spec, dataset, run.recipe, seed=run.seed, device=device, check=check)
        for name, value in in_turn(learned, device):
            yield Measured(name, value)


def started(device: torch.device, threads: int, *, epochs: int, first_epoch: int = 1) -> Started:
    """Where and with what this process is about to work."""
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
    )


def _measured(job: Job, trained: Trained, check: Callable[[], None]) -> Iterator[Measured]:
    """What the recipe asks to be measured; a figure that is not finite says nothing, and goes to the log."""
    for measure in measures_of(trained.recipe):
        check()
        with computing(trained.device):  # a measure of times asks for the device alone
            measured = list(measure(trained))
        for name, value in measured:
            if math.isfinite(value):
                yield Measured(name, value)
            else:
                _log(job, f"{name} is {value}, and left out\n")


def _describe(device: torch.device, threads: int) -> str:
    """The device in words, as `cuda (NVIDIA H200)` or `cpu (AMD EPYC, 1 thread)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({cpu_name()}, {threads} thread{'s' if threads > 1 else ''})"


def _one_line(error: BaseException) -> str:
    """The first line of an error's text, short enough for a table."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def _log(job: Job, text: str) -> None:
    """Append to the run's own log."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as file:
        file.write(text)
