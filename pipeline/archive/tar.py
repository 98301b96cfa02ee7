"""The tar of archived dates: plain POSIX, the same store and dates give the same bytes.

Members are sorted by their names; SHA256SUMS, over all others, is the last. Modes, owners and times
are fixed; a name of over 100 characters has a pax header. Anything that reads tars unpacks it, and
`sha256sum -c SHA256SUMS` checks what was unpacked.

| member | what |
|---|---|
| `FORMAT`, `README.txt`, `vkeys.txt` | what this is, and the keys that signed |
| `archive.json` | store, dates, counts, and how far each log had come |
| `checkpoints.txt` | of all logs, as `rmos ledger checkpoint` prints them |
| `runs/...`, `attachments/...` | the files, under their paths of the store |
| `records/runs/...` | for each artifact and link its `.leaf` and `.tlog-proof` |
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import IO, Final

from pipeline.archive.contents import TAR_VERSION, Contents, LoggedFile
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import attachment_path
from pipeline.core.progress import Progress
from pipeline.core.store.contents import StoreContents
from pipeline.disk.durable_files import FILE_MODE
from pipeline.errors import IntegrityError, StoreError
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.tlog.checkpoints import write_trusted
from pipeline.ledger.tlog.notes import parse_note
from pipeline.storage.artifacts import read_recorded
from pipeline.storage.attachments import PIECE_BYTES, AttachmentFiles, OpenBlob
from pipeline.storage.checksums import sum_line

SUMS: Final = "SHA256SUMS"
MANIFEST: Final = "archive.json"
RECORDS: Final = "records/"
LEAF: Final = ".leaf"
PROOF: Final = ".tlog-proof"
OTHERS: Final = frozenset({"FORMAT", "README.txt", "checkpoints.txt", "vkeys.txt", MANIFEST, SUMS})
"""Members beside files of the store and their records."""
EXTENSION_BYTES: Final = 1 << 20
"""Most bytes of a header that extends another. It has a name, which has at most some 300."""

_README: Final = """\
Runs of the dates {dates}
of the store {store_id}, written by `rmos archive create`.

runs/            artifacts, and the links of advisories beside them
attachments/     what they alone name, by its SHA-256
records/         of each artifact and link its leaf in the ledger, and the proof of the leaf
checkpoints.txt  what the proofs lead to, signed by the keys in vkeys.txt
archive.json     how far each log had come
SHA256SUMS       the hash of every other file: sha256sum -c SHA256SUMS

Files have the paths, names and bytes that they have in the store. What other dates name too, and
the whole requests in quarantine, stayed in the store. `rmos archive verify FILE` proves this tar by
the ledger without unpacking it, and `rmos archive restore FILE` puts its files back.
"""


def write_tar(file: IO[bytes], contents: Contents, logs: StoreLogs, progress: Progress) -> None:
    """Write the tar into a new file that is open.

    Raises:
        OSError: It cannot be written.
        IntegrityError: A file was changed meanwhile.
        StoreError: The disk of the store failed.
    """
    members, attachments = _members(contents, logs), AttachmentFiles(logs.store.files)
    blobs = {attachment_path(sha256): sha256 for sha256 in contents.attachments}
    names, sums = sorted([*members, *blobs]), []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, name in enumerate(names, 1):
            if name in blobs:
                sha256 = _add_blob(tar, name, attachments, blobs[name])
            else:
                sha256 = _add(tar, name, members.pop(name)())
            sums.append(sum_line(sha256, name))
            progress("members", number, len(names))
        _add(tar, SUMS, "".join(f"{line}\n" for line in sums).encode())


def _members(contents: Contents, logs: StoreLogs) -> dict[str, Callable[[], bytes]]:
    """Return by its name what gives each member but blobs and sums, when it is written."""
    manifest, notes = contents.manifest, contents.notes
    signers = {(each.name, each.key_id) for note in notes for each in parse_note(note).signatures}
    keys = [key for key in logs.keys if (key.name, key.key_id) in signers]
    readme = _README.format(dates=", ".join(manifest.dates), store_id=manifest.store_id)
    members: dict[str, Callable[[], bytes]] = {
        "FORMAT": f"{TAR_VERSION}\n".encode,
        "README.txt": readme.encode,
        "checkpoints.txt": partial(write_trusted, notes),
        "vkeys.txt": "".join(f"{key}\n" for key in keys).encode,
        MANIFEST: partial(canonical_json, manifest.model_dump()),
    }
    # By their paths, as the members are.
    read = logs.store.files.at_once(partial(_read, logs.store), contents.files)
    for each in contents.files:
        members[each.path] = partial(next, read)
        members[f"{RECORDS}{each.path}{LEAF}"] = partial(_leaf_of, each)
        members[f"{RECORDS}{each.path}{PROOF}"] = partial(_proof_of, each)
    return members


def _read(store: StoreContents, file: LoggedFile) -> bytes:
    return read_recorded(store, file.path, file.sha256, sources=file.sources)


def _leaf_of(file: LoggedFile) -> bytes:
    return file.reader.leaf(file.index).encode()


def _proof_of(file: LoggedFile) -> bytes:
    return bytes(file.reader.prove(file.index))


def _add_blob(tar: tarfile.TarFile, name: str, attachments: AttachmentFiles, sha256: str) -> str:
    check = attachments.check(sha256)
    with closing(attachments.open(sha256)) as blob:
        pieces = _BlobPieces(blob, name)
        tar.addfile(member(name, blob.size_bytes), pieces)  # type: ignore[arg-type]  # it reads
    if check.error is not None or pieces.sha256 != check.actual_sha256:
        raise IntegrityError(f"{name} was changed while it was archived.")
    return pieces.sha256


class _BlobPieces:
    """A blob as a file that is read once, hashed on the way."""

    def __init__(self, blob: OpenBlob, name: str) -> None:
        self._blob = blob
        self._name = name
        self._digest = hashlib.sha256()
        self._offset = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, size_bytes: int) -> bytes:
        try:
            piece = self._blob.read(self._offset, size_bytes)
        except OSError as error:
            # Not a fault of the new file.
            raise StoreError(f"{self._name} cannot be read: {error.strerror}.") from error
        self._digest.update(piece)
        self._offset += len(piece)
        return piece


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> str:
    tar.addfile(member(name, len(content)), BytesIO(content))
    return sha256_of_bytes(content)


def member(name: str, size_bytes: int) -> tarfile.TarInfo:
    """Return the header of a member, which depends on nothing else."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mode = FILE_MODE
    return info


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar that is read.

    Attributes:
        name: Its path.
        size_bytes: Of its content.
        pieces: Gives its content once, while the tar is at it.
    """

    name: str
    size_bytes: int
    pieces: Iterator[bytes]

    def read(self) -> bytes:
        """Return all of its content."""
        return b"".join(self.pieces)


class TarError(Exception):
    """A tar is none, or none that `write_tar` makes."""


class _Header(tarfile.TarInfo):
    """A header before anything that it announces is read: of what `write_tar` writes, or refused.

    `tarfile` reads a header that extends others whole, whatever size it says, and goes back in the
    file where a size is negative.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        info = super().frombuf(buf, encoding, errors)
        is_extension = info.type == tarfile.XHDTYPE and info.size <= EXTENSION_BYTES
        if info.size < 0 or not (is_extension or info.type == tarfile.REGTYPE):
            raise tarfile.ReadError("expected the header of a plain file")
        return info


def read_tar(file: IO[bytes]) -> Iterator[Member]:
    """Yield the members of a tar in their order, each with the header that `write_tar` makes.

    Raises:
        TarError: It cannot be read on, or holds something else.
    """
    last = "its start"
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as tar:
            for info in tar:
                # A header that extends this one may have given it another size.
                if info.size < 0 or info.issparse():
                    raise tarfile.ReadError("expected the size of a plain file")
                last = info.name
                if _header(info) != _header(member(last, info.size)):
                    raise TarError(f"{last}: expected a plain file with the fixed mode and time")
                yield Member(info.name, info.size, _pieces(tar, info))
    # Offsets may be beyond what a file can have, and headers extend each other without end.
    except (
        tarfile.TarError,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise TarError(f"it cannot be read after {last} ({error})") from error


def _pieces(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    content = tar.extractfile(info)
    assert content is not None, "a plain file has content"
    try:
        while piece := content.read(PIECE_BYTES):
            yield piece
    except (tarfile.TarError, OSError) as error:
        raise TarError(f"it cannot be read in {info.name} ({error})") from error


def _header(info: tarfile.TarInfo) -> tuple[object, ...]:
    return info.mode, info.mtime, info.uid, info.gid, info.uname, info.gname, info.linkname
