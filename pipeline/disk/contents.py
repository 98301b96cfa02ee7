"""A store on a disk, opened without its index."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pipeline.core.store.contents import StoreContents
from pipeline.disk.durable_files import DurableFiles
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock, shared_lock
from pipeline.disk.log_store import DiskLogs
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.small_files import remove_leftovers
from pipeline.disk.store_identity import read_store
from pipeline.disk.system_calls import LogSystemCalls, SystemCalls


class DiskLock:
    """The lock of the store at `root`: a `StoreLock`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no batch begin while the block runs.

        Raises:
            StoreNotReadyError: We are root, and the store belongs to another user.
        """
        refuse_as_root(self._root)
        with exclusive_lock(self._root / INDEX_LOCK):
            yield

    def key_in_force(self) -> None:
        """Return none: a worker looks at the file of its key in each batch."""

    def put_in_force(self, key: str) -> None:
        """Do nothing, likewise."""

    def between_batches(self) -> AbstractContextManager[None]:
        """Do the same, beside others who only look; no file is made."""
        return shared_lock(self._root / INDEX_LOCK)


def disk_contents(root: Path) -> StoreContents:
    """Open the files and the logs of the store at `root`; who only reads needs no other right.

    Raises:
        StoreNotReadyError: There is no store.
    """
    identity, files = read_store(root), DurableFiles.untried(root)
    return StoreContents(identity, files, DiskLogs(root, files=files), DiskLock(root))


def disk_contents_to_write(root: Path, calls: SystemCalls | None = None) -> StoreContents:
    """Open them for a worker, and remove what killed processes have left.

    Args:
        root: Folder of the store.
        calls: System calls of its files, for tests.

    Raises:
        StoreNotReadyError: There is no store, or we are root and it belongs to another user.
        StoreError: The disk cannot be written.
    """
    identity = read_store(root)
    refuse_as_root(root)
    with store_faults(root):
        files = DurableFiles(root, calls)
        with exclusive_lock(root / INDEX_LOCK):
            remove_leftovers(root, calls or SystemCalls())
    logs = DiskLogs(root, LogSystemCalls(), files)
    return StoreContents(identity, files, logs, DiskLock(root))
