"""The files of a store in a bucket: each is one object, created by `If-None-Match: *`.

There is nothing to flush: what the server acknowledges is durable, with a SHA-256 that it has
compared. Modes and owners mean nothing here; who may read what is the bucket's policy.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Final

from pipeline.bucket.objects import IN_FLIGHT, Objects
from pipeline.bucket.open_object import OpenObject
from pipeline.bucket.uploads import BucketUpload
from pipeline.core.store.files import (
    Creation,
    ExpectedFile,
    FoundName,
    Item,
    NewFile,
    NotAFileError,
    Presence,
    Result,
    WrittenAhead,
)
from pipeline.core.store.log_store import LEDGER_FOLDER

_CREATIONS: Final = {True: Creation.CREATED, None: Creation.SAME, False: Creation.DIFFERENT}


class BucketFiles:
    """The files of one store in a bucket.

    Attributes:
        acknowledged: Of the last files that were created, those of the ledger, by their paths:
            what the server has compared with its SHA-256, or we with the bytes that it gave.
    """

    group_commits = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.acknowledged: dict[str, bytes] = {}

    @property
    def name(self) -> str:
        """The URL."""
        return self._objects.name

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the bucket into StoreError while the block runs."""
        return self._objects.faults()

    def write(self, files: Iterable[NewFile]) -> WrittenAhead:
        """Write nothing ahead: an object has its name as soon as it is there."""
        del files
        return ExitStack[None]()

    def create(
        self, files: Iterable[NewFile], written: WrittenAhead | None = None
    ) -> dict[str, Creation]:
        """Create `files`, each of another path; return what came of each path, in their order.

        What a file needs is created before it; all others at once.
        """
        closing: AbstractContextManager[object] = written or nullcontext()
        with closing:
            wanted = list(files)
            self.acknowledged = {}
            creations: dict[str, Creation] = {}
            for wave in _waves(wanted):
                self._create(wave, creations)
            return {file.path: creations[file.path] for file in wanted}

    link = create

    def _create(self, wave: list[NewFile], creations: dict[str, Creation]) -> None:
        ready = []
        for file in wave:
            if any(creations[path] is Creation.DIFFERENT for path in file.needs):
                creations[file.path] = Creation.NOT_MADE
            else:
                ready.append(file)
        made = self._objects.all(
            partial(self._objects.create, file.path, file.content) for file in ready
        )
        for file, each in zip(ready, made, strict=True):
            creations[file.path] = _CREATIONS[each]
            if each is not False and file.path.startswith(f"{LEDGER_FOLDER}/"):
                self.acknowledged[file.path] = file.content

    def presence(self, expected: Iterable[ExpectedFile]) -> dict[str, Presence]:
        """Return for each path what is where the file should be; nothing is written."""
        wanted = list(expected)
        found = self._objects.all(
            partial(self._objects.sha256, file.path, file.size_bytes) for file in wanted
        )
        return {
            file.path: _presence(file, sha256) for file, sha256 in zip(wanted, found, strict=True)
        }

    def present(self, paths: Iterable[str]) -> set[str]:
        """Return those of `paths` under which there is an object."""
        found = self._objects.each(self._objects.is_there, paths)
        return {path for path, is_there in found.items() if is_there}

    def readable(self, paths: Iterable[str]) -> set[str]:
        """Return the same: where we may not read, the bucket denies that we look."""
        return self.present(paths)

    def has_folder(self, folder: str) -> bool:
        """Return whether any path begins with it."""
        return self._objects.each(self._objects.is_folder, [folder])[folder]

    def names(self, folder: str) -> list[FoundName]:
        """Return what is in a folder, in order; nothing where there is no such folder."""
        objects, folders = self._objects.names(folder)
        found = [(path, False) for path in objects] + [(path, True) for path in folders]
        return [FoundName(*each) for each in sorted(found)]

    def paths_below(self, folder: str) -> Iterator[str]:
        """Yield the path of everything below a folder, in the order of the keys."""
        return (each["path"] for each in self._objects.each_below(folder))

    def at_once(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Yield what `function` returns for each of `items`, in order, some of them in advance."""
        waiting: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="reading") as pool:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def written_ns(self, folder: str) -> dict[str, int]:
        """Return when each file in a folder was written last, in ns since 1970, by its path."""
        return {
            each["path"]: int(each["last_modified"].timestamp() * 1e9)
            for each in self._objects.each_below(folder)
        }

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: There is nothing.
            NotAFileError: It has more bytes than the limit.
        """
        found = self._objects.opened(path)
        if (size := found.meta["size"]) > limit_bytes:
            raise NotAFileError(f"a file of {size:,} bytes, more than {limit_bytes:,}")
        return bytes(found.bytes())

    def open(self, path: str) -> OpenObject:
        """Open a file for reading; the caller closes it. Raises as `read` does."""
        return OpenObject(self._objects, path, self._objects.opened(path).meta)

    def begin_upload(self) -> BucketUpload:
        """Begin a file of any size; any number of threads may, each its own."""
        return BucketUpload(self._objects)

    def remove(self, paths: Collection[str]) -> None:
        """Remove notes, which are no records; one that is not there is as removed."""
        self._objects.each(self._objects.delete, paths)


def _waves(files: Iterable[NewFile]) -> list[list[NewFile]]:
    """Put each file into the wave after the last one of those that it needs."""
    waves: list[list[NewFile]] = []
    wave_of: dict[str, int] = {}
    for file in files:
        number = wave_of[file.path] = max((wave_of[path] + 1 for path in file.needs), default=0)
        waves += [[]] if number == len(waves) else []
        waves[number].append(file)
    return waves


def _presence(expected: ExpectedFile, sha256: str | None) -> Presence:
    if sha256 is None:
        return Presence.MISSING
    return Presence.SAME if sha256 == expected.sha256 else Presence.DIFFERENT
