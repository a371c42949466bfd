"""Parallel work on many files in threads: Pillow, zlib and `hashlib` release Python's global lock while they work."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from harness.system.device_slot import yield_slot
from harness.system.machine import available_cpus

AT_ONCE = 256
"""Number of files whose results are in memory at a time, which bounds its use."""
AT_ONCE_UNTIL = 32
"""The same with a time limit, which is checked after this number of files."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], *, until: float | None = None
) -> Iterator[Result]:
    """Yield the results in the order of the items; an exception of `work` is raised in place of its result.

    With `until`, a time of `time.monotonic`, no group of `AT_ONCE_UNTIL` items is started after it, except the first.
    """
    at_once = AT_ONCE if until is None else AT_ONCE_UNTIL
    with ThreadPoolExecutor(available_cpus()) as pool:
        for start in range(0, len(items), at_once):
            if until is not None and start > 0 and time.monotonic() > until:
                return
            yield_slot()
            yield from pool.map(work, items[start : start + at_once])
