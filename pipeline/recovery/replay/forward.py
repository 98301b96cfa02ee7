"""Publishes a range of records to another topic, unchanged but for a mark.

Key, value and headers are those of the record; `rmos-replay-of` is added and names it. A partition
goes to the one of its number, or where there are fewer, to that number modulo theirs, in its order.
Killed on the way, what was sent stays sent: the topic's readers distinguish records by that header.
"""

from contextlib import aclosing

from aiokafka import ConsumerRecord

from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.reading.ranges import read_ranges
from pipeline.broker.sending.batches import BatchSender, Message
from pipeline.core.dead_letters.carried_record import LeftAtSource, held_bytes, split_headers
from pipeline.core.record import RecordId
from pipeline.errors import InputError, TopicsError, UnsendableError
from pipeline.recovery.chunks import in_chunks
from pipeline.recovery.replay.reading import UNLIMITED, Reading, limited
from pipeline.recovery.replay.request_topics import request_topics
from pipeline.recovery.replay.selection import Selection, resolve
from pipeline.settings import Settings
from pipeline.topics import topic_table

REPLAY_OF = "rmos-replay-of"
_SENT_RECORDS = 500
_SENT_BYTES = 8 * 1024 * 1024
"""Most bytes of records that are sent before the broker has confirmed them."""


async def forward(
    settings: Settings, selection: Selection, topic: str, reading: Reading = UNLIMITED
) -> int:
    """Publish what is asked for to `topic`; return how many records the broker has confirmed.

    Args:
        settings: The broker.
        selection: What is asked for, of the request topics.
        topic: Where to; it must be there.
        reading: Rate limit and progress.

    Raises:
        InputError: The topic is one of the pipeline's own, or the selection is of no request
            topic. Nothing was sent.
        TopicsError: The topic is missing. Nothing was sent.
        BrokerError: The broker cannot be reached, or did not confirm; some may be there.
        UnsendableError: The topic does not take a record, now or ever; some may be there.
    """
    _refuse_own_topics(settings, topic)
    await _check_there(settings, topic)
    names = [each.name for each in request_topics(settings.topics)]
    ranges = {
        place: each.selected for place, each in (await resolve(settings, selection, names)).items()
    }
    total = sum(each.end - each.beginning for each in ranges.values())
    records = limited(read_ranges(settings, ranges), reading.per_second, selection.run_id)
    chunked = in_chunks(records, held_bytes, most=_SENT_RECORDS, most_bytes=_SENT_BYTES)
    sender = BatchSender(settings)
    count = 0
    try:
        async with aclosing(chunked) as chunks:
            async for chunk in chunks:
                await sender.send([_message(topic, record) for record in chunk])
                count += len(chunk)
                reading.progress("offsets", count, total)
    finally:
        await sender.stop()
    reading.progress("offsets", total, total)
    return count


def _refuse_own_topics(settings: Settings, topic: str) -> None:
    """Refuse a topic that the pipeline reads or writes: there the records would count as new.

    Raises:
        InputError: It is one.
    """
    if topic in {each.name for each in topic_table(settings.prefix)}:
        raise InputError(
            f"{topic} belongs to this pipeline, where a replayed record would be one more request "
            "or answer: give another topic, or bring back a dead letter with rmos dead-letters "
            "redrive."
        )


async def _check_there(settings: Settings, topic: str) -> None:
    """Check that the topic is there: a broker that makes topics by itself would make any.

    Raises:
        TopicsError: It is missing.
    """
    try:
        await partition_offsets(settings, [topic])
    except TopicsError as error:
        raise TopicsError(
            f"The topic {topic} is missing at {settings.bootstrap_servers}: make it first."
        ) from error


def _message(topic: str, record: ConsumerRecord) -> Message:
    """Return what is sent for a record.

    Raises:
        UnsendableError: It is so large that not all of it was kept as it was read.
    """
    place = RecordId.of(record)
    left = isinstance(record.key, LeftAtSource) or isinstance(record.value, LeftAtSource)
    if left or split_headers(record.headers)[1] is not None:
        raise UnsendableError(
            f"The record {place} is too large to be sent on: leave it out, by ranges of offsets "
            "before and behind it. What came before it may be sent."
        )
    headers = [*record.headers, (REPLAY_OF, str(place).encode())]
    return Message(topic, record.partition, record.key, record.value, headers)
