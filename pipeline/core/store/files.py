"""The files of a store: write-once contents under paths, each whole and durable or not there."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

import msgspec

Item = TypeVar("Item")
Result = TypeVar("Result")


class NotAFileError(OSError):
    """Something else is in the file's place, or it may not be read; its text names it."""


class Creation(Enum):
    """What came of creating one file."""

    CREATED = "created"
    SAME = "the file was there with the same bytes"
    DIFFERENT = "the file was there with other bytes, and was not touched"
    NOT_MADE = "a file that it needs was there with other bytes"


class Presence(Enum):
    """What is under the name of a file that should be there."""

    MISSING = "missing"
    SAME = "the file with the same bytes"
    DIFFERENT = "something else, or other bytes, or what cannot be read"


class NewFile(msgspec.Struct, frozen=True, gc=False):
    """A file to create.

    Attributes:
        path: Relative to the store, with `/`.
        content: All of its bytes.
        private: Whether only the owner may read it.
        needs: Paths of files of the same call, before this one, that must have these bytes.
    """

    path: str
    content: bytes
    private: bool = False
    needs: frozenset[str] = frozenset()


class ExpectedFile(NamedTuple):
    """A file that should be there.

    Attributes:
        path: Relative to the store, with `/`.
        sha256: Of its bytes.
        size_bytes: Where it is known; a file of another size need not be read.
    """

    path: str
    sha256: str
    size_bytes: int | None = None


class FoundName(NamedTuple):
    """What was found in a folder.

    Attributes:
        path: Relative to the store.
        is_folder: Whether more may be below it.
    """

    path: str
    is_folder: bool


class FileState(NamedTuple):
    """What a store says of a file beside its bytes.

    Attributes:
        size_bytes: Of its content.
        mode: Its rights; None in a store that has none.
    """

    size_bytes: int
    mode: int | None


class History(NamedTuple):
    """What a store knows of a file that was replaced or hidden.

    Attributes:
        path: Of the file.
        versions: How many there are.
        is_hidden: Whether it was deleted, and its versions are kept.
        first: The first version.
        last: The last one.
        may_be_same: Whether the first and the last have one size.
    """

    path: str
    versions: int
    is_hidden: bool
    first: str
    last: str
    may_be_same: bool


class WrittenAhead(AbstractContextManager[object], Protocol):
    """Contents that were written and have no name; what gets none until it is closed is gone."""

    def close(self) -> None:
        """Let go of them; a second time nothing is left to do."""


class OpenFile(Protocol):
    """A file opened for reading; it stays the same file whatever happens to its name.

    Attributes:
        size_bytes: When it was opened.
    """

    size_bytes: int

    @property
    def descriptor(self) -> int:
        """Of the open file, or of a copy of it, for who sends its bytes."""

    def read(self, offset: int, limit_bytes: int) -> bytes:
        """Return at most so many bytes from `offset` on; none behind the end that it had."""

    def close(self) -> None:
        """Let go of it."""


class FileUpload(Protocol):
    """A file of any size on its way to a path that is known once all of it was seen.

    One thread at a time. DiskFullError where there is no room for it.
    """

    def write(self, piece: bytes) -> None:
        """Add some bytes."""

    def publish(self, path: str) -> bool:
        """Give it its path, durably; False where there is a file already, of whatever bytes."""

    def end(self) -> None:
        """Let go of it; what has no path by now is gone. A second time nothing is left to do."""


class ReadableFiles(Protocol):
    """The files of one store, for reading. Any number of threads may use it at once.

    Faults are those of the implementation, until `faults` translates them; but there is
    FileNotFoundError where there is no file, and NotAFileError where something else has its place.
    """

    @property
    def name(self) -> str:
        """Which store it is, for people."""

    def faults(self) -> AbstractContextManager[None]:
        """Translate a fault of the files into StoreError while the block runs."""

    def presence(self, expected: Iterable[ExpectedFile]) -> dict[str, Presence]:
        """Return for each path what is where the file should be; nothing is written."""

    def present(self, paths: Iterable[str]) -> set[str]:
        """Return those of `paths` under which there is anything at all."""

    def readable(self, paths: Iterable[str]) -> set[str]:
        """Return those of `paths` under which there is a file that we may read; none is read."""

    def has_folder(self, folder: str) -> bool:
        """Return whether there is such a folder: without it nothing can be below."""

    def names(self, folder: str) -> list[FoundName]:
        """Return what is in a folder, in order; nothing where there is no such folder."""

    def paths_below(self, folder: str) -> Iterator[str]:
        """Yield the path of everything below a folder that is no folder, in order."""

    def at_once(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Yield what `function`, which reads some file, returns for each of `items`, in order.

        It runs in as many threads as the store answers at once; on a disk in this one alone.
        """

    def written_ns(self, folder: str) -> dict[str, int]:
        """Return when each file in a folder was written last, in ns since 1970, by its path."""

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: There is nothing.
            NotAFileError: There is something else, or it has more bytes than the limit.
        """

    def open(self, path: str) -> OpenFile:
        """Open a file for reading; the caller closes it. Raises as `read` does."""


class Files(ReadableFiles, Protocol):
    """The files of one store. One thread at a time writes, and one more writes ahead."""

    @property
    def group_commits(self) -> bool:
        """Whether many files are made durable at once; else each is by itself."""

    def write(self, files: Iterable[NewFile]) -> WrittenAhead:
        """Write contents that `create` is likely to need; none of them has a name."""

    def create(
        self, files: Iterable[NewFile], written: WrittenAhead | None = None
    ) -> dict[str, Creation]:
        """Create `files`, each of another path, in their order; return what came of each path.

        All are durable when this returns, also those that were there with the same bytes.

        Args:
            files: What is to be there.
            written: What `write` returned; it is closed, whatever was not needed is gone.
        """

    def link(
        self, files: Iterable[NewFile], written: WrittenAhead | None = None
    ) -> dict[str, Creation]:
        """Create `files` as `create` does; a swap of logs that follows makes the names durable."""

    def begin_upload(self) -> FileUpload:
        """Begin a file of any size; any number of threads may, each its own."""

    def remove(self, paths: Collection[str]) -> None:
        """Remove notes, which are no records; one that is not there is as removed."""


class OpenFolder(Protocol):
    """A folder whose files are looked at by their names in it."""

    def state(self, name: str) -> FileState | None:
        """Return the state of a file; None where there is nothing.

        Raises:
            OSError: There is something else, or it is unknown.
        """

    def opened(self, name: str) -> AbstractContextManager[tuple[FileState, Callable[[], bytes]]]:
        """Hold a file open: its state, and what reads all of it.

        Raises:
            FileNotFoundError: There is nothing.
            OSError: There is something else, or it cannot be read.
        """


class Inspection(Protocol):
    """What an audit asks about files beside their bytes: what a disk or a bucket alone has too.

    Any number of threads may use it at once. Faults are those of the files.
    """

    def folder(self, path: str, first: str, last: str) -> AbstractContextManager[OpenFolder]:
        """Hold a folder, to ask for files named from `first` to `last`.

        Raises:
            OSError: There is no such folder, or we may not look; some stores have no folders.
        """

    def opened(self, path: str) -> AbstractContextManager[tuple[OpenFile, int | None] | None]:
        """Hold a file open, with its mode; None where there is nothing.

        Raises:
            NotAFileError: There is something else, or it cannot be opened.
        """

    def each_name(self, folder: str) -> Iterator[str]:
        """Yield the names in a folder, in no order, and never all in memory.

        Where the store has no folders, what lies deeper comes with its path from there.
        """

    def below(self, folder: str, descends: Callable[[str], bool]) -> Iterator[FoundName]:
        """Yield what lies below a folder, in order; of its folders those below `descends` too.

        Where the store has no folders, everything below comes, and no folder.
        """

    def mode(self, path: str) -> int | None:
        """Return the mode of whatever has this path, with its kind; None where there are no modes.

        Raises:
            OSError: There is nothing, or it is unknown.
        """

    def kind_of(self, path: str) -> str:
        """Return what has this path, in a few words, as "a file"."""

    def is_own(self, path: str, *, is_folder: bool) -> bool:
        """Return whether the store itself keeps this beside its files, as its locks and index."""

    def keeps_versions(self, paths: Iterable[str]) -> bool | None:
        """Return whether the store keeps earlier versions, by files that have been replaced.

        None where no file can have any, as on a disk.
        """

    def histories(self, folder: str) -> Iterator[History]:
        """Yield each file below a folder that has more than one version, or is hidden."""

    def newest_versions(self, path: str, most: int) -> list[str]:
        """Return the last versions of a file, the newest first."""

    def read_version(self, path: str, version: str) -> Iterator[bytes]:
        """Yield the bytes of a version."""
