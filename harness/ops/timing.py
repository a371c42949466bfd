"""How calls are timed: warmed up, synchronised, and in rounds, so that what disturbs one disturbs its rivals too.

`time_interleaved` compares calls and has the device alone; `time_until_precise` times a single one. `min_seconds` is
for the choice of an algorithm: it takes half a second, next to whatever else computes.
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
"""A sample repeats a call that is shorter than this until it takes about so long: above the clock's grain, and long
enough to fill a GPU's queue."""
MAX_CALLS = 50
"""Of a call in one sample of `time_interleaved`."""
SWITCH_EVERY_S = 0.2
"""A call may lose the processor once in so long: on a machine of our own the system needs it as often."""
REST_S = 0.005
"""How long to wait after it was lost: whoever has waited keeps it longer."""
MIN_UNDISTURBED = 10

ROUNDS = 7
"""Of `min_seconds`, as the constants below."""
TIME_BUDGET_S = 0.5
"""No further round begins after that."""
GIVE_UP_RATIO = 2.0
"""A call that is that many times slower than the fastest is timed no more."""
TRUSTED_ROUNDS = 3
LONG_STEP_S = 0.05
"""A call shorter than that is hopeless only after TRUSTED samples: a single one may have been disturbed."""
SHORTEST_S = 1e-6
"""A call of `min_seconds` counts as no shorter, which bounds the calls in a sample."""


@contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """Compute with that many threads on the CPU."""
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
        """Samples."""
        return len(self.seconds)

    @property
    def median(self) -> float:
        """Of all samples."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third; of a single sample, that sample."""
        if self.n == 1:
            return self.seconds[0], self.seconds[0]
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return first, third

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the median, by order statistics: whatever the distribution of independent samples.

        Of fewer than 6 samples the least and the largest.
        """
        ordered = sorted(self.seconds)
        left_out = median_rank(self.n)
        return ordered[left_out], ordered[self.n - 1 - left_out]

    def percentile(self, percent: int) -> float:
        """The value that so many percent of the samples do not exceed."""
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
    """How often a call is sampled: at least and at most so often, and between the two until its seconds are used up."""

    min_samples: int = 3
    max_samples: int = 20
    budget_s: float = 3.0
    single_sample_s: float = 20.0
    """A call that takes longer when it is warm has that run for its only sample."""


FULL_TIMING = TimingBudget()
QUICK_TIMING = TimingBudget(min_samples=1, max_samples=3, budget_s=0.5)


def time_interleaved(
    calls: Mapping[Key, TimedCall], device: torch.device, budget: TimingBudget
) -> dict[Key, Timings | None]:
    """The times of every call; None for one for which the memory does not suffice.

    Each call is first run twice to warm up, then there are rounds in which each has one sample, in alternating order.
    Nothing else of ours computes on the device meanwhile, but for a moment between two samples every ten seconds.
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
    """Samples that no other program disturbed, and what was left out."""

    times: Timings
    left_out: int
    """Samples during which the system gave the processor to another program."""
    is_disturbed: bool
    """Whether there were too few others, so that these are among `times`."""


def time_until_precise(
    call: TimedCall, device: torch.device, *, warm_up: int = 5, min_samples: int = 30
) -> UndisturbedTimings:
    """Sample a call until the median's 95 % interval reaches at most 1 % of the median to either side.

    It takes at least 30 samples (`min_samples`), at most 300, and no more than 30 after 1.5 s, 10 after 4 s, or 3 after
    8 s. A sample in which another program had the processor is left out: what it took is that program's time.
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
    """How often the system has taken the processor away from a thread of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def seconds_per_call(call: TimedCall, device: torch.device, repeats: int = 1) -> float:
    """Seconds per call, over so many calls in a row; on a GPU as its own clock has it.

    Where there are several, one more comes before them and is not counted: the first call behind another's finds the
    caches full of what the other left, and would count the more the fewer calls there are.
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
    """Seconds per call of each that has been called before: the least of its samples."""
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
    """Seconds per call, over so many calls in a row, by the clock of the machine."""
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
    """Seconds of the second run: the first one may compile and tune."""
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
