"""The records that wait for a consumer group: their senders, as far as known, and verdicts.

A record does not name its client. It has only a key, headers, a broker time and its body. So
the records that wait are judged as a worker would judge them, and what many of them have in
common is counted: verdicts, how their keys begin, headers. Nothing is written or moved.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRecord

from pipeline.broker.admin.groups import waiting_ranges
from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.reading.ranges import read_ranges
from pipeline.core.dead_letters.carried_record import bytes_of_name, split_headers
from pipeline.core.envelope import Rejected
from pipeline.core.record import Partition, RecordId
from pipeline.core.runs.verdict import JudgedRun
from pipeline.recovery.replay.request_topics import RequestTopic
from pipeline.settings import Settings

TEXT_LIMIT_CHARACTERS = 200
"""So much of a key or a header is shown."""

HEADERS_LIMIT = 20
"""So many headers of a record are shown."""

COUNTED_LIMIT = 10
"""So many keys and headers are counted, the most frequent first."""

_BEFORE_NUMBER = re.compile(r"[^0-9]{0,40}")


@dataclass(frozen=True, slots=True)
class WaitingRecord:
    """One record that waits.

    Attributes:
        verdict: OK, BLOCKED or ERROR of the run that it will make, INCOMPLETE where fields are
            missing or wrong, ADVISORY, or the code of its dead letter. Whether it is a duplicate
            or a conflict depends on the store, and is not looked at.
        reason: Why it will be refused.
        key: As text, cut.
        headers: Names and values as text, cut.
    """

    place: RecordId
    timestamp_ms: int
    verdict: str
    reason: str | None
    key: str | None
    size_bytes: int
    headers: tuple[tuple[str, str], ...]

    @property
    def key_begins(self) -> str:
        """What its key has before the first digit: often who made it."""
        if self.key is None:
            return "no key"
        match = _BEFORE_NUMBER.match(self.key)
        return f"{match.group() if match else ''}..."


async def waiting_in(settings: Settings, topic: RequestTopic) -> dict[Partition, OffsetRange]:
    """Return what waits for the group of `topic`, without partitions where nothing does.

    Raises:
        BrokerError: The broker cannot be reached, or the topic is missing.
    """
    ranges = await waiting_ranges(settings, topic.group, topic.name)
    return {place: each for place, each in ranges.items() if each.end > each.beginning}


async def peek(
    settings: Settings, topic: RequestTopic, waiting: Mapping[Partition, OffsetRange], limit: int
) -> AsyncIterator[WaitingRecord]:
    """Yield the first records that wait, at most `limit`, as many of each partition.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    share = -(-limit // max(len(waiting), 1))
    ranges = {
        place: OffsetRange(each.beginning, min(each.end, each.beginning + share))
        for place, each in waiting.items()
    }
    left = limit
    async with aclosing(read_ranges(settings, ranges)) as records:
        async for record in records:
            if left == 0:
                return
            left -= 1
            yield _looked_at(record, topic.judge(record.key, record.value))


def common(records: Iterable[WaitingRecord]) -> dict[str, dict[str, int]]:
    """Return what records have in common, the most frequent first."""
    verdicts, keys, headers = Counter[str](), Counter[str](), Counter[str]()
    for record in records:
        verdicts[record.verdict] += 1
        keys[record.key_begins] += 1
        headers.update({f"{name}: {value}" for name, value in record.headers})
    return {
        "verdicts": dict(verdicts.most_common()),
        "keys": dict(keys.most_common(COUNTED_LIMIT)),
        "headers": dict(headers.most_common(COUNTED_LIMIT)),
    }


def _looked_at(record: ConsumerRecord, verdict: Any) -> WaitingRecord:  # noqa: ANN401
    headers, _ = split_headers(record.headers)
    return WaitingRecord(
        RecordId.of(record),
        record.timestamp,
        _word(verdict),
        verdict.message if isinstance(verdict, Rejected) else None,
        _text(record.key) if isinstance(record.key, bytes) else None,
        0 if record.value is None else len(record.value),
        tuple(
            (_text(bytes_of_name(name)), _text(value or b""))
            for name, value in headers[:HEADERS_LIMIT]
        ),
    )


def _word(verdict: Any) -> str:  # noqa: ANN401
    if isinstance(verdict, Rejected):
        return verdict.code
    if isinstance(verdict, JudgedRun):
        return "INCOMPLETE" if verdict.is_incomplete else str(verdict.built.index_fields.status)
    return "ADVISORY"


def _text(content: bytes) -> str:
    return content[: 4 * TEXT_LIMIT_CHARACTERS].decode(errors="replace")[:TEXT_LIMIT_CHARACTERS]
