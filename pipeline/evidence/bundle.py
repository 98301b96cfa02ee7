"""Writes evidence as a zip file: the same store and the same question give the same bytes.

Times, order and modes are fixed, and members are stored, not compressed: what a compressor makes
differs from one version to the next. Attachments go through in pieces. The last member lists the
hash of every other one.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import IO, Final
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from pipeline.disk.durable_files import FILE_MODE
from pipeline.disk.small_files import new_file
from pipeline.errors import StoreError, input_faults
from pipeline.evidence.evidence import RunEvidence
from pipeline.evidence.words import evidence_page, readme
from pipeline.storage.attachments import AttachmentFiles, OpenBlob
from pipeline.storage.checksums import sum_line

FORMAT: Final = "rmos.evidence/2"
_MOMENT = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip file can have."""
_UNIX = 3
_FILE_MODE = 0o100444
_BRINGS = files("pipeline.evidence")


def write_evidence(path: Path, evidence: RunEvidence, attachments: AttachmentFiles) -> None:
    """Write the bundle to a new file at `path`, whole or not at all.

    Raises:
        InputError: The file is there already or cannot be written.
        NotFoundError: An attachment went meanwhile.
        StoreError: The disk of the store failed.
    """
    written = input_faults(f"{path} cannot be written", "; name a new file")
    with written, new_file(path, FILE_MODE) as file:
        write_bundle(file, evidence, attachments)


def write_bundle(file: IO[bytes], evidence: RunEvidence, attachments: AttachmentFiles) -> None:
    """Write the bundle into a new file that is open.

    Raises:
        OSError: It cannot be written.
        NotFoundError: An attachment went meanwhile.
        StoreError: The disk of the store failed.
    """
    with ZipFile(file, "w", ZIP_STORED) as bundle:
        hashes = {}
        for name, content in _members(evidence):
            bundle.writestr(member(name), content)
            hashes[name] = sha256(content).hexdigest()
        for named in evidence.included:
            name = f"files/{named.path}"
            with closing(attachments.open(named.sha256)) as blob:
                hashes[name] = write_blob(bundle, name, blob)
        sums = "".join(f"{sum_line(hashes[name], name)}\n" for name in sorted(hashes))
        bundle.writestr(member("SHA256SUMS"), sums)


def bundle_tag(evidence: RunEvidence) -> str:
    """Return a SHA-256 that stands for the bytes of the bundle, which is not made for that.

    Over all members but the attachments: the page names each of them with its hash and its state.
    """
    digest = sha256()
    for name, content in _members(evidence):
        digest.update(f"{sum_line(sha256(content).hexdigest(), name)}\n".encode())
    return digest.hexdigest()


def _members(evidence: RunEvidence) -> Iterator[tuple[str, bytes]]:
    brought = ("readme.txt", "page.html", "page.css")
    explains, page, style = ((_BRINGS / name).read_text(encoding="utf-8") for name in brought)
    yield "FORMAT", f"{FORMAT}\n".encode()
    yield "README.txt", readme(evidence, explains).encode()
    yield "report.html", evidence_page(evidence, page, style).encode()
    yield "verify.py", (_BRINGS / "verifier" / "verify.py").read_bytes()
    yield "vkeys.txt", "".join(f"{key}\n" for key in evidence.keys).encode()
    for record in evidence.files:
        yield f"records/{record.name}.leaf", record.leaf.encode()
        yield f"records/{record.name}.tlog-proof", bytes(record.proof)
        if record.consistency is not None:
            yield f"records/{record.name}.consistency", record.consistency
    for record in evidence.files:
        yield f"files/{record.path}", record.content


def member(name: str, size_bytes: int = 0) -> ZipInfo:
    """Return a member of an archive whose bytes depend on nothing else.

    Args:
        name: Its path.
        size_bytes: Of its content, where it is written in pieces.
    """
    info = ZipInfo(name, _MOMENT)
    info.create_system = _UNIX
    info.external_attr = _FILE_MODE << 16
    info.file_size = size_bytes
    return info


def write_pieces(bundle: ZipFile, name: str, size_bytes: int, pieces: Iterable[bytes]) -> str:
    """Write a member in pieces; return the hash of the bytes that were written."""
    digest = sha256()
    with bundle.open(member(name, size_bytes), "w") as target:
        for piece in pieces:
            target.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def write_blob(bundle: ZipFile, name: str, blob: OpenBlob) -> str:
    """Write a blob in pieces; return the hash of the bytes that were written.

    Raises:
        StoreError: The disk of the store failed.
    """
    return write_pieces(bundle, name, blob.size_bytes, _pieces(blob, name))


def _pieces(blob: OpenBlob, name: str) -> Iterator[bytes]:
    offset = 0
    try:
        while piece := blob.read(offset):
            yield piece
            offset += len(piece)
    except OSError as error:
        # Not a fault of the new file.
        raise StoreError(f"{name} cannot be read from the store: {error.strerror}.") from error
