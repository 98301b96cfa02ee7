"""A new index beside the old one, put in its place by rename once it is whole."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.disk.small_files import flush_folder
from pipeline.disk.sqlite.database import SqliteDatabase
from pipeline.disk.sqlite.file import read_only
from pipeline.disk.sqlite.schema import Schema
from pipeline.disk.volume import INDEX_NAME

_NEW_INDEX = f"{INDEX_NAME}.rebuilt"


@contextmanager
def new_database(root: Path, schema: Schema) -> Iterator[SqliteDatabase]:
    """Make an index beside the old one, whole and durable at the end of the block."""
    path = root / _NEW_INDEX
    for leftover in _files_of(path):
        leftover.unlink(missing_ok=True)
    database = SqliteDatabase(path, schema)
    try:
        yield database
        database.fold_log()
    finally:
        database.close()


def rows_left(root: Path, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return what a query finds in the index that is there.

    The index may be missing, damaged or of another format: then what can be read of it is returned.
    """
    found: list[tuple[Any, ...]] = []
    try:
        with closing(read_only(root / INDEX_NAME)) as index:
            found.extend(index.execute(query, values))
    except sqlite3.Error:
        return found
    return found


def put_in_place(root: Path) -> None:
    """Put the new index of the store at `root` in the place of the old one, durably."""
    with exclusive_lock(root / INDEX_LOCK):
        # The file first: a death on the way leaves no index, which says so, rather than an index
        # without its log, which would be an older one. A log that stayed would be taken for that
        # of the new file.
        for old in _files_of(root / INDEX_NAME):
            old.unlink(missing_ok=True)
        (root / _NEW_INDEX).replace(root / INDEX_NAME)
        flush_folder(root)


def _files_of(index: Path) -> tuple[Path, Path, Path]:
    return (
        index,
        index.with_name(f"{index.name}-wal"),
        index.with_name(f"{index.name}-shm"),
    )
