"""Restores missing files; existing ones, right or wrong, are not touched."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.record import RecordSource
from pipeline.core.store.files import Creation, ExpectedFile, Files, NewFile, Presence

ExpectedFiles = Iterable[tuple[RecordSource, Sequence[NewFile] | None]]
"""Records with the files that each once made; None where the store knows it with other bytes."""


@dataclass(frozen=True, slots=True)
class RestoredFile:
    """One file of what a record once made.

    Attributes:
        source: The record.
        file: What should be there.
        creation: SAME where it was there.
    """

    source: RecordSource
    file: NewFile
    creation: Creation


@dataclass(frozen=True, slots=True)
class Restoration:
    """What came of restoring what some records once made.

    Attributes:
        files: Every file, each once.
        unlike: Records whose artifact or link in the store is another than they make today;
            their files were left alone.
    """

    files: list[RestoredFile]
    unlike: list[RecordSource]


def restore_files(store: Files, expected: ExpectedFiles) -> Restoration:
    """Create those files that are missing, durably, blobs before the files that name them.

    Raises:
        OSError: Something failed; nothing may be taken as durable.
    """
    wanted: dict[str, tuple[RecordSource, NewFile]] = {}
    unlike = []
    for source, files in expected:
        if files is None:
            unlike.append(source)
        for file in files or ():
            wanted.setdefault(file.path, (source, file))
    creations = _create_missing(store, {path: file for path, (_, file) in wanted.items()})
    found = [RestoredFile(*each, creations[path]) for path, each in wanted.items()]
    return Restoration(found, unlike)


def _create_missing(store: Files, files: Mapping[str, NewFile]) -> dict[str, Creation]:
    there = store.presence(
        ExpectedFile(path, sha256_of_bytes(file.content), len(file.content))
        for path, file in files.items()
    )
    missing = {path for path, presence in there.items() if presence is Presence.MISSING}
    creations: dict[str, Creation] = {}
    to_create = []
    for path, file in files.items():
        if path not in missing:
            same = there[path] is Presence.SAME
            creations[path] = Creation.SAME if same else Creation.DIFFERENT
        elif any(there[need] is Presence.DIFFERENT for need in file.needs):
            # As in a batch: what names a blob is not made where the blob has other bytes.
            creations[path] = Creation.NOT_MADE
        else:
            to_create.append(structs.replace(file, needs=file.needs & missing))
    return creations | store.create(to_create)
