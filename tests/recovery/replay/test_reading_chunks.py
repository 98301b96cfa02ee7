"""Chunks stay within one partition, keep the order, and end cleanly where one cannot be judged."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from aiokafka import ConsumerRecord

from pipeline.consumers.engine.batches import CHUNK_RECORDS
from pipeline.consumers.engine.judging import Judging
from pipeline.core.runs.verdict import Rejected, judge_run_record
from pipeline.recovery.replay.reading import judged_chunks
from tests.builders import record, run_request, sha256

TOPIC = "rmos.runs.requests"


def record_at(partition: int, offset: int, value: bytes | None = b"{}") -> ConsumerRecord:
    return ConsumerRecord(
        TOPIC, partition, offset, 1000 + offset, 1, b"key", value, None, 3, 2, headers=()
    )


class Source:
    """Records, and whether their reader was closed."""

    def __init__(self, records: list[ConsumerRecord]) -> None:
        self.closed = False
        self._records = records

    async def read(self) -> AsyncGenerator[ConsumerRecord, None]:
        try:
            for each in self._records:
                yield each
        finally:
            self.closed = True


async def test_records_come_judged_in_their_order_and_each_chunk_is_of_one_partition() -> None:
    key, value = record(run_request(run_id="run_a"))
    made = ConsumerRecord(TOPIC, 3, 7, 5, 1, key, value, None, 1, 1, headers=())
    first = [record_at(2, offset) for offset in range(CHUNK_RECORDS + 3)]
    source = Source([*first, made, record_at(3, 9, None)])
    with Judging(judge_run_record, in_child=False) as judging:
        chunks = [each async for each in judged_chunks(source.read(), judging, 4)]
    assert [len(each) for each in chunks] == [CHUNK_RECORDS, 3, 2]
    ids = [each.source.id for chunk in chunks for each in chunk]
    places = [(each.partition, each.offset) for each in ids]
    assert places == [*((2, offset) for offset in range(CHUNK_RECORDS + 3)), (3, 7), (3, 9)]
    run, tombstone = chunks[2]
    assert (run.verdict.run_id, run.source.epoch, run.timestamp_ms) == ("run_a", 4, 5)
    assert run.body_sha256 == sha256(value)
    assert tombstone.verdict.code == "TOMBSTONE"
    assert source.closed


async def test_a_record_that_this_machine_cannot_judge_ends_the_reading() -> None:
    def judge(key: bytes | None, value: bytes | None) -> Rejected:
        del key
        if value == b"5":
            raise MemoryError
        return Rejected("INVALID_JSON", "no")

    source = Source([record_at(p, 0, b"%d" % p) for p in range(12)])
    observed: list[int] = []

    async def read_all(judging: Judging[Rejected]) -> None:
        async with aclosing(judged_chunks(source.read(), judging, 1)) as chunks:
            async for chunk in chunks:
                observed.append(chunk[0].source.id.partition)  # noqa: PERF401 - kept where it ends early

    with Judging(judge, in_child=False) as judging, pytest.raises(MemoryError):
        await read_all(judging)
    assert observed == [0, 1, 2, 3, 4]
    assert source.closed


async def test_a_reader_that_stops_early_closes_the_source() -> None:
    source = Source([record_at(p, 0) for p in range(12)])
    with Judging(judge_run_record, in_child=False) as judging:
        async with aclosing(judged_chunks(source.read(), judging, 1)) as chunks:
            async for _ in chunks:
                break
    assert source.closed
