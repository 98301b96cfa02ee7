"""Bring the rows of an older store into this one: `rmos migrate run`.

Each row goes onto the legacy topic first and is stored from there, by the same steps as a run
request: so files and index can be made again from the topic. Procedure, with the same numbers in
`Migration.run`, and what is left if the process dies after a step:

| step | if the process dies after it |
|---|---|
| 1. open the source; what cannot be read ends it here | nothing |
| 2. one migration at a time; topic, store and group must fit | nothing |
| 3. back the v1 file up, and read the backup again | the backup |
| 4. read which rows the topic has | the same |
| 5. put large attachments into the store, publish the rows that the topic has not | some rows on \
the topic |
| 6. store what the group has not consumed yet: files, ledger, index, events, offsets | some of it |

Run again it goes on: what is on the topic is not published again, what is stored is found.
"""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from aiokafka.partitioner import DefaultPartitioner

from pipeline.broker.admin.offsets import partition_offsets
from pipeline.broker.reading.ranges import Ranges, read_ranges
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.start.checks import check_start
from pipeline.core.dead_letters.carried_record import sha256_of_content
from pipeline.core.layout import attachment_path
from pipeline.core.progress import Progress
from pipeline.core.runs.outcome import Outcome, StoredRun
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import MIGRATION_LOCK, exclusive_lock
from pipeline.errors import RefusedError
from pipeline.legacy.backup import make_backup
from pipeline.legacy.migration_result import (
    MigrationResult,
    RowState,
    Tell,
    note_row,
    result_of,
)
from pipeline.legacy.source import (
    CarriedRow,
    OlderStore,
    OwnRow,
    ReadRow,
    RefusedRow,
    read_source,
)
from pipeline.legacy.topic import store_legacy_runs, waiting_legacy_runs
from pipeline.settings import Settings
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.ledger_key import open_ledger
from pipeline.storage.run_store import RunStore

CHUNK_ROWS = 500
"""Rows that are looked up and published together."""


def preview(source: OlderStore, tell: Tell, progress: Progress) -> MigrationResult:
    """Return what a migration would make of `source`; nothing is written and nobody is asked.

    Raises:
        InputError: An attachment cannot be read.
    """
    result = result_of(source)
    for count, each in enumerate(read_source(source), start=1):
        note_row(result, each, "mapped", tell)
        progress("rows read", count, len(source.rows))
    return result


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """How to migrate.

    Attributes:
        backup_dir: Where the backup goes; None for beside the source.
        resume: Records of another source that wait on the topic are stored as well.
        accept_loss: The operator accepts that records of the topic are lost.
        accepted_rejects: Failures that do not count against the reject limit.
    """

    backup_dir: Path | None = None
    resume: bool = False
    accept_loss: bool = False
    accepted_rejects: int = 0


class Migration:
    """One source on its way into one store."""

    def __init__(
        self,
        settings: Settings,
        store: RunStore,
        source: OlderStore,
        *,
        options: MigrationOptions,
        tell: Tell,
        progress: Progress,
    ) -> None:
        """Prepare; nothing is done yet.

        Args:
            settings: Which broker, prefix and folder.
            store: The opened store.
            source: The opened source.
            options: How to migrate.
            tell: Told of each row.
            progress: Told how far it is.
        """
        self._settings = settings
        self._store = store
        self._source = source
        self._options = options
        self._tell = tell
        self._progress = progress
        self._result = result_of(source)
        self._topic = settings.topics.legacy_runs
        self._attachments = AttachmentFiles(store.root)
        self._partition_of = DefaultPartitioner()

    async def run(self) -> MigrationResult:
        """Carry over what is not carried over yet.

        Raises:
            RefusedError: Another migration runs, or records of another source wait.
            RejectLimitError: Too many records fail.
            IntegrityError: A backup, an attachment or a log is not what it must be.
            StoreError: The disk failed, or store and broker do not fit.
            BrokerError: The broker cannot be reached.
        """
        async with AsyncExitStack() as stack:
            self._begin_alone(stack)  # 2.
            await self._check_start()
            self._back_up()  # 3.
            published = await self._published()  # 4.
            sender = BatchSender(self._settings)
            stack.push_async_callback(sender.stop)
            await self._publish(sender, published)  # 5.
            await self._store_waiting(sender)  # 6.
        return self._result

    def _begin_alone(self, stack: AsyncExitStack) -> None:
        lock = self._store.root / MIGRATION_LOCK
        with store_faults(self._store.root):
            try:
                stack.enter_context(exclusive_lock(lock, wait=False))
            except BlockingIOError:
                raise RefusedError(
                    f"Another migration into the store {self._store.root} runs."
                ) from None

    async def _check_start(self) -> None:
        topics = self._settings.topics
        await check_start(
            self._settings,
            self._store,
            topic=self._topic,
            group=topics.migrate_group,
            writes=(topics.run_events, topics.run_dead_letters),
            accept_loss=self._options.accept_loss,
        )

    def _back_up(self) -> None:
        if self._source.sha256 is not None:
            self._result.backup = make_backup(
                self._source.path, self._source.sha256, self._options.backup_dir
            )

    async def _published(self) -> dict[str, str]:
        """Return what the topic has: the hash of the first body of each run_id.

        Raises:
            RefusedError: A record waits that no row of the source has, unless that is accepted.
        """
        waiting = await waiting_legacy_runs(self._settings)
        here = {row.run_id for row in self._source.rows}
        published: dict[str, str] = {}
        others: set[str] = set()
        ranges = await partition_offsets(self._settings, [self._topic])
        async with aclosing(read_ranges(self._settings, ranges)) as records:
            async for record in records:
                if not isinstance(record.key, bytes | None):
                    continue  # no run_id is so long
                run_id = (record.key or b"").decode(errors="replace")
                published.setdefault(run_id, sha256_of_content(record.value or b""))
                begin = waiting[(record.topic, record.partition)].beginning
                if record.offset >= begin and run_id not in here:
                    others.add(run_id)
        if others and not self._options.resume:
            raise RefusedError(
                f"{len(others):,} records of another source, {min(others)!r:.120} among them, wait "
                f"on {self._topic}: finish that migration first, or store them as well with "
                "--resume."
            )
        return published

    async def _publish(self, sender: BatchSender, published: dict[str, str]) -> None:
        partitions = await self._partitions()
        done = 0
        for rows in _chunks(read_source(self._source)):
            carried = [row.run_id for row in rows if isinstance(row, CarriedRow)]
            with store_faults(self._store.root):
                known = self._store.index.find_all(carried)
            messages = []
            for row in rows:
                state = self._state_of(row, published, known.get(row.run_id))
                if isinstance(row, CarriedRow) and state in {"published", "already"}:
                    self._store_oversized(row)
                    if state == "published":
                        messages.append(self._message(row, partitions))
                note_row(self._result, row, state, self._tell)
            await sender.send(messages)
            done += len(rows)
            self._progress("rows read", done, len(self._source.rows))

    async def _partitions(self) -> list[int]:
        ranges = await partition_offsets(self._settings, [self._topic])
        return sorted(partition for _, partition in ranges)

    def _state_of(
        self, row: ReadRow, published: dict[str, str], known: StoredRun | None
    ) -> RowState:
        if isinstance(row, RefusedRow):
            return "refused"
        if isinstance(row, OwnRow):
            return "ours"
        sha256 = row.mapped.judged.request_sha256
        on_topic = published.get(row.run_id)
        if (known is not None and known.request_sha256 != sha256) or on_topic not in {None, sha256}:
            return "conflict"
        return "published" if on_topic is None else "already"

    def _store_oversized(self, row: CarriedRow) -> None:
        """Store what has no room in the message, before the message that names it."""
        for name in row.mapped.oversized:
            if (self._store.root / attachment_path(name)).exists():
                continue
            with self._attachments.begin() as upload:
                own = row.mapped.contents.get(name)
                for piece in self._source.blobs.pieces(name) if own is None else [own]:
                    upload.write(piece)
                self._attachments.publish(upload, name)
            self._result.oversized.append(name)

    def _message(self, row: CarriedRow, partitions: list[int]) -> Message:
        key = row.run_id.encode()
        partition = self._partition_of(key, partitions, partitions)
        return Message(self._topic, partition, key, row.mapped.body)

    async def _store_waiting(self, sender: BatchSender) -> None:
        ranges = await waiting_legacy_runs(self._settings)
        total = _count(ranges)
        if not total:
            return

        def settled(outcomes: Sequence[Outcome]) -> None:
            self._result.outcomes.update(outcome.kind for outcome in outcomes)
            self._progress("rows stored", self._result.outcomes.total(), total)

        await store_legacy_runs(
            self._settings,
            self._store,
            sender,
            ranges,
            settled=settled,
            accepted_rejects=self._options.accepted_rejects,
        )


async def migrate_into_store(
    settings: Settings,
    source: OlderStore,
    options: MigrationOptions,
    tell: Tell,
    progress: Progress,
) -> MigrationResult:
    """Carry the rows of `source` into the store at `settings.data_dir`.

    Raises:
        RmosError: As `Migration.run`.
    """
    store = RunStore(settings.data_dir, ledger=open_ledger(settings))
    try:
        return await Migration(
            settings, store, source, options=options, tell=tell, progress=progress
        ).run()
    finally:
        store.close()


def _chunks(rows: Iterator[ReadRow]) -> Iterator[list[ReadRow]]:
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


def _count(ranges: Ranges) -> int:
    return sum(offsets.end - offsets.beginning for offsets in ranges.values())
