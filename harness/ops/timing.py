"""Timing of calls: warmed up, synchronized, and in rounds, so that a disturbance affects all compared calls.

`time_interleaved` compares calls with exclusive use of the device; `time_until_precise` times a single call.
`min_seconds` is for the choice of an algorithm: it takes half a second, and other programs may run at the same time.
"""

import math
import resource
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from harness.system.device_slot import measuring_in_turns

Key = TypeVar("Key", bound=Hashable)
TimedCall = Callable[[], object]

MIN_SAMPLE_S = 0.005
"""A sample repeats a shorter call until it takes about this long: more than the clock's resolution, and long enough to
fill a GPU's queue."""
MAX_CALLS = 50
"""Most repetitions of a call in one sample of `time_interleaved`."""
SWITCH_EVERY_S = 0.2
"""A call may lose the processor once per this time: the system alone takes it that often, even on an idle machine."""
REST_S = 0.005
"""How long to sleep after losing the processor: a process that has slept keeps it longer."""
MIN_UNDISTURBED = 10

ROUNDS = 7
"""Rounds of `min_seconds`; the constants below are for it, too."""
TIME_BUDGET_S = 0.5
"""No further round begins after this time."""
GIVE_UP_RATIO = 2.0
"""A call that is this many times slower than the fastest is no longer timed."""
TRUSTED_ROUNDS = 3
LONG_STEP_S = 0.05
"""A call shorter than this is given up only after TRUSTED_ROUNDS samples: a single one may have been disturbed."""
SHORTEST_S = 1e-6
"""Lower bound for the time of a call in `min_seconds`, which limits the number of calls in a sample."""


@contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """Set the number of CPU threads within a context."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds per call, sample by sample."""

    seconds: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.seconds)

    @property
    def median(self) -> float:
        """Median of all samples."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile; for a single sample, that sample."""
        if self.n == 1:
            return self.seconds[0], self.seconds[0]
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the median, by order statistics; valid for any distribution of independent samples.

        For fewer than 6 samples, the smallest and the largest.
        """
        ordered = sorted(self.seconds)
        left_out = median_rank(self.n)
        return ordered[left_out], ordered[self.n - 1 - left_out]

    def percentile(self, percent: int) -> float:
        """The value that `percent` percent of the samples do not exceed."""
        return statistics.quantiles(self.seconds, n=100)[percent - 1] if self.n > 1 else self.seconds[0]


def median_rank(n: int, confidence: float = 0.95) -> int:
    """How many samples at each end of n may be left out so that the rest hold the true median with this confidence."""
    tail, left_out = 0.0, 0
    for k in range(n):
        tail += math.comb(n, k) / 2**n
        if tail > (1 - confidence) / 2:
            break
        left_out = k
    return left_out


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingBudget:
    """How often a call is sampled: at least `min_samples` times, then until `budget_s` or `max_samples` is reached."""

    min_samples: int = 3
    max_samples: int = 20
    budget_s: float = 3.0
    single_sample_s: float = 20.0
    """If a call takes longer than this after warm-up, that run is its only sample."""


FULL_TIMING = TimingBudget()
QUICK_TIMING = TimingBudget(min_samples=1, max_samples=3, budget_s=0.5)


def time_interleaved(
    calls: Mapping[Key, TimedCall], device: torch.device, budget: TimingBudget
) -> dict[Key, Timings | None]:
    """The times of every call; None for a call that runs out of memory.

    Each call is first run twice to warm up; then follow rounds with one sample of each call, in alternating order.
    No other harness process uses the device meanwhile, except for a moment between two samples every ten seconds.
    """
    with measuring_in_turns(device) as renew:
        warm = {key: s for key, call in calls.items() if (s := _warm_up(call, device, renew)) is not None}
        samples = {key: [s] if s > budget.single_sample_s else [] for key, s in warm.items()}
        repeats = {key: min(MAX_CALLS, _calls_per_sample(s)) for key, s in warm.items()}
        waiting = [key for key, taken in samples.items() if not taken]
        for _ in range(budget.max_samples):
            for key in waiting:
                renew()
                samples[key].append(seconds_per_call(calls[key], device, repeats[key]))
            waiting = [key for key in reversed(waiting) if not _has_enough(samples[key], repeats[key], budget)]
    return {key: Timings(tuple(samples[key])) if key in samples else None for key in calls}


@dataclass(frozen=True, slots=True)
class UndisturbedTimings:
    """Samples that no other program disturbed, and the number of samples left out."""

    times: Timings
    left_out: int
    """Samples during which the system switched to another program."""
    is_disturbed: bool
    """Whether there were too few undisturbed samples, so that `times` contains disturbed ones."""


def time_until_precise(
    call: TimedCall, device: torch.device, *, warm_up: int = 5, min_samples: int = 30
) -> UndisturbedTimings:
    """Sample a call until the median's 95 % interval is within 1 % of the median on either side.

    It takes at least 30 samples (`min_samples`), at most 300, and no more than 30 after 1.5 s, 10 after 4 s, or 3 after
    8 s. A sample during which another program had the processor is left out: it includes that program's time.
    """
    for _ in range(warm_up):
        seconds_per_call(call, device)
    start = time.monotonic()
    clean: list[float] = []
    disturbed: list[float] = []
    while not _is_enough(clean, disturbed, time.monotonic() - start, min_samples):
        switches = _context_switches()
        seconds = seconds_per_call(call, device)
        is_clean = _context_switches() - switches <= seconds // SWITCH_EVERY_S
        (clean if is_clean else disturbed).append(seconds)
        if not is_clean:
            time.sleep(REST_S)
    if len(clean) >= min(MIN_UNDISTURBED, len(clean) + len(disturbed)):
        return UndisturbedTimings(Timings(tuple(clean)), len(disturbed), is_disturbed=False)
    return UndisturbedTimings(Timings((*clean, *disturbed)), 0, is_disturbed=True)


def _is_enough(clean: Sequence[float], disturbed: Sequence[float], elapsed_s: float, least: int) -> bool:
    n = len(clean)
    if elapsed_s > 8.0:
        return n + len(disturbed) >= 3
    if n >= (least if elapsed_s > 1.5 else 300) or (elapsed_s > 4.0 and n >= MIN_UNDISTURBED):
        return True
    return n >= least and n % 10 == 0 and _is_precise(Timings(tuple(clean)))


def _is_precise(times: Timings) -> bool:
    low, high = times.interval
    return max(high - times.median, times.median - low) <= 0.01 * times.median


def _context_switches() -> int:
    """Number of involuntary context switches of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def seconds_per_call(call: TimedCall, device: torch.device, repeats: int = 1) -> float:
    """Seconds per call, over `repeats` calls in a row; on a GPU measured by CUDA events.

    If there are several, an extra call comes first and is not counted: the first call after a different one finds the
    caches full of that one's data, and would have the more influence the fewer calls there are.
    """
    if repeats > 1:
        call()
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000 / repeats
    return _wall_seconds(call, device, repeats)


def min_seconds(calls: Mapping[Key, TimedCall], device: torch.device) -> dict[Key, float]:
    """Seconds per call: the smallest sample of each. All calls must be warmed up."""
    start = time.perf_counter()
    seconds = {key: _wall_seconds(call, device, 1) for key, call in calls.items()}
    for done in range(1, ROUNDS):
        most = GIVE_UP_RATIO * min(seconds.values())
        for key in [key for key, s in seconds.items() if s <= most or (s < LONG_STEP_S and done < TRUSTED_ROUNDS)]:
            repeats = _calls_per_sample(max(seconds[key], SHORTEST_S))
            seconds[key] = min(seconds[key], _wall_seconds(calls[key], device, repeats))
        if time.perf_counter() - start > TIME_BUDGET_S:
            break
    return seconds


def _calls_per_sample(seconds: float) -> int:
    return max(1, round(MIN_SAMPLE_S / seconds))


def _wall_seconds(call: TimedCall, device: torch.device, repeats: int) -> float:
    """Seconds per call, over `repeats` calls in a row, by the CPU's clock."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _warm_up(call: TimedCall, device: torch.device, renew: Callable[[], None]) -> float | None:
    """Seconds of the second run (the first may compile and tune); None when out of memory."""
    try:
        renew()
        call()
        renew()
        return max(1e-9, seconds_per_call(call, device))
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error):
            return None
        raise


def _has_enough(samples: list[float], repeats: int, budget: TimingBudget) -> bool:
    return len(samples) >= budget.min_samples and repeats * sum(samples) >= budget.budget_s
