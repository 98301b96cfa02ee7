"""A blob streamed to the disk: hashed on the way, whole under its name or not there."""

import errno
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final, Self

from pipeline.core.layout import attachment_path
from pipeline.disk.durable_files import (
    FILE_MODE,
    Folders,
    NewFileHandle,
)
from pipeline.disk.faults import full_advice, store_faults
from pipeline.disk.system_calls import SystemCalls
from pipeline.errors import DiskFullError, HashMismatchError

UPLOAD_SUFFIX: Final = ".upload"
PIECE_BYTES: Final = 1 << 20
"""What is hashed, written or read at a time: 1 MiB, about a millisecond of hashing."""


_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that is there for good.

    Attributes:
        created: False where it was there before.
    """

    sha256: str
    size_bytes: int
    created: bool


class Upload:
    """One blob on its way in. Use it as a context: at its end nothing is left but what it gave.

    One thread at a time.
    """

    def __init__(self, root: Path, calls: SystemCalls, *, unnamed: bool) -> None:
        self._root = root
        self._calls = calls
        self._digest = hashlib.sha256()
        # A caller that is cancelled leaves its thread at work on the descriptor for a moment.
        self._in_use = Lock()
        self.size_bytes = 0
        self._open = ExitStack()
        try:
            with _write_faults(root):
                self._folders = Folders(root, calls, self._open)
                self._file = NewFileHandle(
                    self._folders.root, calls, self._open, unnamed=unnamed, suffix=UPLOAD_SUFFIX
                )
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def end(self) -> None:
        """Let go of the file; what has no name by now is gone."""
        with self._in_use:
            self._open.close()

    @property
    def sha256(self) -> str:
        """Of what has been written so far."""
        return self._digest.hexdigest()

    def write(self, piece: bytes) -> None:
        """Add some bytes.

        Raises:
            DiskFullError: There is no room for them.
        """
        self._digest.update(piece)
        with _write_faults(self._root), self._in_use:
            self._file.write(piece)
        self.size_bytes += len(piece)

    def publish(self, expected_sha256: str | None = None) -> StoredBlob:
        """Give the blob its name, durably, or find that it is there already.

        Args:
            expected_sha256: Its hash where the caller knows it.

        Raises:
            HashMismatchError: Its bytes have another hash; nothing is kept.
            IntegrityError: A file with other bytes has its name; it was not touched.
            DiskFullError: There is no room for it.
        """
        found = self.sha256
        if expected_sha256 not in {None, found}:
            raise HashMismatchError(
                f"Expected bytes with SHA-256 {expected_sha256}, found {found}."
            )
        with _write_faults(self._root), self._in_use:
            self._calls.set_mode(self._file.descriptor, FILE_MODE)
            self._calls.fsync(self._file.descriptor)
            folder, name = self._folders.of(attachment_path(found))
            created = self._file.link(name, folder)
            # Also where it was there: whoever made it may have died before this.
            self._folders.flush()
        return StoredBlob(found, self.size_bytes, created)


async def gathered(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Join small pieces, so that a thread is asked once a MiB and not for each packet."""
    gathered = bytearray()
    async for piece in pieces:
        gathered += piece
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


@contextmanager
def _write_faults(root: Path) -> Iterator[None]:
    """Translate faults of writing; a full disk apart from the others, as it is no fault of ours."""
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
