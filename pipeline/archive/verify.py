"""Proves a tar by the ledger of its store, without unpacking it; read-only.

1. It is a plain tar, each member once, and the members are those that SHA256SUMS names, byte for
   byte.
2. Its manifest is of this store, and each log still begins with what the manifest says of it.
3. Each artifact and link has a leaf and a proof: the proof leads from the leaf to a checkpoint that
   a trusted key signed, and the leaf names these bytes.
4. The ledger, read as far as the manifest goes, names exactly these artifacts and links for its
   dates: none is missing, and none was added.
5. Each attachment has the SHA-256 of its name, and a file of the tar names it.
6. Where the store has the records of its dates, they say of dates and logs what the manifest says,
   and the whole tar has their size and SHA-256.

What is wrong is named by its member. A byte between the members is found by step 6 alone.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline.archive.contents import ArchiveManifest, counts_of, is_record_of, logged_files
from pipeline.archive.tar import (
    LEAF,
    MANIFEST,
    OTHERS,
    PROOF,
    RECORDS,
    SUMS,
    Member,
    TarError,
    read_tar,
)
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import (
    ArtifactPath,
    BlobArea,
    BlobPath,
    LinkPath,
    StorePath,
    date_of,
    parse_path,
)
from pipeline.core.progress import Progress
from pipeline.disk.regular_files import open_named, size_and_sha256_on_disk
from pipeline.errors import IntegrityError, input_faults
from pipeline.ledger.reader import LogReader, StoreLogs
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.proofs import parse_tlog_proof
from pipeline.storage.archives import ArchivedTar, ArchiveRecord, contradiction, read_record
from pipeline.storage.attachments import LEGACY_JSON_LIMIT_BYTES, is_legacy_json
from pipeline.storage.checksums import attachments_of, sum_line

_KEPT_BYTES = 64 << 20
"""Largest member but an attachment that is kept whole while it is looked at."""


@dataclass(frozen=True, slots=True)
class TarFault:
    """What is wrong with a tar.

    Attributes:
        member: The member; empty for the tar as a whole.
        reason: What was expected and what was found.
    """

    member: str
    reason: str


@dataclass(slots=True)
class VerifiedTar:
    """What a tar is.

    Attributes:
        tar: Where it was read, its size and its SHA-256.
        manifest: What it says of itself; None where that cannot be read.
        sha256: Of the bytes of each member, by its name.
        records: Those of its dates that the store has.
        faults: What is wrong; none where the ledger proves it.
    """

    tar: ArchivedTar
    manifest: ArchiveManifest | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    records: list[ArchiveRecord] = field(default_factory=list)
    faults: list[TarFault] = field(default_factory=list)

    def refuse(self) -> None:
        """Refuse a tar that is not proved.

        Raises:
            IntegrityError: It is none of ours, or was changed.
        """
        if self.faults:
            lines = [f"{each.member or 'the tar'}: {each.reason}" for each in self.faults]
            raise IntegrityError(f"The ledger does not prove {self.tar.path}:", lines)


def open_tar(path: Path) -> IO[bytes]:
    """Open a tar for reading; the caller closes it.

    Raises:
        InputError: It cannot be read.
    """
    with input_faults(f"{path} cannot be read"):
        return open_named(path)


def verify_tar(path: Path, file: IO[bytes], logs: StoreLogs, progress: Progress) -> VerifiedTar:
    """Compare an open tar with the ledger of its store.

    Args:
        path: Of the tar, for the report.
        file: The tar, at its start; afterwards at its start again.
        logs: Of the store.
        progress: Called for each member.

    Raises:
        InputError: It cannot be read.
        IntegrityError: A log is not what was written, so it proves nothing.
        StoreError: The disk of the store failed.
    """
    verification = _Verification(logs, VerifiedTar(read_back(path, file)), progress)
    with input_faults(f"{path} cannot be read"):
        verification.run(file)
        file.seek(0)
    return verification.found


def read_back(path: Path, file: IO[bytes]) -> ArchivedTar:
    """Return size and SHA-256 of an open tar, which is at its start again afterwards.

    Raises:
        InputError: It cannot be read.
    """
    with input_faults(f"{path} cannot be read"):
        size_bytes, sha256 = size_and_sha256_on_disk(file)
    absolute = os.path.abspath(path)  # noqa: PTH100  # without following links
    return ArchivedTar(path=absolute, size_bytes=size_bytes, sha256=sha256)


class _Verification:
    """One tar on its way through the steps."""

    def __init__(self, logs: StoreLogs, found: VerifiedTar, progress: Progress) -> None:
        self.found = found
        self._logs = logs
        self._progress = progress
        self._sums: bytes | None = None
        self._halves: dict[str, tuple[str, bytes]] = {}
        self._proved: set[str] = set()
        self._named: set[str] = set()
        self._blobs: list[str] = []

    def run(self, file: IO[bytes]) -> None:
        try:
            for number, each in enumerate(read_tar(file), 1):
                self._take(each)
                self._progress("members", number, None)
        except TarError as error:
            self._fault("", f"{error}")
        self._check_sums()  # 1.
        self._check_records()  # 6.
        manifest = self.found.manifest
        if manifest is None:
            self._fault(MANIFEST, "expected the manifest of a tar, found none that can be read")
            return
        if manifest.store_id != self._logs.store_id:
            reason = f"expected the store {self._logs.store_id}, found {manifest.store_id}"
            self._fault(MANIFEST, reason)
            return
        readers = list(self._logs.open_all())
        self._check_logs(manifest, readers)  # 2.
        self._check_proofs()  # 3.
        self._check_leaves(manifest, readers)  # 4.
        for name in self._blobs:  # 5.
            if name.rpartition("/")[2] not in self._named:
                self._fault(name, "expected an attachment that a file of the tar names")

    def _fault(self, name: str, reason: str) -> None:
        self.found.faults.append(TarFault(name, reason))

    def _take(self, each: Member) -> None:
        name = each.name
        if name in self.found.sha256:
            self._fault(name, "expected it once, found it twice")
        place = parse_path(name)
        if not _is_known(name, place):
            self._fault(name, "expected no such member")
        if isinstance(place, BlobPath):
            self._take_blob(each, place)
            return
        if each.size_bytes > _KEPT_BYTES:
            raise TarError(f"{name}: expected at most {_KEPT_BYTES:,} bytes")
        content = each.read()
        self.found.sha256[name] = sha256_of_bytes(content)
        if name == SUMS:
            self._sums = content
        elif name == MANIFEST:
            try:
                self.found.manifest = ArchiveManifest.model_validate_json(content)
            except ValueError:
                self.found.manifest = None
        elif name.startswith(RECORDS) and name.endswith(LEAF):
            self._take_half(name.removeprefix(RECORDS).removesuffix(LEAF), LEAF, content)
        elif name.startswith(RECORDS) and name.endswith(PROOF):
            self._take_half(name.removeprefix(RECORDS).removesuffix(PROOF), PROOF, content)
        elif isinstance(place, ArtifactPath | LinkPath):
            try:
                self._named.update(attachments_of(place, content))
            except EvidenceError as error:
                self._fault(name, str(error))

    def _take_half(self, path: str, half: str, content: bytes) -> None:
        """Check a leaf by its proof once both are there; mostly one follows the other."""
        other, held = self._halves.pop(path, (half, b""))
        if other == half:
            self._halves[path] = half, content
            return
        leaf, proof = (content, held) if half == LEAF else (held, content)
        self._proved.add(path)
        try:
            parse_tlog_proof(proof).verify(leaf, self._logs.keys)  # 3.
        except EvidenceError as error:
            self._fault(f"{RECORDS}{path}{PROOF}", str(error))

    def _take_blob(self, each: Member, place: BlobPath) -> None:
        digest, kept = hashlib.sha256(), bytearray()
        for piece in each.pieces:
            digest.update(piece)
            if each.size_bytes <= LEGACY_JSON_LIMIT_BYTES:
                kept += piece
        found = self.found.sha256[each.name] = digest.hexdigest()
        self._blobs.append(each.name)
        if found != place.sha256 and not is_legacy_json(bytes(kept), place.sha256):
            self._fault(each.name, f"expected SHA-256 {place.sha256}, found {found}")

    def _check_sums(self) -> None:
        found = self.found.sha256
        lines = sorted(sum_line(sha256, name) for name, sha256 in found.items() if name != SUMS)
        listed = (self._sums or b"").decode(errors="replace").splitlines()
        if self._sums is None:
            self._fault(SUMS, "expected it as the last member, found none")
            return
        hashes = {name: sha256 for sha256, _, name in (each.partition("  ") for each in listed)}
        for name, sha256 in hashes.items():
            if name not in found:
                self._fault(name, f"expected it with SHA-256 {sha256}, found no such member")
            elif found[name] != sha256:
                self._fault(name, f"expected SHA-256 {sha256}, found {found[name]}")
        for name in found.keys() - hashes.keys() - {SUMS}:
            self._fault(name, f"expected a line of it in {SUMS}, found none")
        if not self.found.faults and sorted(listed) != lines:
            self._fault(SUMS, "expected a line for each other member, found others")

    def _check_logs(self, manifest: ArchiveManifest, readers: Sequence[LogReader]) -> None:
        by_log = {reader.log.path: reader for reader in readers}
        for log in manifest.logs:
            if reason := contradiction(log, by_log.get(log.log)):
                self._fault(MANIFEST, reason)

    def _check_proofs(self) -> None:
        for name in self._files():
            if name not in self._proved:
                self._fault(name, "expected a leaf and a proof of it, found none")
        for name in (self._halves.keys() | self._proved) - self.found.sha256.keys():
            self._fault(name, "expected the file of a leaf or a proof, found none")

    def _files(self) -> Iterator[str]:
        for name in self.found.sha256:
            if isinstance(parse_path(name), ArtifactPath | LinkPath):
                yield name

    def _check_leaves(self, manifest: ArchiveManifest, readers: Sequence[LogReader]) -> None:
        sizes = {log.log: log.size for log in manifest.logs}
        expected = logged_files(readers, manifest.dates, sizes)
        found = self.found.sha256
        for name in self._files():
            if name not in expected:
                self._fault(name, "expected a file that a leaf of the ledger names")
        for path, file in expected.items():
            if path not in found:
                self._fault(path, "expected it, as its leaf says, found no such member")
                continue
            if found[path] != file.sha256:
                self._fault(path, f"expected SHA-256 {file.sha256}, as its leaf says")
            leaf = sha256_of_bytes(file.reader.leaf(file.index).encode())
            if found.get(f"{RECORDS}{path}{LEAF}", leaf) != leaf:
                self._fault(f"{RECORDS}{path}{LEAF}", "expected the leaf of the ledger")
        counted = {date: counts_of(expected, date) for date in manifest.dates}
        if counted != manifest.dates or manifest.attachments != len(self._blobs):
            self._fault(MANIFEST, "expected the number of files of each date, found others")

    def _check_records(self) -> None:
        tar, manifest = self.found.tar, self.found.manifest
        for date in sorted({date_of(name) for name in self._files()}):
            try:
                record = read_record(self._logs.store, date)
            except IntegrityError as error:
                self._fault("", str(error))
                continue
            if record is None:
                continue
            self.found.records.append(record)
            if (record.tar.sha256, record.tar.size_bytes) != (tar.sha256, tar.size_bytes):
                self._fault(
                    "",
                    f"expected SHA-256 {record.tar.sha256} and {record.tar.size_bytes:,} bytes, as "
                    f"the record of {date} says, found {tar.sha256} and {tar.size_bytes:,} bytes",
                )
            elif manifest is None or not is_record_of(record, manifest):
                self._fault("", f"expected the record of {date} to say what {MANIFEST} says")


def _is_known(name: str, place: StorePath | None) -> bool:
    """Return whether a tar has a member of this name: nothing else is named to be removed."""
    if isinstance(place, BlobPath):
        return place.area is BlobArea.ATTACHMENTS
    if name.startswith(RECORDS) and name.endswith((LEAF, PROOF)):
        place = parse_path(name.removeprefix(RECORDS).removesuffix(LEAF).removesuffix(PROOF))
    return isinstance(place, ArtifactPath | LinkPath) or name in OTHERS
