"""Files of any size on their way in: written in pieces, named once all of them were seen.

States of a file, and what is left if the process dies there:

| state | if the process dies here |
|---|---|
| being written, without a name | nothing; the kernel frees it |
| flushed, without a name | nothing; the kernel frees it |
| linked | the whole file, or no name for it after a power cut; an upload again finds or makes it |
| linked and flushed | the whole file, for good |

Where the file system lacks O_TMPFILE the first two have a temporary name, and a lock that ends
with the process: the next process that uploads removes what no process holds.
"""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from pipeline.disk.faults import full_advice, store_faults
from pipeline.disk.small_files import Folders, NewFileHandle
from pipeline.disk.system_calls import SystemCalls
from pipeline.errors import DiskFullError

UPLOAD_SUFFIX: Final = ".upload"
_FULL = {errno.ENOSPC, errno.EDQUOT}


class DiskUpload:
    """One file on its way in, without a name."""

    def __init__(self, root: Path, calls: SystemCalls, *, unnamed: bool, mode: int) -> None:
        self._root = root
        self._calls = calls
        self._mode = mode
        # A caller that is cancelled leaves its thread at work on the descriptor for a moment.
        self._in_use = Lock()
        self._open = ExitStack()
        try:
            with upload_faults(root):
                self._folders = Folders(root, calls, self._open)
                self._file = NewFileHandle(
                    self._folders.root, calls, self._open, unnamed=unnamed, suffix=UPLOAD_SUFFIX
                )
        except BaseException:
            self.end()
            raise

    def write(self, piece: bytes) -> None:
        """Add some bytes.

        Raises:
            DiskFullError: There is no room for them.
        """
        with upload_faults(self._root), self._in_use:
            self._file.write(piece)

    def publish(self, path: str) -> bool:
        """Give it its path, durably; False where there is a file already, of whatever bytes.

        Raises:
            DiskFullError: There is no room for it.
        """
        with upload_faults(self._root), self._in_use:
            self._calls.set_mode(self._file.descriptor, self._mode)
            self._calls.fsync(self._file.descriptor)
            folder, name = self._folders.of(path)
            created = self._file.link(name, folder)
            # Also where it was there: the process that made it may have died before this.
            self._folders.flush()
        return created

    def end(self) -> None:
        """Let go of it; what has no name by now is gone."""
        with self._in_use:
            self._open.close()


@contextmanager
def upload_faults(root: Path) -> Iterator[None]:
    """Translate faults of writing; a full disk separately, as it is no fault of ours."""
    try:
        with store_faults(root):
            yield
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _FULL:
            why, advice = full_advice(root)
            raise DiskFullError(
                f"There is no room for the blob in the store {root} ({why}): {advice}."
            ) from cause
        raise
