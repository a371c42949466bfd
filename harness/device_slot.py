"""One measuring slot per device of a machine: times are taken while nothing else of ours computes there.

Whatever computes holds the slot shared, a few steps at a time; whatever measures takes it alone. The slots are `flock`
locks on files in the temporary folder, so that they hold between all processes, studies and users of this machine (or
container), and are free again when a process dies, however it does. Two files per device:

    DEVICE.gate   who measures holds it alone; who computes passes through it, so that a measurement is not starved
    DEVICE.slot   who computes holds it shared, who measures alone

Every wait has a limit: a measurement that cannot have the slot within a minute is taken without it, and reports so;
computing continues without the slot after 90 s. Where there is no `flock` (Windows), no measurement has the slot alone.
"""

import contextlib
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

CPU = "cpu"
FOLDER = "large-kernel-harness-slots"
HOLD_S = {"cpu": 0.05, "cuda": 0.5}
"""How long who computes holds the slot before it offers it, for which a GPU has to be waited for."""
MEASURER_WAITS_S = 60.0
COMPUTER_WAITS_S = 90.0
POLL_S = 0.002
SETTLE_S = 0.2
"""How long after others have stopped until their threads no longer spin: OpenMP's wait actively for a while."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """What a measurement may say of its conditions."""

    is_quiet: bool
    """Whether nothing else of ours computes on the device meanwhile."""
    waited_s: float


_opened: "weakref.WeakSet[_Slot]" = weakref.WeakSet()
"""Of all threads of this process."""


class _Slot:
    """The two files of a device, opened by this process."""

    def __init__(self, device: str) -> None:
        self.gate = self.slot = -1
        folder = _folder()
        self.gate = _open(folder / f"{device}.gate")
        self.slot = _open(folder / f"{device}.slot")
        self.is_blocked = False
        """Whether waiting for the gate has failed; it is tried without waiting until it succeeds."""
        _opened.add(self)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give up the files, and with them the locks."""
        for file in (self.gate, self.slot):
            with contextlib.suppress(OSError):
                os.close(file)
        self.gate = self.slot = -1

    def share(self, deadline: float | None = None) -> bool:
        """Hold the slot shared; False where that takes too long."""
        if deadline is None:
            deadline = time.monotonic() + (0.0 if self.is_blocked else COMPUTER_WAITS_S)
        taken = _take(self.gate, shared=True, deadline=deadline)
        if taken:
            _release(self.gate)
            taken = _take(self.slot, shared=True, deadline=deadline)
        self.is_blocked = not taken
        return taken

    def release(self) -> None:
        """Let go of the slot."""
        _release(self.slot)

    def take(self, deadline: float) -> bool:
        """Hold the slot alone; False where others hold it until the deadline."""
        if not _take(self.gate, shared=False, deadline=deadline):
            return False
        if _take(self.slot, shared=False, deadline=deadline):
            return True
        _release(self.gate)
        return False

    def give_back(self) -> None:
        """Let the others in again."""
        _release(self.slot)
        _release(self.gate)


@dataclass(slots=True)
class _Hold:
    """What a thread holds: every slot shared, or some alone."""

    slots: tuple[_Slot, ...]
    finish: Callable[[], None]
    """Waits for what the device was given to compute."""
    hold_s: float
    is_measuring: bool = False
    since: float = field(default_factory=time.monotonic)
    held: list[_Slot] = field(default_factory=list)

    def share(self) -> None:
        self.held = [slot for slot in self.slots if slot.share()]
        self.since = time.monotonic()

    def release(self) -> None:
        held, self.held = self.held, []
        for slot in held:
            slot.release()


class _State(threading.local):
    def __init__(self) -> None:
        self.hold: _Hold | None = None
        self.slots: dict[tuple[str, str], _Slot] = {}


_state = _State()


@contextlib.contextmanager
def computing(device: Any = None, *, leads: bool = True) -> Iterator[None]:
    """Hold the slots of a device (`torch.device`; by default the processor) shared. Within another one: nothing.

    Long work inside calls `offer` between its steps. Of processes that wait for each other in every step, only the one
    that `leads` holds the processor's slot: the others would hold it while they wait for the one that gave it back.
    """
    slots = () if _state.hold is not None else _slots(_names(device)[0 if leads else 1 :])
    if not slots:
        yield
        return
    hold = _Hold(slots, _finisher(device), HOLD_S["cuda" if device is not None and device.type == "cuda" else "cpu"])
    _state.hold = hold
    hold.share()
    try:
        yield
    finally:
        _state.hold = None
        hold.finish()
        hold.release()


def in_turn(items: Iterable[T], device: Any = None, *, leads: bool = True) -> Iterator[T]:
    """The items of a generator that computes them on a device; between two of them no slot is held."""
    waiting = iter(items)
    while True:
        with computing(device, leads=leads):
            try:
                item = next(waiting)
            except StopIteration:
                return
        yield item


def offer() -> None:
    """Let a measurement that waits go first; called between the steps of whatever is `computing`."""
    hold = _state.hold
    if hold is None or hold.is_measuring or time.monotonic() - hold.since < hold.hold_s:
        return
    hold.finish()
    hold.release()
    hold.share()


@contextlib.contextmanager
def measuring(device: Any = None, *, timeout_s: float = MEASURER_WAITS_S) -> Iterator[Quiet]:
    """Hold the slot of a device alone, and settle; what this thread held shared is given back meanwhile.

    On a GPU the processor's slot is held shared: another one may train meanwhile, but no times are taken on it. After
    `timeout_s` without the slot, `is_quiet` is False, and nothing is held.
    """
    outer = _state.hold
    is_nested = outer is not None and outer.is_measuring
    slots = () if is_nested else _slots(_names(device))
    if not slots:
        yield Quiet(is_quiet=is_nested, waited_s=0.0)
        return
    if outer is not None:
        outer.finish()
        outer.release()
    start = time.monotonic()
    *shared, alone = slots  # in the order in which others take them, or two could wait for each other
    held = [slot for slot in shared if slot.share(start + timeout_s)]
    is_quiet = alone.take(start + timeout_s) and len(held) == len(shared)
    waited_s = time.monotonic() - start
    _state.hold = _Hold((), _finisher(device), 0.0, is_measuring=True)
    try:
        if waited_s > POLL_S:
            time.sleep(SETTLE_S)
        yield Quiet(is_quiet, waited_s)
    finally:
        _state.hold = outer
        for slot in held:
            slot.release()
        alone.give_back()
        if outer is not None:
            outer.share()


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


def _slots(names: tuple[str, ...]) -> tuple[_Slot, ...]:
    """The slots of this thread: locks belong to an open file, so that no two threads may share one.

    None where there are no locks, or the temporary folder cannot be written to.
    """
    if fcntl is None:
        return ()
    keys = [(tempfile.gettempdir(), name) for name in names]
    try:
        for key in keys:
            if key not in _state.slots:
                _state.slots[key] = _Slot(key[1])
    except OSError:
        return ()
    return tuple(_state.slots[key] for key in keys)


def _folder() -> Path:
    """For all users of the machine: everybody may add files, and remove only their own."""
    folder = Path(tempfile.gettempdir()) / FOLDER
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)
    return folder


def _open(path: Path) -> int:
    """A lock file, made if need be; a file of another user is opened without O_CREAT, which some systems refuse."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    for _ in range(10):
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(made, 0o666)  # whatever the umask is
                return made
        except PermissionError:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    raise OSError(f"the lock file comes and goes: {path}")


def _take(file: int, *, shared: bool, deadline: float) -> bool:
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    while True:
        try:
            fcntl.flock(file, operation)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        except OSError:  # a file system without locks
            return False
        else:
            return True


def _release(file: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


def _forget() -> None:
    """In a child process: the files are the parent's, and so are the locks on them."""
    for slot in list(_opened):
        slot.close()
    _state.slots = {}
    _state.hold = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
