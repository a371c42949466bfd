"""One measuring slot per device of a machine: times are measured while no other process of the harness computes there.

A computation locks the slot shared, for a few steps at a time; a measurement locks it exclusively. The slots are locks
on files in the temporary folder (`slot_files`), so that they apply to all processes, studies and users of this machine
(or container), and are released when a process dies.

Every wait has a limit: a measurement that does not get the slot within a minute runs without it and reports this; a
computation continues without the slot after 90 s. Without `flock` (Windows), no measurement has the slot exclusively.

A thread that waits for other processes of the harness must not hold what they need: while it waits for data workers, it
releases the processor's slot (`released_cpu_slot`), and work that uses the slots itself, such as a study started by a
bench, has separate ones (`separate_slots`).
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.system.slot_files import HAS_LOCKS, POLL_S, SlotFiles, close_all

T = TypeVar("T")
MachineSlot = Callable[[], AbstractContextManager[bool]]
"""Locks the machine's slot of the processor exclusively, as `measuring`; work inside may compute and measure."""

CPU = "cpu"
SLOTS_FOLDER = "large-kernel-harness-slots"
"""Name of the folder of slots in the temporary folder."""
OTHER_FOLDER = "LARGE_KERNEL_HARNESS_SLOTS"
"""Environment variable that names another folder of slots, for a process and those that it starts."""
HOLD_S = {"cpu": 0.05, "cuda": 0.5}
"""How long a computation holds the slot before it releases it briefly, which on a GPU requires synchronization."""
MEASURER_WAITS_S = 60.0
WAITS_AGAIN_S = 5.0
"""How long a measurement waits if the previous one timed out: a bench has hundreds of them."""
COMPUTER_WAITS_S = 90.0
SETTLE_S = 0.2
"""Pause after others have stopped, until their threads no longer spin: OpenMP threads busy-wait for a while."""
TURN_S = 10.0
"""How long a series of samples holds the slot before it releases it for computations."""
BETWEEN_TURNS_S = 0.05
"""How long the slot is then free: long enough for a process that polls to lock it."""


@dataclass(slots=True)
class MeasurementCounter:
    """Counts measurements of this thread."""

    measurements: int = 0
    disturbed: int = 0
    """Number of measurements that did not have their device exclusively until their end."""


@dataclass(slots=True)
class _HeldSlots:
    """The slots that a thread holds: all of them shared, or some exclusively."""

    slots: tuple[SlotFiles, ...]
    finish: Callable[[], None]
    """Waits until the device has finished its work."""
    hold_s: float
    is_measuring: bool = False
    is_quiet: bool = False
    """For a measurement: whether it has the device exclusively."""
    since: float = field(default_factory=time.monotonic)
    held: list[SlotFiles] = field(default_factory=list)

    def share(self) -> None:
        self.held = [slot for slot in self.slots if _share(slot)]
        self.since = time.monotonic()

    def release(self) -> None:
        held, self.held = self.held, []
        for slot in held:
            slot.release()


class _State(threading.local):
    def __init__(self) -> None:
        self.hold: _HeldSlots | None = None
        self.watch: MeasurementCounter | None = None
        self.slots: dict[tuple[Path, str], SlotFiles] = {}


_state = _State()


@contextlib.contextmanager
def computing(device: Any = None, *, is_main: bool = True) -> Iterator[None]:
    """Lock the slots of a device (`torch.device`; by default the processor) shared. Does nothing when nested.

    Long work inside calls `yield_slot` between its steps. Of processes that synchronize in every step, only the one
    with `is_main` locks the processor's slot: otherwise the others would hold it while they wait for the one that
    released it.
    """
    slots = () if _state.hold is not None else _slots(_names(device)[0 if is_main else 1 :])
    if not slots:
        yield
        return
    hold = _HeldSlots(
        slots, _finisher(device), HOLD_S["cuda" if device is not None and device.type == "cuda" else "cpu"]
    )
    _state.hold = hold
    hold.share()
    try:
        yield
    finally:
        _state.hold = None
        hold.finish()
        hold.release()


def computing_each(items: Iterable[T], device: Any = None, *, is_main: bool = True) -> Iterator[T]:
    """Yield the items of a generator that computes them on a device; no slot is held between two items."""
    waiting = iter(items)
    while True:
        with computing(device, is_main=is_main):
            try:
                item = next(waiting)
            except StopIteration:
                return
        yield item


def yield_slot() -> None:
    """Release the slot for a waiting measurement; called between the steps of work inside `computing`."""
    hold = _state.hold
    if hold is None or hold.is_measuring or time.monotonic() - hold.since < hold.hold_s:
        return
    hold.finish()
    hold.release()
    hold.share()


@contextlib.contextmanager
def released_cpu_slot() -> Iterator[None]:
    """Release the processor's slot while this thread waits for processes of the harness that compute there.

    They could not lock it while a measurement waits for this thread. The slot of a GPU is kept, since releasing it
    would require a synchronization in every step.
    """
    hold = _state.hold
    cpu_slots = [] if hold is None or hold.is_measuring else [slot for slot in hold.held if slot.device == CPU]
    for slot in cpu_slots:
        slot.release()
    try:
        yield
    finally:
        if hold is not None and cpu_slots:
            hold.held = [slot for slot in hold.held if slot not in cpu_slots or _share(slot)]


@contextlib.contextmanager
def measuring(device: Any = None, *, timeout_s: float | None = None) -> Iterator[bool]:
    """Lock the slot of a device exclusively, and settle; the shared locks of this thread are released meanwhile.

    Yields whether no other process of the harness computes on the device meanwhile; after `timeout_s` without the slot
    (by default `MEASURER_WAITS_S`) one may. On a GPU the processor's slot is locked shared: other processes may train
    on it meanwhile, but not measure. Inside another `measuring` it does nothing.
    """
    outer = _state.hold
    if outer is not None and outer.is_measuring:
        yield outer.is_quiet
        return
    if outer is not None:
        outer.finish()
        outer.release()
    try:
        with _alone(_slots(_names(device)), timeout_s) as is_quiet:
            _state.hold = _HeldSlots((), _finisher(device), 0.0, is_measuring=True, is_quiet=is_quiet)
            yield is_quiet
    finally:
        _state.hold = outer
        if outer is not None:
            outer.share()


@contextlib.contextmanager
def measuring_in_turns(device: Any = None) -> Iterator[Callable[[], None]]:
    """As `measuring`, for a series of samples: call the yielded function before each sample.

    It lets others compute for a moment if the slot has been held for `TURN_S`. Does nothing within a measurement.
    """
    if _state.hold is not None and _state.hold.is_measuring:
        yield lambda: None
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(measuring(device))
        since = time.monotonic()

        def renew() -> None:
            nonlocal since
            if time.monotonic() - since < TURN_S:
                return
            stack.close()
            time.sleep(BETWEEN_TURNS_S)
            stack.enter_context(measuring(device))
            since = time.monotonic()

        yield renew


@contextlib.contextmanager
def counting_measurements() -> Iterator[MeasurementCounter]:
    """Count the measurements of this thread inside the block."""
    before, watch = _state.watch, MeasurementCounter()
    _state.watch = watch
    try:
        yield watch
    finally:
        _state.watch = before


@contextlib.contextmanager
def separate_slots() -> Iterator[MachineSlot]:
    """Use a separate folder of slots for this process and those that it starts inside the block.

    For measuring work that uses the slots itself and would otherwise wait for the process that measures it: this
    process locks the machine's slot exclusively (the yielded function), and the work uses the separate slots.
    """
    machine, before = _folder(), os.environ.get(OTHER_FOLDER)

    def alone() -> AbstractContextManager[bool]:
        assert _state.hold is None, "a thread that holds a slot would wait for itself"
        return _alone(_slots((CPU,), machine))

    with tempfile.TemporaryDirectory(prefix=f"{SLOTS_FOLDER}-") as folder:
        os.environ[OTHER_FOLDER] = folder
        try:
            yield alone
        finally:
            del os.environ[OTHER_FOLDER]
            if before is not None:
                os.environ[OTHER_FOLDER] = before


@contextlib.contextmanager
def _alone(slots: tuple[SlotFiles, ...], timeout_s: float | None = None) -> Iterator[bool]:
    """Lock the last of these slots exclusively and the others shared; yields whether this succeeded, as `measuring`."""
    if timeout_s is None:
        timeout_s = WAITS_AGAIN_S if slots and slots[-1].is_starved else MEASURER_WAITS_S
    start = time.monotonic()
    # in the same order everywhere, or two measurements could wait for each other
    held = [slot for slot in slots[:-1] if slot.share(start + timeout_s)]
    is_quiet = bool(slots) and slots[-1].take(start + timeout_s) and len(held) == len(slots) - 1
    begin = time.monotonic()
    try:
        if begin - start > POLL_S:
            time.sleep(SETTLE_S)
        yield is_quiet
    finally:
        for slot in held:
            slot.release()
        for slot in slots[-1:]:
            slot.give_back()
        if _state.watch is not None:
            _state.watch.measurements += 1
            _state.watch.disturbed += not is_quiet or time.monotonic() - begin >= COMPUTER_WAITS_S


def _share(slot: SlotFiles) -> bool:
    """Lock a slot shared; False after the time limit."""
    return slot.share(time.monotonic() + (0.0 if slot.is_blocked else COMPUTER_WAITS_S))


def _names(device: Any) -> tuple[str, ...]:
    """The names of a device's slots: the processor's, then, for a GPU, its own by UUID."""
    if device is None or device.type != "cuda":
        return (CPU,)
    import torch

    serial = getattr(torch.cuda.get_device_properties(device), "uuid", device.index or 0)
    return CPU, f"gpu-{serial}"


def _finisher(device: Any) -> Callable[[], None]:
    """A function that waits for the GPU to finish its work; on a processor it does nothing."""
    if device is None or device.type != "cuda":
        return lambda: None
    import torch

    return lambda: torch.cuda.synchronize(device)


def _slots(names: tuple[str, ...], folder: Path | None = None) -> tuple[SlotFiles, ...]:
    """The slots of this thread: locks belong to an open file, so two threads must not share one.

    Empty if there are no locks, or the folder is not writable.
    """
    if not HAS_LOCKS:
        return ()
    keys = [(folder or _folder(), name) for name in names]
    try:
        for key in keys:
            if key not in _state.slots:
                _state.slots[key] = SlotFiles(*key)
    except OSError:
        return ()
    return tuple(_state.slots[key] for key in keys)


def _folder() -> Path:
    return Path(os.environ.get(OTHER_FOLDER) or Path(tempfile.gettempdir()) / SLOTS_FOLDER)


def _forget() -> None:
    """Forget all slots in a forked child: the files and the locks on them belong to the parent."""
    close_all()
    _state.slots = {}
    _state.hold = None
    _state.watch = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
