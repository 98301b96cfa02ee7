"""An object opened for reading, part by part."""

from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from obstore.exceptions import PreconditionError

from pipeline.bucket.objects import PIECE_BYTES, Objects, range_of
from pipeline.core.store.files import NotAFileError

if TYPE_CHECKING:
    from obstore import ObjectMeta


class OpenObject:
    """An object opened for reading; where another takes its name, no byte of that is given.

    Attributes:
        size_bytes: When it was opened.
    """

    def __init__(self, objects: Objects, path: str, meta: "ObjectMeta") -> None:
        self.size_bytes = meta["size"]
        self._objects = objects
        self._path = path
        self._meta = meta
        self._copy: IO[bytes] | None = None

    @property
    def descriptor(self) -> int:
        """Of a copy in the folder for temporary files, made when it is first asked for."""
        if self._copy is None:
            self._copy = TemporaryFile()  # noqa: SIM115  # closed with the object
            for offset in range(0, self.size_bytes, PIECE_BYTES):
                self._copy.write(self.read(offset, PIECE_BYTES))
            self._copy.flush()
            self._copy.seek(0)
        return self._copy.fileno()

    def read(self, offset: int, limit_bytes: int) -> bytes:
        """Return at most so many bytes from `offset` on; none behind the end that it had.

        Raises:
            NotAFileError: Another object has its name by now.
        """
        end = min(offset + limit_bytes, self.size_bytes)
        if offset >= end:
            return b""
        try:
            part = self._objects.opened(self._path, range_of(self._meta, offset, end))
        except PreconditionError as error:
            raise NotAFileError("another object than the one that was opened") from error
        return bytes(part.bytes())

    def close(self) -> None:
        """Let go of the copy, where there is one."""
        if self._copy is not None:
            self._copy.close()
