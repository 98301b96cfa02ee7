"""Redrives dead letters: each record unchanged and once, to the topic of its refusal.

1. Fence off every other redrive of this prefix, so that none can send.
2. Read what was brought back before, and the dead letters.
3. Plan: what was brought back, is held or can never be sent is left out.
4. For each chunk, read the contents, and send the records and the memory of them in one
   transaction.

A record goes to the partition that it was in, whatever its key: there it stands behind the
records that its producer sent before it, and the number of partitions is fixed for ever.

| state | if the process dies here |
|---|---|
| chunk read | nothing happened |
| sent, not committed | the broker drops it; consumers never see it |
| committed | sent and remembered: the next redrive leaves it out |
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.reading.dead_letters import (
    DeadLetterContent,
    read_contents,
    select_dead_letters,
)
from pipeline.broker.sending.batches import NEVER_TAKEN, Message
from pipeline.broker.sending.transactions import TransactionalSender
from pipeline.core.dead_letters.carried_record import record_bytes
from pipeline.core.dead_letters.letter import DeadLetterRecord
from pipeline.core.dead_letters.redrive import (
    RedriveResult,
    plan_redrive,
    redrive_record,
    redriven_headers,
)
from pipeline.core.dead_letters.selection import DeadLetterFilter
from pipeline.core.progress import Progress, no_progress
from pipeline.core.record import RecordId
from pipeline.errors import BrokerError
from pipeline.recovery.chunks import in_chunks
from pipeline.settings import Settings
from pipeline.topics import redrive_topic, request_topics

CHUNK_RECORDS = 500
"""Most records of one transaction."""

CHUNK_BYTES = 8 * 1024 * 1024
"""Most bytes of records of one transaction; a single larger record has one of its own."""


async def redrive(
    settings: Settings,
    wanted: DeadLetterFilter,
    *,
    again: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> AsyncGenerator[RedriveResult]:
    """Bring back the dead letters that `wanted` fits; yield what became of each.

    What is yielded as redriven is there for its consumers, and remembered.

    Args:
        settings: The broker.
        wanted: Which dead letters.
        again: Whether to bring back also what was brought back before.
        dry_run: Whether to send nothing.
        progress: Called with how many dead letters are read.

    Raises:
        NotFoundError: A record was named that has no dead letter. Nothing was sent.
        RefusedError: Another command has begun to redrive.
        BrokerError: The broker cannot be reached.
    """
    async with _sender(settings, dry_run=dry_run) as sender:
        unsent = "; nothing was redriven"
        chosen, redrives = await select_dead_letters(settings, wanted, progress, unsent)
        plan = plan_redrive(chosen, redrives, await _partitions(settings), wanted, again=again)
        for result in plan:
            if sender is None or result.status != "ready":
                yield result
        if sender is not None:
            ready = [result.letter for result in plan if result.status == "ready"]
            async with aclosing(_send(settings, sender, ready)) as results:
                async for result in results:
                    yield result


@asynccontextmanager
async def _sender(
    settings: Settings, *, dry_run: bool
) -> AsyncIterator[TransactionalSender | None]:
    if dry_run:
        yield None
        return
    sender = TransactionalSender(settings, transactional_id(settings.prefix))
    try:
        await sender.start()
        yield sender
    finally:
        await sender.stop()


def transactional_id(prefix: str) -> str:
    """Return the id under which one redrive at a time sends."""
    return f"{prefix}.redrive"


async def _partitions(settings: Settings) -> dict[str, int]:
    """Return how many partitions each topic of requests has."""
    found = await partition_offsets(settings, request_topics(settings.prefix))
    return {topic: partition + 1 for topic, partition in sorted(found)}


async def _send(
    settings: Settings, sender: TransactionalSender, ready: Sequence[DeadLetterRecord]
) -> AsyncGenerator[RedriveResult]:
    removed = {letter.place: letter for letter in ready}
    contents = read_contents(settings, ready)
    chunked = in_chunks(contents, _bytes_of, most=CHUNK_RECORDS, most_bytes=CHUNK_BYTES)
    async with aclosing(chunked) as chunks:
        async for chunk in chunks:
            for content in chunk:
                del removed[content.letter.place]
                if content.unsendable is not None:
                    yield RedriveResult(content.letter, content.unsendable, why=content.fault)
            whole = [content for content in chunk if content.unsendable is None]
            for result in await _send_chunk(settings, sender, whole) if whole else []:
                yield result
    for letter in removed.values():
        yield RedriveResult(letter, "gone", why="Retention has removed the dead letter.")


def _bytes_of(content: DeadLetterContent) -> int:
    is_sent = content.unsendable is None
    return record_bytes(content.key, content.value, content.headers) if is_sent else 0


async def _send_chunk(
    settings: Settings, sender: TransactionalSender, chunk: Sequence[DeadLetterContent]
) -> list[RedriveResult]:
    """Send a chunk; where the broker finds a record of it too large, the two halves.

    A value of more than 5 MiB came in under the broker's limit by its producer's compression,
    and may not by ours.
    """
    try:
        places = await sender.send(
            [_message(content) for content in chunk],
            lambda places: _memories(settings, chunk, places),
        )
    except BrokerError as error:
        if not isinstance(error.__cause__, NEVER_TAKEN):
            raise
        await sender.start()
        if len(chunk) == 1:
            return [RedriveResult(chunk[0].letter, "refused", why=_TOO_LARGE)]
        return [
            result for content in chunk for result in await _send_chunk(settings, sender, [content])
        ]
    return [
        RedriveResult(content.letter, "redriven", place)
        for content, place in zip(chunk, places, strict=True)
    ]


_TOO_LARGE = "The topic does not take a record of its size: send it again from its producer."


def _message(content: DeadLetterContent) -> Message:
    source = content.letter.source
    assert source is not None
    headers = redriven_headers(content.letter, content.headers)
    return Message(source.topic, source.partition, content.key, content.value, headers)


def _memories(
    settings: Settings, chunk: Sequence[DeadLetterContent], places: Sequence[RecordId]
) -> list[Message]:
    return [
        Message(redrive_topic(settings.prefix), 0, *redrive_record(content.letter, place))
        for content, place in zip(chunk, places, strict=True)
    ]
