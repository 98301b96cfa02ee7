"""The index of a store opened: to write by its lock, to read without one."""

from pathlib import Path

from pipeline.disk.faults import store_faults
from pipeline.disk.locks import INDEX_LOCK, exclusive_lock
from pipeline.disk.store_identity import refuse_as_root
from pipeline.errors import StoreNotReadyError
from pipeline.storage.index.engine import is_made
from pipeline.storage.index.run_index import INDEX_FILE, RunIndex


def open_index(root: Path) -> RunIndex:
    """Open the index of the store at `root`; a new store has none yet.

    Raises:
        StoreNotReadyError: The index is missing or empty though there are runs, or damaged.
        StoreError: The disk failed.
    """
    path = root / INDEX_FILE
    refuse_as_root(root)
    with store_faults(root), exclusive_lock(root / INDEX_LOCK):
        has_runs = any((root / "runs").glob("*/*"))
        if has_runs and not path.exists():
            raise StoreNotReadyError(
                f"The index of the store {root} is missing: run rmos index rebuild."
            )
        return RunIndex(path, may_be_new=not has_runs)


def open_index_to_read(root: Path) -> RunIndex:
    """Open the index of the store at `root` to read it: who holds the lock may hold it for long.

    Only where none was made yet the lock is taken, and one is made.

    Raises:
        StoreNotReadyError: As `open_index`.
        StoreError: As `open_index`.
    """
    path = root / INDEX_FILE
    with store_faults(root):
        return RunIndex(path, is_made=True) if is_made(path) else open_index(root)
