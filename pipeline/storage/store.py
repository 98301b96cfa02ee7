"""One store, opened: its contents, and the index, which says which record was first.

`create`, `init_key`, `open_to_write` and `open_to_read` take the store that the settings name: in a
folder, or in a bucket with its index in PostgreSQL. Nothing of the second is imported for the
first: its libraries are an extra.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.core.store.contents import StoreContents
from pipeline.core.store.identity import StoreIdentity
from pipeline.disk.contents import disk_contents, disk_contents_to_write
from pipeline.disk.store_identity import begin_epoch as begin_next_epoch
from pipeline.disk.store_identity import create_store
from pipeline.disk.system_calls import SystemCalls
from pipeline.ledger.writer import Ledger
from pipeline.settings import Settings
from pipeline.storage.contents import shared_stores
from pipeline.storage.index.replacement import Replacement, replacing_file
from pipeline.storage.index.run_index import RunIndex, open_index, open_index_to_read
from pipeline.storage.ledger_key import LedgerKey, init_ledger_key, open_ledger_of


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
        """Let go of the index and of the contents."""
        self.index.close()
        self.let_go()


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
    return with_index(disk_contents_to_write(root, calls), partial(open_index, root))


def open_store_to_read(root: Path) -> Store:
    """Open the store at `root` for reading, while workers write it or not.

    Raises:
        StoreNotReadyError: There is no store, or its index is missing or damaged.
    """
    return with_index(disk_contents(root), partial(open_index_to_read, root))


def with_index(contents: StoreContents, opened: Callable[[], RunIndex]) -> Store:
    """Return the store of these contents, with the index that `opened` opens."""
    parts = (contents.identity, contents.files, contents.logs, contents.lock)
    return Store(*parts, opened(), opened, let_go=contents.let_go)


def create(
    settings: Settings, *, cluster_id: str, store_id: str | None = None, epoch: int = 1
) -> StoreIdentity:
    """Make the store that the settings name, where there is none.

    Raises:
        InputError: `store_id` or `epoch` is not of its form.
        StoreNotReadyError: There is a store already, or something else; or a bucket or a database
            cannot be used for one.
        StoreAwayError: A bucket or a database does not answer.
    """
    if settings.is_shared:
        made: StoreIdentity = shared_stores().create_store(
            settings, cluster_id=cluster_id, store_id=store_id, epoch=epoch
        )
        return made
    return create_store(
        settings.data_dir,
        cluster_id=cluster_id,
        prefix=settings.prefix,
        store_id=store_id,
        epoch=epoch,
    )


def begin_epoch(settings: Settings, *, cluster_id: str) -> StoreIdentity:
    """Go on with a new broker: the next epoch, of the cluster `cluster_id`.

    Raises:
        StoreNotReadyError: There is no store, or another process changes its epoch too.
        StoreError: The disk cannot be written, or a bucket or a database does not answer.
    """
    if settings.is_shared:
        begun: StoreIdentity = shared_stores().begin_epoch(settings, cluster_id=cluster_id)
        return begun
    return begin_next_epoch(settings.data_dir, cluster_id=cluster_id)


def init_key(settings: Settings) -> LedgerKey:
    """Make the key of the ledger where there is none, and return it.

    Raises:
        StoreNotReadyError: There is no store, or its logs are signed by a key that is not there.
        StoreError: The key cannot be written, or a bucket or a database does not answer.
    """
    if settings.is_shared:
        made: LedgerKey = shared_stores().init_key(settings)
        return made
    return init_ledger_key(settings)


def open_to_write(settings: Settings) -> tuple[Store, Ledger | None]:
    """Open the store that the settings name for a worker, with its ledger.

    Raises:
        StoreNotReadyError: There is no store, or it cannot be used as it is; there is no key, or
            the settings say none and there is a log.
        StoreError: The disk cannot be written, or a bucket or a database does not answer.
    """
    if settings.is_shared:
        written: tuple[Store, Ledger | None] = shared_stores().open_to_write(settings)
        return written
    # The ledger's names share the flushes of the files, and a missing key comes before the index.
    contents = disk_contents_to_write(settings.data_dir)
    ledger = open_ledger_of(settings, contents)
    return with_index(contents, partial(open_index, settings.data_dir)), ledger


def index_replacement(
    settings: Settings, store: StoreContents
) -> AbstractContextManager[Replacement]:
    """Give, for the length of a block, what puts another index in the place of that of a store.

    Raises:
        StoreNotReadyError: We may not write, or a database cannot be used as it is.
        StoreAwayError: A database does not answer, or a batch of others takes too long.
    """
    if settings.is_shared:
        replacing: AbstractContextManager[Replacement] = shared_stores().replacing_rows(
            settings, store
        )
        return replacing
    return replacing_file(settings.data_dir, store.identity.epoch)


def open_to_read(settings: Settings) -> Store:
    """Open the store that the settings name for reading, while workers write it or not.

    Raises:
        StoreNotReadyError: There is no store, or it cannot be used as it is.
        StoreAwayError: A bucket or a database does not answer.
    """
    if settings.is_shared:
        read: Store = shared_stores().open_to_read(settings)
        return read
    return open_store_to_read(settings.data_dir)
