"""The backup of a v1 store: a copy beside it, named by the hash of its bytes.

The name is the hash of its bytes, so it can be checked without another note, and a second
backup of the same bytes is the first one. The copy appears by a link, whole and durable, or not
at all; a process that dies before leaves a temporary file, which does no harm.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.hashing import sha256_of_bytes
from pipeline.disk.durable_files import FILE_MODE
from pipeline.disk.regular_files import open_named
from pipeline.disk.small_files import create_file
from pipeline.errors import InputError, IntegrityError, NotFoundError, StoreError

_MARK = ".rmos-backup-"
_REPLACED = ".rmos-replaced-"
_NAME = re.compile(rf"(.+){re.escape(_MARK)}([0-9a-f]{{64}})")


def named_sha256(path: Path) -> str | None:
    """Return the hash in a backup's name; None where it is the name of no backup."""
    match = _NAME.fullmatch(path.name)
    return match[2] if match else None


def backups_of(source: Path, folder: Path | None = None) -> list[Path]:
    """Return the backups of a v1 store, the newest first.

    Raises:
        StoreError: The folder cannot be read.
    """
    place = folder or source.parent
    with _faults(place):
        if not place.is_dir():
            return []
        found = [
            entry
            for entry in place.iterdir()
            if (match := _NAME.fullmatch(entry.name)) and match[1] == source.name
        ]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def make_backup(source: Path, sha256: str, folder: Path | None = None) -> Path:
    """Copy the v1 store at `source`, durably, and read the copy again; return where it is.

    Args:
        source: The file.
        sha256: Of the bytes that it must have.
        folder: Where the backup goes; None for beside the file.

    Raises:
        InputError: The file has other bytes than when it was read.
        IntegrityError: There is a backup of this name with other bytes.
        StoreError: The disk failed.
    """
    target = (folder or source.parent) / f"{source.name}{_MARK}{sha256}"
    with _faults(target.parent):
        _copy(source, target, sha256)
    check_backup(target)
    return target


def keep_replaced(path: Path, new_sha256: str) -> Path | None:
    """Keep the bytes of a v1 store that is about to be replaced; return where they are.

    They are no backup: it is not known that they are a whole v1 store.

    Args:
        path: The file.
        new_sha256: Of what it is restored from: these bytes need not be kept again.

    Raises:
        InputError: Another process writes the file meanwhile.
        StoreError: The disk failed.
    """
    with _faults(path.parent):
        if not path.exists():
            return None
        found = _sha256_of(path)
        if found == new_sha256:
            return None
        target = path.with_name(f"{path.name}{_REPLACED}{found}")
        _copy(path, target, found)
        return target


def check_backup(path: Path) -> None:
    """Check that a backup has the hash of its name.

    Raises:
        NotFoundError: There is none.
        InputError: It has the name of no backup.
        IntegrityError: It has other bytes.
        StoreError: The disk failed.
    """
    expected = named_sha256(path)
    if expected is None:
        raise InputError(f"Expected a backup named ...{_MARK}<sha256>, found {path.name}.")
    with _faults(path.parent):
        try:
            found = _sha256_of(path)
        except FileNotFoundError:
            raise NotFoundError(f"There is no backup {path}.") from None
    if found != expected:
        raise IntegrityError(
            f"Expected the backup {path} to have SHA-256 {expected}, found {found}."
        )


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Copy the file under its new name, unless that is there: of two copies the first one stays."""
    target.parent.stat()  # A folder that is not there is a mistake, and is not made.
    if os.path.lexists(target):
        return
    with open_named(source) as file:
        content = file.read()
    if sha256_of_bytes(content) != sha256:
        raise InputError(f"The v1 store {source} was changed while it was read: run it again.")
    create_file(target, content, FILE_MODE)


def _sha256_of(path: Path) -> str:
    with open_named(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _faults(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The backup in {folder} failed: {error.strerror or error}. Nothing was changed; give "
            "another folder with --backup-dir."
        ) from error
