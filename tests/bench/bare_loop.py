"""The persist worker without FastStream and without our skeleton: a bare loop of aiokafka.

The same judging, store, events and order of steps, written as tightly as they allow, on the same
event loop and collector: each poll is a chunk; while one is stored, the next one is fetched and
judged, and the one before is told and committed. What the real worker is slower than this is the
price of its frame.
`python -m tests.bench.bare_loop`, with settings in the environment;
`RMOS_JUDGE_IN_CHILD_PROCESS=false` judges and stores in turns, in one process.
"""

import asyncio
import signal
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import chain

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from pipeline.app.process import run_service
from pipeline.broker.connection import client_options
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.consumers.engine.judging import Judging
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.event import run_event, run_event_headers
from pipeline.core.runs.outcome import Outcome
from pipeline.core.runs.verdict import JudgedRun, Rejected, judge_run_record
from pipeline.settings import Settings, read_settings
from pipeline.storage.batch_plan import JudgedRecord
from pipeline.storage.batch_store import RejectLimit
from pipeline.storage.ledger_key import open_ledger
from pipeline.storage.run_store import RunStore

CHUNK_RECORDS = 512
FETCH_BYTES = 16 * 1024 * 1024
PARTITION_FETCH_BYTES = 2 * 1024 * 1024

Records = list[ConsumerRecord]
Verdict = JudgedRun | Rejected


def main() -> None:
    run_service(_serve(read_settings()))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    consumer, sender = _consumer(settings), BatchSender(settings)
    await sender.start()
    await consumer.start()
    judging = Judging(judge_run_record, in_child=settings.judge_in_child_process)
    with ThreadPoolExecutor(1) as executor, judging:
        persist = BarePersist(settings, consumer, sender, executor)
        consuming = asyncio.create_task(persist.consume(judging, settings.batch_wait_ms))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([consuming, stopped], return_when=asyncio.FIRST_COMPLETED)
        if consuming.done():
            consuming.result()
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
    await consumer.stop()
    await sender.stop()


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        settings.topics.run_requests,
        **client_options(settings),
        group_id=settings.topics.persist_group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_bytes=FETCH_BYTES,
        max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
    )


class BarePersist:
    """Polls, judges, stores, tells, commits."""

    def __init__(
        self,
        settings: Settings,
        consumer: AIOKafkaConsumer,
        sender: BatchSender,
        executor: Executor,
    ) -> None:
        self._consumer = consumer
        self._sender = sender
        self._executor = executor
        self._store = RunStore(settings.data_dir, ledger=open_ledger(settings))
        self._events = settings.topics.run_events
        self._limit = RejectLimit(settings.topics.persist_group)
        self._telling: asyncio.Task[None] | None = None

    async def consume(self, judging: Judging[Verdict], wait_ms: int) -> None:
        ahead: tuple[Records, asyncio.Task[list[Verdict]]] | None = None
        while True:
            # Nothing is waited for while a judged chunk could be stored.
            polled = await self._consumer.getmany(
                timeout_ms=0 if ahead else wait_ms, max_records=CHUNK_RECORDS
            )
            records = list(chain.from_iterable(polled.values()))
            bodies = [(record.key, record.value) for record in records]
            following = asyncio.create_task(judging.judge(bodies)) if records else None
            if ahead is not None:
                await self._persist(ahead[0], await ahead[1])
            ahead = (records, following) if following is not None else None

    async def _persist(self, records: Records, verdicts: Sequence[Verdict]) -> None:
        epoch = self._store.identity.epoch
        judged = [
            JudgedRecord.of(
                RecordSource(epoch, RecordId.of(record)),
                verdict,
                record.value,
                record.timestamp,
            )
            for record, verdict in zip(records, verdicts, strict=True)
        ]
        result = await asyncio.get_running_loop().run_in_executor(
            self._executor, self._store.commit, judged, self._limit
        )
        if self._telling is not None:
            await self._telling
        self._telling = asyncio.create_task(self._tell(records, judged, result.outcomes))

    async def _tell(
        self, records: Records, judged: list[JudgedRecord], outcomes: Sequence[Outcome]
    ) -> None:
        await self._sender.send(
            self._event(record, each.source, outcome)
            for record, each, outcome in zip(records, judged, outcomes, strict=True)
        )
        # The last record of a partition wins, and it is the latest.
        await self._consumer.commit(
            {TopicPartition(each.topic, each.partition): each.offset + 1 for each in records}
        )

    def _event(self, record: ConsumerRecord, source: RecordSource, outcome: Outcome) -> Message:
        return Message(
            self._events,
            record.partition,
            record.key,
            run_event(outcome, source),
            run_event_headers(outcome, source, record.timestamp),
        )


if __name__ == "__main__":
    main()
