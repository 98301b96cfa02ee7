"""Attachments as files: streamed in under the hash of their bytes, checked, and read back."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.strict import InvalidJsonError, parse_object
from pipeline.core.layout import attachment_path
from pipeline.core.store.files import Files, FileUpload, NotAFileError, OpenFile
from pipeline.errors import HashMismatchError, IntegrityError, NotFoundError
from pipeline.storage.awaited_blobs import forget_awaited

PIECE_BYTES: Final = 1 << 20
"""What is hashed, written or read at a time: 1 MiB, about a millisecond of hashing."""
LEGACY_JSON_LIMIT_BYTES: Final = 16 << 20
"""Largest blob that is tried as pretty-printed JSON, which is read whole."""

HashRule = Literal["raw", "canonical"]
BlobError = Literal["hash_mismatch", "blob_not_found"]

InThread: TypeAlias = Callable[..., Awaitable[Any]]
"""Calls a function in a thread and waits for it: `asyncio.to_thread` or its like."""


@dataclass(frozen=True, slots=True)
class BlobCheck:
    """What a look at every byte of a blob found.

    Attributes:
        sha256: Its name.
        size_bytes: Of its file; None where there is none.
        actual_sha256: Of the bytes of its file; None where there is none.
        rule: By which its name is its hash: `raw` of the bytes, `canonical` of the JSON that a
            blob of an older store holds pretty-printed; None where by neither.
    """

    sha256: str
    size_bytes: int | None
    actual_sha256: str | None
    rule: HashRule | None

    @property
    def error(self) -> BlobError | None:
        """What is wrong; None where nothing is."""
        if self.size_bytes is None:
            return "blob_not_found"
        return None if self.rule is not None else "hash_mismatch"


class OpenBlob:
    """A blob opened for reading; it stays the same file whatever happens to its name."""

    def __init__(self, file: OpenFile, sha256: str) -> None:
        self._file = file
        self.sha256 = sha256
        self.size_bytes = file.size_bytes

    @property
    def descriptor(self) -> int:
        """Of the open file."""
        return self._file.descriptor

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def read(self, offset: int, limit_bytes: int = PIECE_BYTES) -> bytes:
        """Return at most so many bytes from `offset` on; none behind the end that it had."""
        return self._file.read(offset, limit_bytes)

    def check(self) -> BlobCheck:
        """Read all of it and compare with its name, by both rules."""
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        actual = digest.hexdigest()
        rule: HashRule | None = None
        if actual == self.sha256:
            rule = "raw"
        elif self.size_bytes <= LEGACY_JSON_LIMIT_BYTES and is_legacy_json(
            b"".join(self._pieces()), self.sha256
        ):
            rule = "canonical"
        return BlobCheck(self.sha256, self.size_bytes, actual, rule)

    def refuse_changed(self) -> None:
        """Read all of it and compare with its name, by both rules.

        Raises:
            IntegrityError: Its name is its hash by neither.
        """
        found = self.check()
        if found.error is not None:
            raise self._changed(found.actual_sha256)

    def beginning(self, limit_bytes: int) -> bytes:
        """Return at most so many bytes from the start; all of the blob is read and hashed.

        Raises:
            IntegrityError: Its bytes have another hash than its name.
        """
        digest, kept = hashlib.sha256(), bytearray()
        for piece in self._pieces():
            digest.update(piece)
            kept += piece[: limit_bytes - len(kept)]
        if (actual := digest.hexdigest()) != self.sha256:
            raise self._changed(actual)
        return bytes(kept)

    def _changed(self, actual_sha256: str | None) -> IntegrityError:
        return IntegrityError(
            f"ATTACHMENT_CORRUPT: Expected the blob {self.sha256} to have this SHA-256, found "
            f"{actual_sha256}."
        )

    def _pieces(self) -> Iterator[bytes]:
        offset = 0
        while piece := self.read(offset):
            yield piece
            offset += len(piece)


def is_legacy_json(content: bytes, sha256: str) -> bool:
    """Return whether it is JSON of an older store, named by the hash of its canonical form."""
    canonical = canonical_form(content)
    # A canonical blob of ours in which one byte was changed keeps its length: `\u001f` with a
    # capital F is the same value, and still not the bytes that were stored.
    return (
        canonical is not None
        and len(canonical) != len(content)
        and sha256_of_bytes(canonical) == sha256
    )


def canonical_form(content: bytes) -> bytes | None:
    """Return the canonical bytes of the one JSON value in `content`; None where it is none."""
    try:
        # The strict parser takes objects alone, and a blob may hold any value.
        wrapped, _ = parse_object(b'{"value":' + content + b"}")
    except InvalidJsonError:
        return None
    return canonical_json(wrapped["value"]) if len(wrapped) == 1 else None


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that is there for good.

    Attributes:
        created: False where it was there before.
    """

    sha256: str
    size_bytes: int
    created: bool


def stored_answer(stored: StoredBlob) -> dict[str, Any]:
    """Return the document of an upload."""
    return {
        "sha256": stored.sha256,
        "size_bytes": stored.size_bytes,
        "status": "created" if stored.created else "exists",
    }


class Upload:
    """One blob on its way in. Use it as a context: at its end nothing is left but what it gave.

    One thread at a time.
    """

    def __init__(self, file: FileUpload) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def end(self) -> None:
        """Let go of the file; what has no name by now is gone."""
        self._file.end()

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
        created = self._file.publish(attachment_path(found))
        return StoredBlob(found, self.size_bytes, created)


async def _gathered(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Join small pieces, so that a thread is asked once a MiB and not for each packet."""
    gathered = bytearray()
    async for piece in pieces:
        gathered += piece
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


class AttachmentFiles:
    """The blobs of one store. Any number of threads and processes may use it at once."""

    def __init__(self, files: Files) -> None:
        """Prepare; nothing is looked at, as who only reads must not need the right to write."""
        self._files = files

    def begin(self) -> Upload:
        """Begin an upload; the first one removes what dead processes left of theirs.

        Raises:
            DiskFullError: There is no room for another file.
            StoreNotReadyError: We are root, and the store belongs to another user.
        """
        return Upload(self._files.begin_upload())

    def publish(self, upload: Upload, expected_sha256: str | None = None) -> StoredBlob:
        """Publish an upload; a blob that was there already is checked.

        Raises:
            HashMismatchError: Its bytes have another hash; nothing is kept.
            IntegrityError: A file with other bytes has its name; it was not touched.
            DiskFullError: There is no room for it.
        """
        stored = upload.publish(expected_sha256)
        if not stored.created and (check := self.check(stored.sha256)).error is not None:
            raise IntegrityError(
                f"ATTACHMENT_CORRUPT: Expected the blob {stored.sha256} that is stored to have "
                f"this SHA-256, found {check.actual_sha256}. Nothing was touched."
            )
        with self._files.faults():
            forget_awaited(self._files, [stored.sha256])
        return stored

    def put(self, file: Path) -> StoredBlob:
        """Store the content of `file` under its hash.

        Raises:
            OSError: `file` cannot be read.
        """
        with file.open("rb") as source, self.begin() as upload:
            while piece := source.read(PIECE_BYTES):
                upload.write(piece)
            return self.publish(upload)

    async def receive(
        self, expected_sha256: str, pieces: AsyncIterable[bytes], in_thread: InThread
    ) -> StoredBlob:
        """Store what `pieces` brings, at most 1 MiB of it in memory at a time."""
        upload: Upload = await in_thread(self.begin)
        try:
            async with aclosing(_gathered(pieces)) as joined:
                async for piece in joined:
                    await in_thread(upload.write, piece)
            stored: StoredBlob = await in_thread(self.publish, upload, expected_sha256)
            return stored
        finally:
            # Closing can wait for a piece on its way to the disk, and frees what was written.
            await asyncio.shield(asyncio.ensure_future(in_thread(upload.end)))

    def open(self, sha256: str) -> OpenBlob:
        """Open a blob for reading; the caller closes it.

        Raises:
            NotFoundError: There is no such blob.
        """
        with self._files.faults():
            try:
                file = self._files.open(attachment_path(sha256))
            except (FileNotFoundError, NotADirectoryError, NotAFileError) as error:
                raise NotFoundError(f"BLOB_NOT_FOUND: The store has no blob {sha256}.") from error
        return OpenBlob(file, sha256)

    def read(self, sha256: str, limit_bytes: int) -> bytes:
        """Return the beginning of a blob, checked whole.

        Raises:
            NotFoundError: There is no such blob.
            IntegrityError: Its bytes have another hash than its name.
        """
        with closing(self.open(sha256)) as blob, self._files.faults():
            return blob.beginning(limit_bytes)

    def check(self, sha256: str) -> BlobCheck:
        """Read every byte of a blob and compare with its name."""
        try:
            blob = self.open(sha256)
        except NotFoundError:
            return BlobCheck(sha256, None, None, None)
        with closing(blob), self._files.faults():
            return blob.check()
