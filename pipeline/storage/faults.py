"""A fault of the disk in one sentence: what failed, where, and what to do."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import NO_MEMORY, StoreError

INDEX_NAME = "index.sqlite3"

_NO_MEMORY_CODES = frozenset({sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR_NOMEM})

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EROFS: "mount the volume for writing; after an I/O error check the disk first",
    errno.EIO: "check the disk before you start again",
    errno.EACCES: "give this user the rights to write there",
    errno.EPERM: "give this user the rights to write there",
    errno.EXDEV: "keep all of the store on one file system",
    errno.ENOTDIR: "put the folder back in its place",
    errno.EMFILE: "raise the limit of open files (ulimit -n) to 1,024 or more",
}


@contextmanager
def store_faults(root: Path) -> Iterator[None]:
    """Translate OSError and SQLite errors of the store at `root`.

    Raises:
        StoreError: The disk or the index failed. Never retried in place: after a failed flush
            the kernel may have dropped the page, so only the records in the topic are sure.
        MemoryError: There was no memory for it; the disk is not at fault.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(NO_MEMORY) from error
        raise StoreError(_sentence(root, error)) from error
    except SQLAlchemyError as error:
        cause = error.__cause__ or error
        if getattr(cause, "sqlite_errorcode", None) in _NO_MEMORY_CODES:
            raise MemoryError(NO_MEMORY) from error
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            # SQLite's own word for a disk without room; it has the file's name, not the number.
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(root / INDEX_NAME))
            raise StoreError(_sentence(root, full)) from error
        message = (
            f"The index of the store {root} failed ({cause}): nothing was acknowledged; "
            "check the disk, then start again; if it is damaged, run rmos index rebuild."
        )
        raise StoreError(message) from error


def _sentence(root: Path, error: OSError) -> str:
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    advice = _ADVICE.get(number, "check the disk")
    # Of a link the new name is the second; the first is only a descriptor.
    name = error.filename2 or error.filename
    where = f" at {name}" if isinstance(name, str) else ""
    return (
        f"The store {root} cannot be used: {reason}{where}; nothing was acknowledged; "
        f"{advice}, then start again."
    )
