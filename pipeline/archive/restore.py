"""Puts the files of a tar back: created where they are missing, compared where they are there.

1. The tar is proved as `verify` does, all of it, before anything is written.
2. Attachments come before the files that name them. Each content is hashed again on its way.
3. A file that is there with other bytes is not touched; it is named, and stays what it was.

Killed anywhere, it is started again and comes to the same end. The records of the dates stay: what
is here is read from here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO

from pipeline.archive.tar import Member, TarError, read_tar
from pipeline.archive.verify import VerifiedTar, open_tar, verify_tar
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import ArtifactPath, BlobPath, LinkPath, parse_path
from pipeline.core.progress import Progress
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.files import Creation, NewFile
from pipeline.errors import IntegrityError
from pipeline.ledger.reader import StoreLogs
from pipeline.storage.attachments import AttachmentFiles

_ROUND_FILES = 64
"""Files of one round; an artifact has at most 64 MiB, and most have some KiB."""


@dataclass(slots=True)
class RestoredArchive:
    """What came of restoring a tar.

    Attributes:
        created: Files that were missing.
        same: Files that were there.
        different: Paths of files that are there with other bytes; none was touched.
    """

    created: int = 0
    same: int = 0
    different: list[str] = field(default_factory=list)


def restore_archive(path: Path, logs: StoreLogs, progress: Progress) -> RestoredArchive:
    """Put the files of the tar at `path` back into the store that has these `logs`.

    Raises:
        InputError: It cannot be read.
        IntegrityError: The ledger does not prove it; nothing was written. Or it was changed since
            it was proved.
        StoreNotReadyError: We may not write into the store.
        StoreError: The store failed.
    """
    with open_tar(path) as file:
        proved = verify_tar(path, file, logs, progress)  # 1.
        proved.refuse()
        restoring = _Restoring(logs.store, proved)
        try:
            # 2. Members are sorted, and attachments/ comes before runs/.
            restoring.run(file, progress)
        except TarError as error:
            raise restoring.changed(str(error)) from error
    return restoring.restored


class _Restoring:
    """One tar on its way back."""

    def __init__(self, store: StoreContents, proved: VerifiedTar) -> None:
        self.restored = RestoredArchive()
        self._store = store
        self._proved = proved
        self._attachments = AttachmentFiles(store.files)

    def run(self, file: IO[bytes], progress: Progress) -> None:
        done, files = 0, self._new_files(file)
        while batch := list(islice(files, _ROUND_FILES)):
            with self._store.faults(), self._store.lock.alone():
                creations = self._store.files.create(batch)
            for path, creation in creations.items():
                self._count(path, creation)
            done += len(batch)
            progress("files", done, None)

    def _count(self, path: str, creation: Creation) -> None:
        if creation is Creation.CREATED:
            self.restored.created += 1
        elif creation is Creation.SAME:
            self.restored.same += 1
        else:
            self.restored.different.append(path)  # 3.

    def _new_files(self, file: IO[bytes]) -> Iterator[NewFile]:
        """Yield artifacts, links, and blobs whose name is not the hash of their bytes."""
        for each in read_tar(file):
            place, expected = parse_path(each.name), self._proved.sha256.get(each.name)
            if isinstance(place, BlobPath) and place.sha256 == expected:
                self._put_back(each, expected)
            elif isinstance(place, ArtifactPath | LinkPath | BlobPath):
                content = each.read()
                if sha256_of_bytes(content) != expected:
                    raise self.changed(each.name)
                yield NewFile(each.name, content)

    def _put_back(self, each: Member, expected: str) -> None:
        with self._attachments.begin() as upload:
            for piece in each.pieces:
                upload.write(piece)
            if upload.sha256 != expected:
                raise self.changed(each.name)
            try:
                stored = self._attachments.publish(upload, expected)
            except IntegrityError:
                self.restored.different.append(each.name)  # 3.
                return
        self._count(each.name, Creation.CREATED if stored.created else Creation.SAME)

    def changed(self, what: str) -> IntegrityError:
        """Return the error that the tar is no longer what was proved."""
        return IntegrityError(f"{self._proved.tar.path} was changed while it was read: {what}.")
