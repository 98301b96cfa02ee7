"""A scratch database on disk: what is sorted and joined there need not fit in memory.

An SQLite file where TMPDIR says. Nothing of it is durable, and nothing is left of it.
"""

import sqlite3
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

_CACHE_KIB: Final = 16_384
"""Of the file's pages; more is no faster for a million rows."""

SqliteError: Final = sqlite3.Error
"""What statements raise, here and of the index."""


class ScratchDatabase(sqlite3.Connection):
    """A connection to one; a statement outside a transaction commits by itself.

    A generator may be resumed by another thread than the one that began it, so any thread may use
    it, one at a time.
    """

    @classmethod
    def make(cls, path: Path | None = None) -> Self:
        """Make one at `path`, for other processes to read; else in a file that has no name.

        That without a name goes with its connection, and cannot roll back.
        """
        made = cls._opened("" if path is None else f"file:{quote(str(path))}")
        journal = "OFF" if path is None else "MEMORY"
        for pragma in (f"journal_mode={journal}", "synchronous=OFF", "temp_store=FILE"):
            made.execute(f"PRAGMA {pragma}")
        made.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        return made

    @classmethod
    def to_read(cls, path: Path) -> Self:
        """Open the one at `path`, which nobody writes any more."""
        return cls._opened(f"file:{quote(str(path))}?mode=ro&immutable=1")

    @classmethod
    def _opened(cls, address: str) -> Self:
        return cls(address, uri=True, isolation_level=None, check_same_thread=False)


def has_no_room(error: sqlite3.Error) -> bool:
    """Return whether a statement failed for want of room."""
    # The low byte is the kind of error, the others give detail (sqlite.org/rescode.html).
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL
