"""A store opened read-only: its identity, its index and its ledger."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.broker.connection import describe_cluster
from pipeline.disk.store_identity import StoreIdentity, check_identity, read_store
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.writer import Ledger
from pipeline.settings import Settings
from pipeline.storage.index.run_index import INDEX_FILE, RunIndex, open_index_to_read
from pipeline.storage.ledger_key import open_ledger, verifier_keys


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A store that nothing is written to.

    Attributes:
        root: Its folder.
        identity: The content of `store.json`.
        index: Its index; an empty one elsewhere where a new store has none yet.
        ledger: Its logs; None where the settings have none.
        logs: The same with those of earlier epochs, whatever key of the store has signed them.
    """

    root: Path
    identity: StoreIdentity
    index: RunIndex
    ledger: Ledger | None
    logs: StoreLogs | None


async def identity_for_broker(settings: Settings) -> StoreIdentity:
    """Return the identity of the store at `settings.data_dir`, which keeps this broker's topics.

    Raises:
        StoreNotReadyError: There is no store, or it keeps those of another broker or prefix.
        BrokerError: No broker answers.
    """
    identity = read_store(settings.data_dir)
    cluster_id = await describe_cluster(settings)
    check_identity(identity, settings.data_dir, cluster_id=cluster_id, prefix=settings.prefix)
    return identity


@contextmanager
def opened_to_read(settings: Settings, identity: StoreIdentity) -> Iterator[OpenedStore]:
    """Open the store for the length of a block; no file of it is made or changed.

    Raises:
        StoreNotReadyError: Its index is missing over files, or damaged, or there is no key.
        StoreError: The disk failed.
    """
    root = settings.data_dir
    with ExitStack() as stack:
        if (root / INDEX_FILE).exists() or any((root / "runs").glob("*/*")):
            index = open_index_to_read(root)
        else:
            elsewhere = stack.enter_context(TemporaryDirectory(prefix="rmos-"))
            index = RunIndex(Path(elsewhere) / INDEX_FILE)
        stack.callback(index.close)
        ledger = open_ledger(settings)
        logs = None if ledger is None else StoreLogs(root, verifier_keys(settings, identity))
        yield OpenedStore(root, identity, index, ledger, logs)
