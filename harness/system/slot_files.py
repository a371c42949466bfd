"""The two lock files of a device's measuring slot: computations share it, a measurement locks it exclusively.

    DEVICE.gate   locked exclusively by a measurement; a computation acquires and releases it first, so that a
                  measurement is not starved
    DEVICE.slot   locked shared by computations, exclusively by a measurement

The locks are `flock` locks: they apply to all processes and users of a machine (or container), belong to an open file,
and are released when its process dies, for whatever reason.
"""

import contextlib
import os
import time
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
POLL_S = 0.002

_opened: "weakref.WeakSet[SlotFiles]" = weakref.WeakSet()
"""The open slots of all threads of this process."""


class SlotFiles:
    """The two lock files of a device, opened by this process. Raises `OSError` if the folder is not writable."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = device
        self.gate = self.slot = -1
        _make(folder)
        self.gate = _open(folder / f"{device}.gate")
        self.slot = _open(folder / f"{device}.slot")
        self.is_blocked = False
        """Whether the last shared lock timed out; further attempts do not wait until one succeeds."""
        self.is_starved = False
        """Whether the last exclusive lock timed out."""
        _opened.add(self)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the files, which releases the locks."""
        for file in (self.gate, self.slot):
            with contextlib.suppress(OSError):
                os.close(file)
        self.gate = self.slot = -1

    def share(self, deadline: float) -> bool:
        """Lock the slot shared; False if the deadline passes first."""
        taken = _take(self.gate, shared=True, deadline=deadline)
        if taken:
            _release(self.gate)
            taken = _take(self.slot, shared=True, deadline=deadline)
        self.is_blocked = not taken
        return taken

    def release(self) -> None:
        """Release the shared lock."""
        _release(self.slot)

    def take(self, deadline: float) -> bool:
        """Lock the slot exclusively; False if others hold it until the deadline."""
        taken = _take(self.gate, shared=False, deadline=deadline)
        if taken and not _take(self.slot, shared=False, deadline=deadline):
            _release(self.gate)
            taken = False
        self.is_starved = not taken
        return taken

    def give_back(self) -> None:
        """Release the exclusive lock."""
        _release(self.slot)
        _release(self.gate)


def close_all() -> None:
    """Close all files of this process, as a forked child must: the files and their locks belong to its parent."""
    for files in list(_opened):
        files.close()


def _make(folder: Path) -> None:
    """Create the folder for all users of the machine: each may add files and remove only their own."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)


def _open(path: Path) -> int:
    """Open a lock file, created if needed; another user's file is opened without O_CREAT, which some systems refuse."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    for _ in range(10):
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(descriptor, 0o666)  # regardless of the umask
                return descriptor
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
