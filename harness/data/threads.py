"""Work on many files in threads: Pillow, zlib and the hashes of `hashlib` leave Python's lock while they work."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from harness.system.device_slot import yield_slot
from harness.system.machine import available_cpus

AT_ONCE = 256
"""Files whose results are held at a time, which bounds the memory."""
AT_ONCE_UNTIL = 32
"""The same where the time is limited: it is looked at after as many files."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], *, until: float | None = None
) -> Iterator[Result]:
    """The results in the order of the items; an exception of `work` is raised where its result is due.

    With `until`, a time of `time.monotonic`, no item is begun after it, but for the first `AT_ONCE_UNTIL`.
    """
    at_once = AT_ONCE if until is None else AT_ONCE_UNTIL
    with ThreadPoolExecutor(available_cpus()) as pool:
        for start in range(0, len(items), at_once):
            if until is not None and start > 0 and time.monotonic() > until:
                return
            yield_slot()
            yield from pool.map(work, items[start : start + at_once])
