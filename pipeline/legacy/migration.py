"""The migration of an older store's rows into this one: `rmos migrate run`.

Each row goes onto the legacy topic first and is stored from there, by the same steps as a run
request: so files and index can be made again from the topic. Procedure, with the same numbers in
`migrate_into_store`, and what is left if the process dies after a step:

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

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from aiokafka.partitioner import DefaultPartitioner

from pipeline.broker.admin.groups import waiting_ranges
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.reading.group_reader import group_reader
from pipeline.broker.reading.ranges import Ranges, read_ranges
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.engine.batches import BatchWorker, Steps
from pipeline.consumers.engine.judging import Judging
from pipeline.consumers.engine.outbox import Outbox
from pipeline.consumers.start.checks import check_start
from pipeline.core.dead_letters.carried_record import sha256_of_content
from pipeline.core.layout import attachment_path
from pipeline.core.progress import Progress
from pipeline.core.runs.event import run_event, run_event_headers
from pipeline.core.runs.outcome import Outcome, StoredRun
from pipeline.core.store.files import WrittenAhead
from pipeline.disk.faults import store_faults
from pipeline.disk.locks import MIGRATION_LOCK, exclusive_lock
from pipeline.errors import RefusedError
from pipeline.legacy.backup import make_backup
from pipeline.legacy.record import judge_legacy_record
from pipeline.legacy.report import MigrationResult, ReportRow, RowState
from pipeline.legacy.source import (
    CarriedRow,
    OlderStore,
    OwnRow,
    ReadRow,
    RefusedRow,
    read_source,
)
from pipeline.settings import Settings
from pipeline.storage.attachments import AttachmentFiles
from pipeline.storage.batch_store import BatchResult, RejectLimit
from pipeline.storage.run_store import RunRecord, RunStore
from pipeline.storage.store import open_to_write

CHUNK_ROWS = 500
"""Rows that are looked up and published together."""


def preview(source: OlderStore, report: ReportRow, progress: Progress) -> MigrationResult:
    """Return what a migration would make of `source`; nothing is written, no broker is needed.

    Raises:
        InputError: An attachment cannot be read.
    """
    result = MigrationResult.of(source)
    for count, each in enumerate(read_source(source), start=1):
        for changed in result.add(each, "mapped"):
            report(changed)
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


@dataclass(frozen=True, slots=True)
class _Migration:
    """One source on its way into one store; the arguments of `migrate_into_store`."""

    settings: Settings
    store: RunStore
    source: OlderStore
    options: MigrationOptions
    report: ReportRow
    progress: Progress
    result: MigrationResult

    @property
    def topic(self) -> str:
        return self.settings.topics.legacy_runs

    async def run(self) -> MigrationResult:
        async with AsyncExitStack() as stack:
            self._lock(stack)  # 2.
            topics = self.settings.topics
            await check_start(
                self.settings,
                self.store,
                topic=self.topic,
                group=topics.migrate_group,
                writes=(topics.run_events, topics.run_dead_letters),
                accept_loss=self.options.accept_loss,
            )
            if self.source.sha256 is not None:  # 3.
                self.result.backup = make_backup(
                    self.source.path, self.source.sha256, self.options.backup_dir
                )
            ranges = await partition_offsets(self.settings, [self.topic])
            published = await self._published(ranges)  # 4.
            sender = BatchSender(self.settings)
            stack.push_async_callback(sender.stop)
            partitions = sorted(partition for _, partition in ranges)
            await self._publish(sender, published, partitions)  # 5.
            await self._store_waiting(sender)  # 6.
        return self.result

    def _lock(self, stack: AsyncExitStack) -> None:
        root = self.settings.data_dir
        with store_faults(root):
            try:
                stack.enter_context(exclusive_lock(root / MIGRATION_LOCK, wait=False))
            except BlockingIOError:
                raise RefusedError(f"Another migration into the store {root} runs.") from None

    async def _published(self, ranges: Ranges) -> dict[str, str]:
        """Return what the topic has: the hash of the first body of each run_id.

        Raises:
            RefusedError: A record waits that no row of the source has, unless that is accepted.
        """
        waiting = await waiting_ranges(
            self.settings, self.settings.topics.migrate_group, self.topic
        )
        here = {row.run_id for row in self.source.rows}
        published: dict[str, str] = {}
        others: set[str] = set()
        async with aclosing(read_ranges(self.settings, ranges)) as records:
            async for record in records:
                if not isinstance(record.key, bytes | None):
                    continue  # no run_id is so long
                run_id = (record.key or b"").decode(errors="replace")
                published.setdefault(run_id, sha256_of_content(record.value or b""))
                begin = waiting[(record.topic, record.partition)].beginning
                if record.offset >= begin and run_id not in here:
                    others.add(run_id)
        if others and not self.options.resume:
            raise RefusedError(
                f"{len(others):,} records of another source, {min(others)!r:.120} among them, wait "
                f"on {self.topic}: finish that migration first, or store them as well with "
                "--resume."
            )
        return published

    async def _publish(
        self, sender: BatchSender, published: dict[str, str], partitions: list[int]
    ) -> None:
        rows = read_source(self.source)
        partition_of = DefaultPartitioner()
        done = 0
        while chunk := list(islice(rows, CHUNK_ROWS)):
            carried = [row.run_id for row in chunk if isinstance(row, CarriedRow)]
            with self.store.store.faults():
                known = self.store.index.find_all(carried)
            messages = []
            for row in chunk:
                state = _state_of(row, published.get(row.run_id), known.get(row.run_id))
                if isinstance(row, CarriedRow) and state in {"published", "already"}:
                    self._store_oversized(row)
                    if state == "published":
                        key = row.run_id.encode()
                        partition = partition_of(key, partitions, partitions)
                        messages.append(Message(self.topic, partition, key, row.mapped.body))
                for changed in self.result.add(row, state):
                    self.report(changed)
            await sender.send(messages)
            done += len(chunk)
            self.progress("rows read", done, len(self.source.rows))

    def _store_oversized(self, row: CarriedRow) -> None:
        """Store what has no room in the message, before the message that names it."""
        if not row.mapped.oversized:
            return
        attachments = AttachmentFiles(self.store.store.files)
        present = self.store.store.files.present(map(attachment_path, row.mapped.oversized))
        for name in row.mapped.oversized:
            if attachment_path(name) in present:
                continue
            with attachments.begin() as upload:
                own = row.mapped.contents.get(name)
                for piece in self.source.blobs.pieces(name) if own is None else [own]:
                    upload.write(piece)
                attachments.publish(upload, name)
            self.result.oversized.append(name)

    async def _store_waiting(self, sender: BatchSender) -> None:
        """Store the records that wait, publish their events, then commit their offsets."""
        topics = self.settings.topics
        ranges = await waiting_ranges(self.settings, self.settings.topics.migrate_group, self.topic)
        total = sum(offsets.end - offsets.beginning for offsets in ranges.values())
        if not total:
            return
        counts = self.result.counts["outcomes"]

        def store(
            judged: Sequence[RunRecord], limit: RejectLimit, written: WrittenAhead | None = None
        ) -> BatchResult[Outcome]:
            result = self.store.commit(judged, limit, written)
            counts.update(outcome.kind for outcome in result.outcomes)
            self.progress("rows stored", counts.total(), total)
            return result

        with (
            ThreadPoolExecutor(1, thread_name_prefix="store") as executor,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
            Judging(judge_legacy_record, in_child=self.settings.judge_in_child_process) as judging,
        ):
            outbox = Outbox(topics.migrate_group, topics.run_events, topics.run_dead_letters)
            publish = partial(outbox.messages, run_event, run_event_headers)
            worker = BatchWorker(
                Steps(judging, store, publish, self.store.write),
                outbox,
                sender,
                epoch=self.store.identity.epoch,
                executor=executor,
                writer=writer,
                accepted_rejects=self.options.accepted_rejects,
            )
            async with (
                group_reader(self.settings, topics.migrate_group, ranges) as reader,
                aclosing(reader.batches()) as batches,
            ):
                async for records in batches:
                    # A worker would receive them again; this program is run again.
                    await worker.process(records)
                    await reader.commit()


def _state_of(row: ReadRow, on_topic: str | None, known: StoredRun | None) -> RowState:
    """Return the state of a row.

    Args:
        row: The row.
        on_topic: The hash of the body that the topic has of its run_id.
        known: The run of its run_id.
    """
    if isinstance(row, RefusedRow):
        return "refused"
    if isinstance(row, OwnRow):
        return "ours"
    sha256 = row.mapped.judged.request_sha256
    if (known is not None and known.request_sha256 != sha256) or on_topic not in {None, sha256}:
        return "conflict"
    return "published" if on_topic is None else "already"


async def migrate_into_store(
    settings: Settings,
    source: OlderStore,
    options: MigrationOptions,
    report: ReportRow,
    progress: Progress,
) -> MigrationResult:
    """Carry over the rows of `source` that the store at `settings.data_dir` does not have yet.

    Args:
        settings: Which broker, prefix and folder.
        source: The opened source.
        options: How to migrate.
        report: Called with the result of each row.
        progress: Called with how far it is.

    Raises:
        RefusedError: Another migration runs, or records of another source wait.
        RejectLimitError: Too many records fail.
        IntegrityError: A backup, an attachment or a log is not what it must be.
        StoreError: The disk failed, or store and broker do not fit.
        BrokerError: The broker cannot be reached.
    """
    opened, ledger = open_to_write(settings)
    with closing(RunStore(opened, ledger=ledger)) as store:
        result = MigrationResult.of(source)
        return await _Migration(settings, store, source, options, report, progress, result).run()
