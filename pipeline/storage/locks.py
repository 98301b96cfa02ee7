"""Locks that end with the process: flock(2) on a file that stays."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MIGRATION_LOCK: Final = "migrate.lock"
"""In the store's folder: one migration at a time."""

# A link may lead to a file that others hold; a pipe would hold whoever opens it.
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextmanager
def exclusive_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of the file at `path`, made where it is missing.

    Waiters are woken in turn by the kernel; SQLite's own waiting polls and starves one of two
    busy writers.

    Args:
        path: The file.
        wait: Whether to wait for somebody who holds it.

    Raises:
        BlockingIOError: Somebody holds it, and we do not wait.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the file at `path` beside other readers, while no writer holds it.

    Nothing is made or written: where there is no such file, there is no writer to wait for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
