"""The client side of an audit: request it, read its findings as they come, then its report."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.structs import RecordMetadata

from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.reading.ranges import record_reader
from pipeline.broker.sending.requests import RequestSender
from pipeline.core.dead_letters.letter import read_dead_letter
from pipeline.core.json.canonical import canonical_json
from pipeline.core.record import RecordId
from pipeline.settings import Settings
from schemas.audit_request import AuditRequest

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class AuditNews:
    """What an audit has published since the last poll.

    Attributes:
        findings: In their order, each once.
        report: Its report; None before the last poll.
        refusal: Code and reason of the request's dead letter, where there is one.
    """

    findings: list[dict[str, Any]]
    report: dict[str, Any] | None = None
    refusal: tuple[str, str] | None = None


@asynccontextmanager
async def listening(settings: Settings, audit_id: str) -> AsyncIterator["AuditListener"]:
    """Read from the ends of the topics on, for the length of a block.

    Raises:
        TopicsError: A topic is missing.
        BrokerError: No broker answers, or it refuses what the block asks.
    """
    topics = settings.topics
    read = (topics.audit_findings, topics.audit_reports, topics.audit_dead_letters)
    ends = await partition_offsets(settings, read)
    async with record_reader(settings) as consumer:
        consumer.assign([TopicPartition(*place) for place in ends])
        for place, offsets in ends.items():
            consumer.seek(TopicPartition(*place), offsets.end)
        yield AuditListener(settings, consumer, audit_id)


@dataclass(slots=True)
class AuditListener:
    """Reads the findings, the report and the dead letter of one audit, each once."""

    settings: Settings
    consumer: Any
    audit_id: str
    _seen: set[bytes] = field(default_factory=set)

    async def news(self, request: RecordMetadata) -> AsyncGenerator[AuditNews]:
        """Yield what is published, several times a second, until the report or the dead letter.

        Args:
            request: Where the broker keeps the request.
        """
        while True:
            news = self._read(await self._polled(), request)
            if news.report is not None:
                # Every finding was acknowledged before the report was sent.
                late = [each async for each in self._until_now()]
                found = [*news.findings, *self._findings(late)]
                yield AuditNews(found, news.report)
                return
            yield news
            if news.refusal is not None:
                return

    async def _polled(self) -> list[ConsumerRecord]:
        fetched = await self.consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000))
        return [record for records in fetched.values() for record in records]

    async def _until_now(self) -> AsyncGenerator[ConsumerRecord]:
        """Yield what is left of the findings' topic, up to where it ends now."""
        ends = await partition_offsets(self.settings, [self.settings.topics.audit_findings])
        left = {TopicPartition(*place): offsets.end for place, offsets in ends.items()}
        while left:
            for record in await self._polled():
                yield record
            left = {
                place: end
                for place, end in left.items()
                if await self.consumer.position(place) < end
            }

    def _read(self, records: Iterable[ConsumerRecord], request: RecordMetadata) -> AuditNews:
        listed = list(records)
        topics = self.settings.topics
        report = refusal = None
        for record in listed:
            if record.topic == topics.audit_reports and self._is_ours(record):
                report = _document(record)
            elif record.topic == topics.audit_dead_letters:
                refusal = _refusal_of(record, request, self.audit_id) or refusal
        return AuditNews(list(self._findings(listed)), report, refusal)

    def _findings(self, records: Iterable[ConsumerRecord]) -> Iterator[dict[str, Any]]:
        for record in records:
            if record.topic != self.settings.topics.audit_findings or not self._is_ours(record):
                continue
            finding = _document(record)
            if finding is not None and record.value not in self._seen:
                self._seen.add(record.value)
                yield finding

    def _is_ours(self, record: ConsumerRecord) -> bool:
        return bool(record.key == self.audit_id.encode())


def _document(record: ConsumerRecord) -> dict[str, Any] | None:
    """Return the value of a record; None where it is none that a worker writes."""
    try:
        document = json.loads(record.value or b"")
    # Any producer may write to the topic. RecursionError: it is nested deeply. TypeError: the value
    # was too large to be kept.
    except (ValueError, RecursionError, TypeError):
        return None
    return document if isinstance(document, dict) else None


def _refusal_of(
    record: ConsumerRecord, request: RecordMetadata, audit_id: str
) -> tuple[str, str] | None:
    """Return code and reason of a dead letter, if it is that of the request or of a part of it."""
    place = RecordId.of(record)
    found = read_dead_letter(place, record.timestamp, record.key, record.value, record.headers)
    is_of_part = (found.key or "").startswith(f"{audit_id}.part-")
    is_ours = is_of_part or found.source == RecordId.of(request)
    return (found.code, found.message) if is_ours else None


async def publish_audit(
    sender: RequestSender, settings: Settings, request: AuditRequest
) -> RecordMetadata:
    """Publish `request`; return where the broker keeps it, once it has acknowledged it.

    The same request is the same bytes, so two schedulers publish duplicates.

    Raises:
        BrokerError: It did not acknowledge it; it may have it all the same.
    """
    key = request.audit_id.encode()
    value = canonical_json(request.model_dump(exclude_none=True))
    # The key decides the partition: of two requests for one audit, one waits for the other.
    return await (await sender.send(settings.topics.audit_requests, key, value, []))
