"""The two lock files of a device's measuring slot: who computes holds them shared, who measures alone.

    DEVICE.gate   who measures holds it alone; who computes passes through it, so that a measurement is not starved
    DEVICE.slot   who computes holds it shared, who measures alone

The locks are `flock` locks: they hold between all processes and users of a machine (or container), belong to an open
file, and are free again when its process dies, however it does.
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
"""Of all threads of this process."""


class SlotFiles:
    """The two files of a device, opened by this process. Raises `OSError` where the folder cannot be written to."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = device
        self.gate = self.slot = -1
        _make(folder)
        self.gate = _open(folder / f"{device}.gate")
        self.slot = _open(folder / f"{device}.slot")
        self.is_blocked = False
        """Whether waiting to share it has failed; it is tried without waiting until it succeeds."""
        self.is_starved = False
        """Whether waiting to have it alone has failed."""
        _opened.add(self)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give up the files, and with them the locks."""
        for file in (self.gate, self.slot):
            with contextlib.suppress(OSError):
                os.close(file)
        self.gate = self.slot = -1

    def share(self, deadline: float) -> bool:
        """Hold the slot shared; False where that takes too long."""
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
        taken = _take(self.gate, shared=False, deadline=deadline)
        if taken and not _take(self.slot, shared=False, deadline=deadline):
            _release(self.gate)
            taken = False
        self.is_starved = not taken
        return taken

    def give_back(self) -> None:
        """Let the others in again."""
        _release(self.slot)
        _release(self.gate)


def close_all() -> None:
    """Give up all files of this process, as a child process must: they are its parent's, and so are their locks."""
    for files in list(_opened):
        files.close()


def _make(folder: Path) -> None:
    """For all users of the machine: everybody may add files, and remove only their own."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)


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
