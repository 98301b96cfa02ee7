"""Restore what is missing of a store, with the same bytes, from its topics; nobody is told.

Procedure, with the same numbers in the code:

1. Fix what is asked for, up to what the workers have consumed: what they have not is theirs.
2. Refuse where the start of a log is gone, where records are gone from its middle and later ones
   have no leaf that says whether they were first, and, while workers run, where leaves are to be
   appended: a worker that is further on would leave a gap in the ledger that nothing closes.
3. Read each partition, from its start where a record may have no leaf; judge every record.
4. Of records that the store was told of: make again the files, and the rows, of those that were
   first (`history`). A known file that has other bytes is told and left alone.
5. What follows without a gap the store consumes, by the function that a worker calls: files,
   leaves, rows, position. Runs come before advisories, so links find their runs. What follows
   after a gap gets files and rows alone, if its record was first; the workers add its leaf.
6. Compare what could not be restored, and look for uploads that no message brings back.
7. Give the store root: 32 bytes that two stores share where they hold the same.

What is in the store is all that says how far a restore came: killed anywhere, it is started
again and comes to the same end.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.consumers.engine.topic_identity import check_topic_ids
from pipeline.disk.store_identity import StoreIdentity
from pipeline.errors import IntegrityError
from pipeline.ledger.reader import StoreLogs
from pipeline.ledger.writer import Ledger
from pipeline.recovery.replay.findings import Finding, Tally
from pipeline.recovery.replay.opened_store import identity_for_broker
from pipeline.recovery.replay.partitions import replayed_partitions
from pipeline.recovery.replay.reading import UNLIMITED, Reading, read_partitions
from pipeline.recovery.replay.request_topics import request_topics
from pipeline.recovery.replay.restorer import (
    Restorer,
    RestoreSteps,
    refuse_loss,
    refuse_running_workers,
    refuse_undecided,
)
from pipeline.recovery.replay.selection import Selection
from pipeline.settings import Settings
from pipeline.storage.batch_store import BatchStore
from pipeline.storage.checksums import store_root
from pipeline.storage.ledger_key import open_ledger, verifier_keys

Stores = dict[str, BatchStore[Any, Any]]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore came to.

    Attributes:
        counts: Records and files, and findings by kind.
        pending: Offsets that are asked for and were not consumed yet.
        differs: Whether something could not be restored.
        store_root: To compare with that of another store; None where there is no ledger, or where
            files are not as they were written.
    """

    counts: dict[str, int]
    pending: int
    differs: bool
    store_root: str | None


async def restore(
    settings: Settings,
    selection: Selection,
    tell: Callable[[Finding], None],
    *,
    accept_loss: bool = False,
    reading: Reading = UNLIMITED,
) -> Restored:
    """Restore what is asked for into the store at `settings.data_dir`.

    Args:
        settings: Broker, store and ledger key.
        selection: What is asked for.
        tell: Told each finding.
        accept_loss: The operator accepts that the start of a log is gone.
        reading: Rate limit and progress.

    Raises:
        InputError: The selection is of no request topic.
        StoreNotReadyError: Workers run, or records of a log are gone. Nothing was written.
        StoreError: There is no store, it does not fit the broker, or the disk failed.
        IntegrityError: A log is not what was written, or an offset has another leaf.
        BrokerError: The broker cannot be reached, or a topic is missing.
    """
    identity = await identity_for_broker(settings)
    ledger = open_ledger(settings)
    with _opened_stores(settings, ledger) as stores:
        index = next(iter(stores.values())).index
        await check_topic_ids(settings, index, identity.epoch)
        partitions = await replayed_partitions(  # 1.
            settings,
            selection,
            ledger,
            epoch=identity.epoch,
            positions=lambda: index.positions(identity.epoch),
        )
        is_whole = selection.run_id is None
        steps = [
            RestoreSteps.of(each, has_ledger=ledger is not None, is_whole=is_whole)
            for each in partitions
        ]
        if not accept_loss:
            refuse_loss(steps)  # 2.
        await refuse_undecided(settings, steps)
        await refuse_running_workers(settings, steps)
        tally = Tally(tell)
        by_place = {each.partition.place: each for each in steps}
        restorer = Restorer(settings.data_dir, stores, by_place, tally)
        for partition in partitions:
            for finding in partition.hole_findings():
                tally.add(finding)
        await read_partitions(  # 3.
            settings, partitions, restorer.handle, reading=reading, run_id=selection.run_id
        )
    pending = sum(each.pending for each in partitions)
    root = (
        None if ledger is None else await asyncio.to_thread(_store_root, settings, identity)
    )  # 7.
    return Restored(dict(tally.counts), pending, tally.differs, root)


def _store_root(settings: Settings, identity: StoreIdentity) -> str | None:
    try:
        # Logs of earlier epochs may have been signed by keys that are out of use.
        logs = StoreLogs(settings.data_dir, verifier_keys(settings, identity))
        return store_root(logs).hex()
    except IntegrityError:
        return None  # A file that nothing here may mend; it was told where it was asked for.


@contextmanager
def _opened_stores(settings: Settings, ledger: Ledger | None) -> Iterator[Stores]:
    """Open what keeps the records of each request topic, by the topic's name."""
    stores: Stores = {}
    with ExitStack() as stack:
        for topic in request_topics(settings.topics):
            stores[topic.name] = topic.open_store(settings.data_dir, ledger=ledger)
            stack.callback(stores[topic.name].close)
        yield stores
