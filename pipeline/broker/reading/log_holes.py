"""Offsets of a log that nothing explains: records are gone from the middle of the log.

Every offset between the start of a log and its end is that of a record, of one in a transaction
that was aborted, or of the mark that ends a transaction; all of these are still in the log. A
topic that is never compacted has no other offset. So whatever is missing was removed: by
compaction, or by a change of the broker's disk. What retention removed lies before the
start of the log, and is no hole.

Batches are read as the broker keeps them. Their heads alone list their offsets; only a
batch that lost records is looked into.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import LeaderNotAvailableError, for_code
from aiokafka.protocol.fetch import FetchRequest

from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.aiokafka_fixes.tolerant_records import TolerantRecords
from pipeline.broker.connection import broker_errors, client_options
from pipeline.broker.reading.ranges import Ranges
from pipeline.core.record import Partition
from pipeline.settings import Settings

Hole = tuple[int, int]
"""The first offset that is gone, and the one after the last."""

_HEAD: Final = struct.Struct(">qiibIhiqqqhii")
"""Head of a batch: https://kafka.apache.org/documentation/#recordbatch."""

_BEFORE_BATCH: Final = 12
_CONTROL: Final = 0x20
_FETCH_BYTES: Final = 8 << 20
_PEEK_BYTES: Final = 1 << 20
_WAIT_MS: Final = 100
_SILENT_ANSWERS: Final = 20


async def find_holes(
    settings: Settings, ranges: Ranges, *, peek: bool = False
) -> dict[Partition, list[Hole]]:
    """Return the holes in `ranges`, which the log begins before or with.

    Args:
        settings: The broker.
        ranges: What to look through.
        peek: Whether the first MiB of each range is enough. Compaction begins with what is
            oldest.
    """
    wanted = {partition: each for partition, each in ranges.items() if each.beginning < each.end}
    if not wanted:
        return {}
    client = AIOKafkaClient(**client_options(settings))
    found = {}
    async with broker_errors(settings):
        try:
            await client.bootstrap()
            await client.set_topics({topic for topic, _ in wanted})
            for partition, offsets in sorted(wanted.items()):
                holes = await _holes_of(client, TopicPartition(*partition), offsets, peek)
                if holes:
                    found[partition] = holes
        finally:
            await client.close()
    return found


def describe_holes(partition: Partition, holes: list[Hole]) -> str:
    """Return the holes of a partition in words."""
    named = ", ".join(
        f"{begin}" if end - begin == 1 else f"{begin} to {end - 1}" for begin, end in holes[:10]
    )
    more = f" and {len(holes) - 10} more ranges" if len(holes) > 10 else ""  # noqa: PLR2004
    return f"offsets {named}{more} of {partition[0]}, partition {partition[1]}"


async def _holes_of(
    client: AIOKafkaClient, partition: TopicPartition, offsets: OffsetRange, peek: bool
) -> list[Hole]:
    holes: list[Hole] = []
    position, silent = offsets.beginning, 0
    while position < offsets.end:
        before = position
        size_bytes = _PEEK_BYTES if peek else _FETCH_BYTES
        for begin, end in _occupied(await _fetch(client, partition, position, size_bytes)):
            if end <= position:
                continue
            if begin > position:
                holes.append((position, min(begin, offsets.end)))
            position = end
            if position >= offsets.end:
                break
        if peek and position > before:
            break
        silent = silent + 1 if position == before else 0
        if silent == _SILENT_ANSWERS:
            # The log goes on behind these offsets, and holds nothing at them.
            holes.append((position, offsets.end))
            break
    return [hole for hole in _joined(holes) if hole[0] < hole[1]]


def _joined(holes: list[Hole]) -> list[Hole]:
    joined: list[Hole] = []
    for begin, end in holes:
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return joined


async def _fetch(
    client: AIOKafkaClient, partition: TopicPartition, position: int, size_bytes: int
) -> bytes:
    """Return the batches from `position` on, also those of transactions that were aborted."""
    leader = client.cluster.leader_for_partition(partition)
    if leader is None or leader == -1:
        await client.force_metadata_update()
        leader = client.cluster.leader_for_partition(partition)
    if leader is None or leader == -1:
        raise LeaderNotAvailableError
    asked = [(partition.topic, [(partition.partition, position, size_bytes)])]
    answer = await client.send(leader, FetchRequest(_WAIT_MS, 1, size_bytes, 0, asked))
    for _, partitions in answer.topics:
        for _, error_code, _, *rest in partitions:
            if error_code:
                raise for_code(error_code)
            return bytes(rest[-1] or b"")
    return b""


def _occupied(data: bytes) -> Iterator[Hole]:
    """Yield the ranges of offsets at which there is something, in order."""
    at = 0
    while at + _HEAD.size <= len(data):
        head: tuple[Any, ...] = _HEAD.unpack_from(data, at)
        base, length, attributes, last_delta, count = head[0], head[1], head[5], head[6], head[12]
        end = at + _BEFORE_BATCH + length
        if end > len(data):
            return  # The last batch of an answer may be cut.
        if attributes & _CONTROL or count == last_delta + 1:
            yield base, base + last_delta + 1
        else:
            for record in TolerantRecords(data[at:end]).next_batch() if count else ():
                yield record.offset, record.offset + 1
            # So far the batch reaches, whatever it holds: what is before is gone.
            yield base + last_delta + 1, base + last_delta + 1
        at = end
