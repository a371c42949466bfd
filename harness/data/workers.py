"""Work on many files in threads: Pillow, zlib and the hashes of `hashlib` leave Python's lock while they work."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from harness.device_slot import offer
from harness.machine import available_cpus

AT_ONCE = 256
"""Files whose results are held at a time, which bounds the memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """The results in the order of the items; an exception of `work` is raised where its result is due."""
    with ThreadPoolExecutor(available_cpus()) as pool:
        for start in range(0, len(items), AT_ONCE):
            offer()
            yield from pool.map(work, items[start : start + AT_ONCE])
