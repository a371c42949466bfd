"""One measuring slot per device of a machine: times are taken while nothing else of ours computes there.

Whatever computes holds the slot shared, a few steps at a time; whatever measures takes it alone. The slots are locks on
files in the temporary folder (`slot_files`), so that they hold between all processes, studies and users of this machine
(or container), and are free again when a process dies.

Every wait has a limit: a measurement that cannot have the slot within a minute is taken without it, and reports so;
computing continues without the slot after 90 s. Where there is no `flock` (Windows), no measurement has the slot alone.

A thread that waits for other processes of ours does not hold what they need: for those that read its images it is
`released_cpu_slot`, and work that takes part itself, as a study that a bench starts, has slots of its own
(`separate_slots`).
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.system.slot_files import HAS_LOCKS, POLL_S, SlotFiles, close_all

T = TypeVar("T")

CPU = "cpu"
SLOTS_FOLDER = "large-kernel-harness-slots"
"""In the temporary folder."""
OTHER_FOLDER = "LARGE_KERNEL_HARNESS_SLOTS"
"""Variable of a process, and of those that it starts, that names another folder of slots."""
HOLD_S = {"cpu": 0.05, "cuda": 0.5}
"""How long who computes holds the slot before it offers it, for which a GPU has to be waited for."""
MEASURER_WAITS_S = 60.0
WAITS_AGAIN_S = 5.0
"""How long a measurement waits where the one before it has waited in vain: a bench has hundreds of them."""
COMPUTER_WAITS_S = 90.0
SETTLE_S = 0.2
"""How long after others have stopped until their threads no longer spin: OpenMP's wait actively for a while."""
TURN_S = 10.0
"""How long a series of samples holds the slot before it lets others compute."""
BETWEEN_TURNS_S = 0.05
"""How long it does: time enough for whoever polls to have the slot."""


@dataclass(frozen=True, slots=True)
class MeasurementConditions:
    """What a measurement may say of its conditions."""

    is_quiet: bool
    """Whether nothing else of ours computes on the device meanwhile."""
    waited_s: float


@dataclass(slots=True)
class MeasurementCounter:
    """Counts measurements of this thread."""

    measurements: int = 0
    disturbed: int = 0
    """Those that did not have their device alone to their end."""


@dataclass(slots=True)
class _HeldSlots:
    """What a thread holds: every slot shared, or some alone."""

    slots: tuple[SlotFiles, ...]
    finish: Callable[[], None]
    """Waits for what the device was given to compute."""
    hold_s: float
    is_measuring: bool = False
    is_quiet: bool = False
    """Of a measurement: whether it has the device alone."""
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
    """Hold the slots of a device (`torch.device`; by default the processor) shared. Within another one: nothing.

    Long work inside calls `yield_slot` between its steps. Of processes that wait for each other in every step, only the
    one that `is_main` holds the processor's slot: the others would hold it while they wait for the one that gave it
    back.
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
    """The items of a generator that computes them on a device; between two of them no slot is held."""
    waiting = iter(items)
    while True:
        with computing(device, is_main=is_main):
            try:
                item = next(waiting)
            except StopIteration:
                return
        yield item


def yield_slot() -> None:
    """Let a measurement that waits go first; called between the steps of whatever is `computing`."""
    hold = _state.hold
    if hold is None or hold.is_measuring or time.monotonic() - hold.since < hold.hold_s:
        return
    hold.finish()
    hold.release()
    hold.share()


@contextlib.contextmanager
def released_cpu_slot() -> Iterator[None]:
    """Hold no slot of the processor while this thread waits for processes of ours that compute there.

    They could not have it while a measurement waits for this thread. That of a GPU is kept, which would have to be
    waited for in every step.
    """
    hold = _state.hold
    own = [] if hold is None or hold.is_measuring else [slot for slot in hold.held if slot.device == CPU]
    for slot in own:
        slot.release()
    try:
        yield
    finally:
        if hold is not None and own:
            hold.held = [slot for slot in hold.held if slot not in own or _share(slot)]


@contextlib.contextmanager
def measuring(device: Any = None, *, timeout_s: float | None = None) -> Iterator[MeasurementConditions]:
    """Hold the slot of a device alone, and settle; what this thread held shared is given back meanwhile.

    On a GPU the processor's slot is held shared: another one may train meanwhile, but no times are taken on it. After
    `timeout_s` without the slot (by default `MEASURER_WAITS_S`), `is_quiet` is False, and nothing is held. Within
    another one: nothing.
    """
    outer = _state.hold
    if outer is not None and outer.is_measuring:
        yield MeasurementConditions(outer.is_quiet, waited_s=0.0)
        return
    if outer is not None:
        outer.finish()
        outer.release()
    try:
        with _alone(_slots(_names(device)), timeout_s) as quiet:
            _state.hold = _HeldSlots((), _finisher(device), 0.0, is_measuring=True, is_quiet=quiet.is_quiet)
            yield quiet
    finally:
        _state.hold = outer
        if outer is not None:
            outer.share()


@contextlib.contextmanager
def measuring_in_turns(device: Any = None) -> Iterator[Callable[[], None]]:
    """As `measuring`, for a series of samples: before each, call what is yielded.

    It lets others compute for a moment where the slot has been held for `TURN_S`. Within a measurement: nothing.
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
    """Count the measurements that this thread takes meanwhile."""
    before, watch = _state.watch, MeasurementCounter()
    _state.watch = watch
    try:
        yield watch
    finally:
        _state.watch = before


@dataclass(frozen=True, slots=True)
class MachineSlots:
    """The slots of the machine, seen from a process that has slots of its own."""

    folder: Path

    @contextlib.contextmanager
    def alone(self, *, timeout_s: float | None = None) -> Iterator[MeasurementConditions]:
        """Hold the processor's slot alone, as `measuring` does; what is done meanwhile may compute and measure."""
        assert _state.hold is None, "who holds a slot would wait for itself"
        with _alone(_slots((CPU,), self.folder), timeout_s) as quiet:
            yield quiet


@contextlib.contextmanager
def separate_slots() -> Iterator[MachineSlots]:
    """Have this process, and those that it starts meanwhile, share slots of their own.

    For the measurement of work that takes part in the protocol itself, and would wait for who measures it: that holds
    the machine's slot alone (`MachineSlots.alone`), and the work has the others.
    """
    machine, before = MachineSlots(_folder()), os.environ.get(OTHER_FOLDER)
    with tempfile.TemporaryDirectory(prefix=f"{SLOTS_FOLDER}-") as folder:
        os.environ[OTHER_FOLDER] = folder
        try:
            yield machine
        finally:
            del os.environ[OTHER_FOLDER]
            if before is not None:
                os.environ[OTHER_FOLDER] = before


@contextlib.contextmanager
def _alone(slots: tuple[SlotFiles, ...], timeout_s: float | None) -> Iterator[MeasurementConditions]:
    """Hold the last of these slots alone and the others shared; without any, nothing is quiet."""
    if timeout_s is None:
        timeout_s = WAITS_AGAIN_S if slots and slots[-1].is_starved else MEASURER_WAITS_S
    start = time.monotonic()
    # in the order in which others take them, or two could wait for each other
    held = [slot for slot in slots[:-1] if slot.share(start + timeout_s)]
    is_quiet = bool(slots) and slots[-1].take(start + timeout_s) and len(held) == len(slots) - 1
    begin = time.monotonic()
    try:
        if begin - start > POLL_S:
            time.sleep(SETTLE_S)
        yield MeasurementConditions(is_quiet, begin - start)
    finally:
        for slot in held:
            slot.release()
        for slot in slots[-1:]:
            slot.give_back()
        if _state.watch is not None:
            _state.watch.measurements += 1
            _state.watch.disturbed += not is_quiet or time.monotonic() - begin >= COMPUTER_WAITS_S


def _share(slot: SlotFiles) -> bool:
    """Hold a slot shared, after the limit without it."""
    return slot.share(time.monotonic() + (0.0 if slot.is_blocked else COMPUTER_WAITS_S))


def _names(device: Any) -> tuple[str, ...]:
    """The slots of a device: its processor's, then its own, by the GPU's serial."""
    if device is None or device.type != "cuda":
        return (CPU,)
    import torch

    serial = getattr(torch.cuda.get_device_properties(device), "uuid", device.index or 0)
    return CPU, f"gpu-{serial}"


def _finisher(device: Any) -> Callable[[], None]:
    """What waits for the work that a GPU was given; on a processor nothing is left to wait for."""
    if device is None or device.type != "cuda":
        return _nothing
    import torch

    return lambda: torch.cuda.synchronize(device)


def _nothing() -> None:
    return


def _slots(names: tuple[str, ...], folder: Path | None = None) -> tuple[SlotFiles, ...]:
    """The slots of this thread: locks belong to an open file, so that no two threads may share one.

    None where there are no locks, or the folder cannot be written to.
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
    """In a child process: the files are the parent's, and so are the locks on them."""
    close_all()
    _state.slots = {}
    _state.hold = None
    _state.watch = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
