"""A fault of the disk in one sentence: what failed, where, and what to do."""

import errno
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.disk.volume import INDEX_NAME, Room, room_of
from pipeline.errors import NO_MEMORY, StoreError

_NO_MEMORY_CODES = frozenset({sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR_NOMEM})

_NO_RIGHT = (
    "give this user the rights to write there: a command that was run as another user may have "
    "left folders of its own"
)
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EROFS: "mount the volume for writing; after an I/O error check the disk first",
    errno.EIO: "check the disk before you start again",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EXDEV: "keep all of the store on one file system",
    errno.ENOTDIR: "put the folder back in its place",
    errno.EMFILE: "raise the limit of open files (ulimit -n) to 1,024 or more",
}


def _index_errors() -> tuple[type[Exception], ...]:
    """Return those of the driver and of SQLAlchemy; where that was not imported it raises none."""
    errors = sys.modules.get("sqlalchemy.exc")
    return (sqlite3.Error,) if errors is None else (sqlite3.Error, errors.SQLAlchemyError)


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
    except _index_errors() as error:
        cause = error.__cause__ or error
        if getattr(cause, "sqlite_errorcode", None) in _NO_MEMORY_CODES:
            raise MemoryError(NO_MEMORY) from error
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None and (number := _number_of(root, code)) is not None:
            found = OSError(number, os.strerror(number), str(root / INDEX_NAME))
            raise StoreError(_sentence(root, found)) from error
        raise StoreError(
            f"The index of the store {root} failed ({cause}): nothing was acknowledged; "
            "check the disk, then start again; if it is damaged, run rmos index rebuild."
        ) from error


def _number_of(root: Path, code: int) -> int | None:
    """Return what SQLite's own words for a disk without room or rights are to the system."""
    # The low byte is the kind of error, the others give detail (sqlite.org/rescode.html).
    kind = code & 0xFF
    if kind == sqlite3.SQLITE_FULL:
        return errno.ENOSPC
    if kind in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return errno.EROFS if _room(root).is_read_only else _why_not_opened(root)
    return None


def _room(root: Path) -> Room:
    with suppress(OSError):
        return room_of(root)
    return Room(0, 0, 0)


def _why_not_opened(root: Path) -> int | None:
    if _room(root).has_no_inodes:
        return errno.ENOSPC
    # As its log is beside it, SQLite needs the rights to both.
    files = (root, *root.glob(f"{INDEX_NAME}*"))
    return None if all(os.access(path, os.W_OK) for path in files) else errno.EACCES


def full_advice(root: Path) -> tuple[str, str]:
    """Return why a volume has no room, and what to do."""
    if _room(root).has_no_inodes:
        return (
            "No inodes left on device",
            "remove files that are not the store's, or move it to a volume with more inodes",
        )
    return os.strerror(errno.ENOSPC), _ADVICE[errno.ENOSPC]


def _sentence(root: Path, error: OSError) -> str:
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    advice = _ADVICE.get(number, "check the disk")
    if number == errno.ENOSPC:
        reason, advice = full_advice(root)
    # Of a link the new name is the second; the first is only a descriptor.
    name = error.filename2 or error.filename
    # A file without a name is made in a folder by its descriptor: the dot would mean nothing.
    where = f" at {name}" if isinstance(name, str) and name != os.curdir else ""
    return (
        f"The store {root} cannot be used: {reason}{where}; nothing was acknowledged; "
        f"{advice}, then start again."
    )
