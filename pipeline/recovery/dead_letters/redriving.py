"""Brings dead letters back: each record to where it was refused, once, as it came.

1. Shut out whoever redrives under this prefix, so that nobody else can send.
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

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from pipeline.broker.admin.offsets import partition_offsets
from pipeline.broker.sending.batches import NEVER_TAKEN, Message
from pipeline.broker.sending.transactions import TransactionalSender
from pipeline.core.dead_letters.carried_record import record_bytes
from pipeline.core.dead_letters.letter import DeadLetterRecord
from pipeline.core.dead_letters.redrive import (
    RedrivePlan,
    plan_redrive,
    redrive_record,
    redriven_headers,
)
from pipeline.core.dead_letters.selection import DeadLetterFilter, missing_dead_letter
from pipeline.core.progress import Progress, no_progress
from pipeline.core.record import RecordId
from pipeline.errors import BrokerError, NotFoundError
from pipeline.recovery.dead_letters.reading import (
    DeadLetterContent,
    FaultKind,
    read_contents,
    read_dead_letters,
    read_redrives,
)
from pipeline.settings import Settings
from pipeline.topics import redrive_topic, request_topics

CHUNK_RECORDS = 500
"""Most records of one transaction."""

CHUNK_BYTES = 8 * 1024 * 1024
"""Most bytes of records of one transaction; a single larger record has one of its own."""

RedriveStatus = Literal[
    "ready", "redriven", "redriven before", "held", "refused", "changed", "gone"
]


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """What became of one dead letter.

    Attributes:
        status: In one word or two.
        redriven_as: Where the record is now, where it was sent, now or before.
        why: Where it was not sent.
    """

    letter: DeadLetterRecord
    status: RedriveStatus
    redriven_as: RecordId | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class RedriveOrder:
    """What an operator asks for.

    Attributes:
        wanted: Which dead letters.
        again: Whether to bring back also what was brought back before.
        dry_run: Whether to send nothing.
    """

    wanted: DeadLetterFilter
    again: bool = False
    dry_run: bool = False

    @property
    def asked_for(self) -> Collection[str] | None:
        """The codes that were asked for; None where each dead letter was named."""
        return None if self.wanted.sources else self.wanted.codes


async def redrive(
    settings: Settings, order: RedriveOrder, *, progress: Progress = no_progress
) -> AsyncGenerator[RedriveResult]:
    """Bring back the dead letters that `order` asks for; yield what became of each.

    What is yielded as redriven is there for its consumers, and remembered.

    Raises:
        NotFoundError: A record was named that has no dead letter. Nothing was sent.
        RefusedError: Another command has begun to redrive.
        BrokerError: The broker cannot be reached.
    """
    async with _sender(settings, dry_run=order.dry_run) as sender:
        redrives = await read_redrives(settings)
        letters = await read_dead_letters(
            settings, since_ms=order.wanted.since_ms, progress=progress
        )
        chosen = letters.selected(order.wanted)
        _refuse_unknown(order.wanted, chosen)
        plan = plan_redrive(
            chosen,
            redrives,
            await _partitions(settings),
            asked_for=order.asked_for,
            again=order.again,
        )
        for result in _left_out(plan):
            yield result
        for letter in plan.done:
            assert letter.source is not None
            yield RedriveResult(letter, "redriven before", redrives[letter.source].redriven_as)
        if sender is None:
            for letter in plan.ready:
                yield RedriveResult(letter, "ready")
            return
        async with aclosing(_send(settings, sender, plan.ready)) as results:
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


def _refuse_unknown(wanted: DeadLetterFilter, letters: Sequence[DeadLetterRecord]) -> None:
    missing = missing_dead_letter(wanted, letters)
    if missing is not None:
        raise NotFoundError(f"{missing}; nothing was redriven.")


def _left_out(plan: RedrivePlan) -> list[RedriveResult]:
    return [
        *(RedriveResult(letter, "refused", why=why) for letter, why in plan.refused),
        *(RedriveResult(letter, "held", why=_HELD) for letter in plan.held),
    ]


_HELD = "Judged again it would end the same way; name its code or its record to redrive it."


async def _send(
    settings: Settings, sender: TransactionalSender, ready: Sequence[DeadLetterRecord]
) -> AsyncGenerator[RedriveResult]:
    found = {letter.place for letter in ready}
    chunk: list[DeadLetterContent] = []
    size = 0
    async with aclosing(read_contents(settings, ready)) as contents:
        async for content in contents:
            found.discard(content.letter.place)
            if content.fault is not None:
                yield _left_over(content)
                continue
            length = record_bytes(content.key, content.value, content.headers)
            if chunk and (len(chunk) == CHUNK_RECORDS or size + length > CHUNK_BYTES):
                for result in await _send_chunk(settings, sender, chunk):
                    yield result
                chunk, size = [], 0
            chunk.append(content)
            size += length
    if chunk:
        for result in await _send_chunk(settings, sender, chunk):
            yield result
    for letter in ready:
        if letter.place in found:
            yield RedriveResult(letter, "gone", why="Retention has removed the dead letter.")


def _left_over(content: DeadLetterContent) -> RedriveResult:
    """Return the result of a dead letter whose bytes cannot all be read."""
    assert content.kind is not None
    return RedriveResult(content.letter, _LEFT_OVER[content.kind], why=content.fault)


_LEFT_OVER: dict[FaultKind, RedriveStatus] = {
    "changed": "changed",
    "too large": "refused",
    "gone": "gone",
}


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
