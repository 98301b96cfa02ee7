"""Locks that end with the process: flock(2) on a file that stays.

Waiters are woken in turn by the kernel; SQLite's own waiting polls and starves one of two busy
writers. flock cannot be cancelled, so a caller that finds a lock held lets a thread wait, logs
for whom it waits, and gives up once the process must stop.
"""

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final

from pipeline.errors import LockWaitEndedError

MIGRATION_LOCK: Final = "migrate.lock"
"""In the store's folder: one migration at a time."""

PATIENCE_SECONDS: Final = 3.0
"""Time after which a wait is news: a batch takes far less."""

_NEWS_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1
# A link may lead to a file that others hold; a pipe would block the caller that opens it.
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# As proc(5) has it; a line with an arrow is of one who waits.
_HELD: Final = re.compile(r"\d+: FLOCK +\S+ +\S+ +(\d+) +\S+:(\d+) ")

_stopping = Event()
# As lines of any command: only services have a log of their own.
_log = logging.getLogger(__name__)


def end_waits() -> None:
    """End every wait for a lock in this process, as it must stop."""
    _stopping.set()


def allow_waits() -> None:
    """Let waits be as long as they are, as something new begins."""
    _stopping.clear()


@contextmanager
def exclusive_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of the file at `path`, made where it is missing.

    Args:
        path: The file.
        wait: Whether to wait for another holder.

    Raises:
        BlockingIOError: Another process or thread holds it, and `wait` is false.
        LockWaitEndedError: The process is to stop; nothing is held.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)
    with _held(path, descriptor, fcntl.LOCK_EX, wait=wait):
        yield


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the file at `path` beside other readers, while no writer holds it.

    Nothing is made or written: where there is no such file, there is no writer to wait for.

    Raises:
        LockWaitEndedError: The process is to stop; nothing is held.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        yield
        return
    with _held(path, descriptor, fcntl.LOCK_SH, wait=True):
        yield


@contextmanager
def _held(path: Path, descriptor: int, operation: int, *, wait: bool) -> Iterator[None]:
    """Hold a lock; its descriptor is closed at the end."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            os.close(descriptor)
            raise
        _Wait(path, descriptor, operation).end()
    except BaseException:
        os.close(descriptor)
        raise
    try:
        yield
    finally:
        os.close(descriptor)


class _Wait:
    """A wait for a lock. The last user of its descriptor, waiter or thread, closes it."""

    def __init__(self, path: Path, descriptor: int, operation: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._operation = operation
        self._done = Event()
        self._given_up = False
        self._fault: OSError | None = None
        self._guard = Lock()
        # A daemon: it must not keep a process that is to end.
        Thread(target=self._flock, name="lock", daemon=True).start()

    def _flock(self) -> None:
        try:
            fcntl.flock(self._descriptor, self._operation)
        except OSError as error:
            self._fault = error
        with self._guard:
            self._done.set()
            if self._given_up:
                os.close(self._descriptor)

    def end(self) -> None:
        """Return once the lock is held; else raise, the descriptor closed or on its way to be."""
        try:
            self._wait()
        except BaseException:
            with self._guard:
                self._given_up = True
                if self._done.is_set():
                    os.close(self._descriptor)
            raise

    def _wait(self) -> None:
        began = time.monotonic()
        news = PATIENCE_SECONDS
        while not self._done.wait(_LOOK_SECONDS):
            seconds = time.monotonic() - began
            if _stopping.is_set():
                raise LockWaitEndedError(
                    f"{self._path} is held by {self._holders()}; the wait for it was ended."
                )
            if seconds >= news:
                _log.warning(
                    "%s is held by %s: waiting for it, %d s so far",
                    self._path,
                    self._holders(),
                    seconds,
                )
                news = seconds + _NEWS_SECONDS
        if self._fault is not None:
            raise self._fault

    def _holders(self) -> str:
        """Return who holds the lock, as far as the system reports it."""
        inode = os.fstat(self._descriptor).st_ino
        pids = []
        with suppress(OSError):
            for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
                found = _HELD.match(f"{line} ")
                # 0 is a process that this one may not see, as in another container.
                if found is not None and int(found[2]) == inode and found[1] != "0":
                    pids.append(found[1])
        return " and ".join(f"process {pid}{_name_of(pid)}" for pid in pids) or "another process"


def _name_of(pid: str) -> str:
    with suppress(OSError, UnicodeDecodeError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        return f" ({' '.join(words).strip()[:80]})"
    return ""


INDEX_LOCK = "index.lock"
