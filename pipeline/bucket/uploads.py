"""Files of any size on their way into a bucket: kept in a local file, then sent by one signed PUT.

obstore would hold the whole body in memory, and its requests in parts cannot be refused where an
object is there. What dies on the way leaves nothing: the local file has no name.

Where a signed PUT cannot have a condition, the parts go to an object of a random name in the folder
of the ledger, where alone a store removes; it is copied under the condition, then removed.
"""

import errno
import secrets
from base64 import b64encode
from contextlib import closing, suppress
from datetime import timedelta
from hashlib import md5
from tempfile import TemporaryFile
from typing import Final

import obstore
from obstore.exceptions import BaseError

from pipeline.bucket.connection import REFUSALS
from pipeline.bucket.objects import ATTEMPTS, Objects
from pipeline.bucket.signed_put import SignedPut
from pipeline.core.store.log_store import LEDGER_FOLDER
from pipeline.errors import DiskFullError, StoreAwayError, StoreNotReadyError

_SIGNED: Final = timedelta(hours=1)
"""For 2 GiB at 600 kB/s."""

_PIECE_BYTES: Final = 1024 * 1024
_CREATED: Final = 201
_TAKEN: Final = range(200, 300)
_DENIED: Final = {401, 403}
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class BucketUpload:
    """One file on its way in. One thread at a time."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._file = TemporaryFile()  # noqa: SIM115  # closed by `end`
        self._size_bytes = 0
        # S3 compares it; of the headers for other hashes a signature would have to know.
        self._md5 = md5(usedforsecurity=False)

    def write(self, piece: bytes) -> None:
        """Add some bytes.

        Raises:
            DiskFullError: There is no room for them here.
        """
        try:
            self._file.write(piece)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise DiskFullError(
                "There is no room for the blob in the folder for temporary files: free some space, "
                "or set TMPDIR to another folder."
            ) from error
        self._size_bytes += len(piece)
        self._md5.update(piece)

    def publish(self, path: str) -> bool:
        """Give it its path, durably; False where there is a file already, of whatever bytes.

        Raises:
            StoreAwayError: The bucket does not answer; the file may be there or not.
            StoreNotReadyError: It denies this.
        """
        for _ in range(ATTEMPTS):
            status = self._send(path)
            if status in _TAKEN:
                return True
            if status in _DENIED:
                raise StoreNotReadyError(
                    f"The bucket {self._objects.name} denies a signed PUT ({status})."
                )
            # Refused, or without an answer that says what became of it: what is there decides.
            if self._objects.all([lambda: self._objects.is_there(path)])[0]:
                return False
        raise StoreAwayError(
            f"The bucket {self._objects.name} does not take {path} ({status or 'no answer'}); "
            "nothing was acknowledged."
        )

    def _send(self, path: str) -> int | None:
        condition = self._objects.signed_headers("create")
        if condition is None:
            return self._copy(path)
        url = obstore.sign(self._objects.store, "PUT", path, _SIGNED)
        headers = {**condition, "Content-MD5": b64encode(self._md5.digest()).decode()}
        self._file.seek(0)
        try:
            with closing(SignedPut(url, self._size_bytes, headers)) as put:
                while piece := self._file.read(_PIECE_BYTES):
                    put.send(piece)
                return put.answer()
        except OSError:
            return None

    def _copy(self, path: str) -> int | None:
        store, own = self._objects.store, f"{LEDGER_FOLDER}/.upload-{secrets.token_hex(8)}"
        self._file.seek(0)
        try:
            obstore.put(store, own, self._file, use_multipart=True)
            obstore.copy(store, own, path, overwrite=False)
        except REFUSALS:
            return None
        finally:
            with suppress(BaseError, FileNotFoundError):
                obstore.delete(store, own)
        return _CREATED

    def end(self) -> None:
        """Let go of it; what has no path by now is gone. A second time nothing is left to do."""
        self._file.close()
