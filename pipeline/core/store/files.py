"""The files of a store: write-once contents under paths, each whole and durable or not there."""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, Protocol, Self


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


class NewFile(NamedTuple):
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


class WrittenAhead(Protocol):
    """Contents that were written and have no name; what gets none until it is closed is gone."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_exception: object) -> None: ...

    def close(self) -> None:
        """Let go of them; a second time nothing is left to do."""


class Files(Protocol):
    """The files of one store. One thread at a time writes, and one more writes ahead."""

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

    def presence(self, expected: Iterable[ExpectedFile]) -> dict[str, Presence]:
        """Return for each path what is where the file should be; nothing is written."""
