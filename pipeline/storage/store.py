"""One store, opened: its contents, and the index, which says which record was first."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.core.store.contents import StoreContents
from pipeline.disk.contents import disk_contents, disk_contents_to_write
from pipeline.disk.system_calls import SystemCalls
from pipeline.storage.index.run_index import RunIndex, open_index, open_index_to_read


@dataclass(frozen=True, slots=True)
class Store(StoreContents):
    """The contents of a store with its index.

    Attributes:
        index: As it was when the store was opened.
        open_index: Opens the index again, where a rebuild has put another in its place.
    """

    index: RunIndex
    open_index: Callable[[], RunIndex]

    def close(self) -> None:
        """Let go of the index; nothing else stays open."""
        self.index.close()


def open_store_to_write(root: Path, calls: SystemCalls | None = None) -> Store:
    """Open the store at `root` for a worker.

    Args:
        root: Its folder.
        calls: System calls of its files, for tests.

    Raises:
        StoreNotReadyError: There is no store, it belongs to another user and we are root, or its
            index is missing or damaged.
        StoreError: The disk cannot be written.
    """
    contents = disk_contents_to_write(root, calls)
    opened = partial(open_index, root)
    return Store(contents.identity, contents.files, contents.logs, opened(), opened)


def open_store_to_read(root: Path) -> Store:
    """Open the store at `root` for reading, while workers write it or not.

    Raises:
        StoreNotReadyError: There is no store, or its index is missing or damaged.
    """
    contents = disk_contents(root)
    opened = partial(open_index_to_read, root)
    return Store(contents.identity, contents.files, contents.logs, opened(), opened)
