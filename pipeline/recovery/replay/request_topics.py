"""The request topics: how their records are judged, and the store that keeps the results.

What reads topics again goes through this table in its order: runs come before advisories, so that
links find their runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.broker.admin.groups import committed_offsets
from pipeline.broker.admin.topics import OffsetRange
from pipeline.broker.reading.log_holes import Hole, find_holes
from pipeline.consumers.engine.judging import Judge
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.record import Partition
from pipeline.core.runs.verdict import judge_run_record
from pipeline.legacy.record import judge_legacy_record
from pipeline.settings import Settings
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.batch_store import BatchStore
from pipeline.storage.run_store import RunStore
from pipeline.topics import TopicNames


@dataclass(frozen=True, slots=True)
class RequestTopic:
    """One request topic.

    Attributes:
        name: Full name.
        group: The consumer group that reads it, and writes what its records make.
        judge: Returns the verdict on a record.
        store: Keeps it, and plans records from its rows alone.
    """

    name: str
    group: str
    judge: Judge[Any]
    store: type[BatchStore[Any, Any]]


def request_topics(topics: TopicNames) -> list[RequestTopic]:
    """Return every request topic, in the order in which they are replayed."""
    return [
        RequestTopic(topics.run_requests, topics.persist_group, judge_run_record, RunStore),
        RequestTopic(topics.legacy_runs, topics.migrate_group, judge_legacy_record, RunStore),
        RequestTopic(
            topics.advisory_requests, topics.advise_group, judge_advisory_record, AdvisoryStore
        ),
    ]


async def consumed_offsets(settings: Settings) -> dict[Partition, int]:
    """Return what the group of each request topic has committed, for all of them.

    Raises:
        BrokerError: The broker cannot be reached, or a topic is missing.
    """
    committed: dict[Partition, int] = {}
    for topic in request_topics(settings.topics):
        committed |= await committed_offsets(settings, topic.group, [topic.name])
    return committed


async def holes_in_consumed(
    settings: Settings, logs: Mapping[Partition, OffsetRange], committed: Mapping[Partition, int]
) -> dict[Partition, list[Hole]]:
    """Return the offsets of records that were consumed and are gone from the middle of a log.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    consumed = {
        place: OffsetRange(log.beginning, min(log.end, committed.get(place, 0)))
        for place, log in logs.items()
    }
    return await find_holes(settings, consumed)
