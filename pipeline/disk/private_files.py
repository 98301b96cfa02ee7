"""Files that their owner alone may use, such as a private key, where an operator keeps them."""

import os
import stat
from pathlib import Path

from pipeline.disk.regular_files import open_named

_OF_OTHERS = 0o077


class NotPrivateError(OSError):
    """Others than its owner may use the file.

    Attributes:
        mode: Its mode, which lets them; None where it belongs to another user.
    """

    def __init__(self, mode: int | None) -> None:
        super().__init__("others may use it")
        self.mode = mode


def read_private(path: Path, limit_bytes: int) -> bytes:
    """Return at most so many bytes of a file that is ours or root's, and closed to all others.

    Raises:
        FileNotFoundError: There is nothing.
        NotAFileError: There is something else.
        NotPrivateError: Others may use it; it was not read.
        OSError: It cannot be read.
    """
    with open_named(path) as file:
        state = os.fstat(file.fileno())
        if state.st_mode & _OF_OTHERS:
            raise NotPrivateError(stat.S_IMODE(state.st_mode))
        if state.st_uid not in {os.geteuid(), 0}:
            raise NotPrivateError(None)
        return file.read(limit_bytes)


def file_mark(path: Path) -> tuple[int, int, int] | None:
    """Return what another file under the same name would not have; None where none can be seen."""
    try:
        state = path.stat()
    except OSError:
        return None
    # A number of an inode is used again; together with a time it is not.
    return state.st_dev, state.st_ino, state.st_mtime_ns
