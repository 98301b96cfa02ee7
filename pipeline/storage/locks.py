"""An exclusive lock that ends with the process: flock(2) on a file that stays."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
