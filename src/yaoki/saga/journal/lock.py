"""One owner for a file: an advisory lock beside it, which the operating system drops when the process dies."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from yaoki.errors import JournalError, JournalLockedError

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]


_HELD: weakref.WeakSet[OwnerLock] = weakref.WeakSet()


class OwnerLock:
    """Held from `acquire` to `release`, or to the end of the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._fd = -1

    def acquire(self) -> None:
        """Raises JournalLockedError, naming the owner's process, when another holds it."""
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            missing = not self._path.parent.exists()
            raise JournalError(f"there is no folder {self._path.parent}" if missing else f"cannot create {self._path}: {error.strerror}",
                               do="make it, or name a journal elsewhere" if missing else "make the folder writable, or name a journal elsewhere",
                               path=str(self._path)) from error
        try:
            if fcntl is not None:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise JournalLockedError(f"{self._path.name[:-5]} is in use by process {owner}",
                                     do="stop that process, or let it run your sagas; to look on, use `yk runs`",
                                     path=str(self._path), pid=owner) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        _HELD.add(self)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _after_fork() -> None:
    """A child has a copy of the descriptor, and the lock would last until the last of them is closed: it is the parent's alone."""
    for lock in list(_HELD):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
